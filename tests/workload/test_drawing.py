"""Requests and sessions drawn from a workload."""

from __future__ import annotations

import numpy as np
import pytest

from planner.errors import InputError
from planner.workload import Workload, load_workload
from planner.workload.arrivals import draw_gaps, weibull_shape
from planner.workload.drawing import draw_requests
from planner.workload.examples import example_path
from planner.workload.joint import JointLengths
from planner.workload.lengths import Constant, Lognormal
from planner.workload.sessions import SessionModel, draw_sessions, turn_lengths

HEAD = 'model = "llama-3.1-8b"\n'
LENGTHS = "[context]\nmean = 1000\ncv = 1.0\ncached_fraction = 0.25\n[answer]\nmean = 250\ncv = 0.8\n"


def load(text: str) -> Workload:
    return load_workload("w", text=HEAD + text)


@pytest.mark.parametrize(("demand", "cv"), [
    ("", 1.0), ("arrival_cv = 2.5\n", 2.5), ("arrival_cv = 0.5\n", 0.5), ("arrival_cv = 0\n", 0.0),
    ('arrivals = "weibull"\narrival_cv = 1.8\n', 1.8), ('arrivals = "gamma"\n', 1.0), ('arrivals = "weibull"\n', 1.0),
])  # fmt: skip
def test_arrivals_have_their_rate_and_variability(demand: str, cv: float) -> None:
    w = load(f"[demand]\nrequests_per_second = 3\n{demand}{LENGTHS}")
    drawn = draw_requests(w, 5.0, 200_000, 4)
    gaps = np.diff(drawn.arrival_s, prepend=0.0)
    assert gaps.mean() == pytest.approx(0.2, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03, abs=1e-6)


def test_weibull_and_gamma_differ_in_shape() -> None:
    assert weibull_shape(0.5) == pytest.approx(2.1013, rel=1e-4)
    gamma, weibull = (draw_gaps(kind, 2.0, 1.0, 400_000, np.random.default_rng(2)) for kind in ("gamma", "weibull"))
    assert np.median(gamma) < 0.6 * np.median(weibull)


def test_lengths_are_the_workloads() -> None:
    w = load("[demand]\nrequests_per_second = 3\n" + LENGTHS)
    drawn = draw_requests(w, 5.0, 200_000, 4)
    assert drawn.input.mean() == pytest.approx(1000, rel=0.01)
    assert drawn.cached.mean() == pytest.approx(250, rel=0.01)
    assert drawn.output.mean() == pytest.approx(250, rel=0.01)
    assert np.all(drawn.cached < drawn.input)
    assert drawn.output.min() >= 1
    assert drawn.input.dtype == np.int64


def test_the_same_seed_draws_the_same() -> None:
    w = load("[demand]\nrequests_per_second = 3\n" + LENGTHS)
    one, two, three = (draw_requests(w, 5.0, 1000, seed) for seed in (1, 1, 2))
    assert one.arrival_s.tolist() == two.arrival_s.tolist()
    assert one.output.tolist() == two.output.tolist()
    assert one.output.tolist() != three.output.tolist()


def test_classes_come_in_their_shares() -> None:
    text = "[demand]\nrequests_per_second = 3\n"
    for name, share, context in (("a", 3, 100), ("b", 1, 5000)):
        text += f'[[requests]]\nname = "{name}"\nshare = {share}\ncontext = {context}\nanswer = 10\n'
    drawn = draw_requests(load(text), 5.0, 100_000, 4)
    assert np.mean(drawn.classes == 0) == pytest.approx(0.75, abs=0.01)
    assert set(drawn.input[drawn.classes == 1]) == {5000}


def test_subagents_arrive_together_and_share_their_prefix() -> None:
    agents = "[subagents]\nfan_out = 4\nshared_prefix = 600\n"
    drawn = draw_requests(load("[demand]\nrequests_per_second = 3\n" + LENGTHS + agents), 5.0, 4000, 4)
    assert len(drawn) == 4000
    assert drawn.task.tolist() == np.repeat(np.arange(1000), 4).tolist()
    by_task = drawn.arrival_s.reshape(-1, 4)
    assert np.all(by_task == by_task[:, :1])
    assert np.all(drawn.input.reshape(-1, 4) == drawn.input.reshape(-1, 4)[:, :1])
    assert np.mean(drawn.output.reshape(-1, 4).std(axis=1) > 0) > 0.99
    cached, inputs = drawn.cached.reshape(-1, 4), drawn.input.reshape(-1, 4)
    assert np.all(cached[:, 0] <= np.ceil(0.25 * inputs[:, 0]) + 1)
    assert np.all(cached[:, 1:] >= np.minimum(600, inputs[:, 1:] - 1))
    assert len(np.unique(drawn.arrival_s)) / drawn.arrival_s[-1] == pytest.approx(5, rel=0.1)


def test_joint_lengths_are_drawn_together() -> None:
    rng = np.random.default_rng(3)
    inputs = rng.lognormal(7, 1, 4000)
    joint = JointLengths(inputs, np.zeros(4000), 0.1 * inputs + 1)
    for fan_out in (1, 4):
        i, _, o = joint.draw(20_000, fan_out, np.random.default_rng(1))
        assert np.corrcoef(np.log(i), np.log(o))[0, 1] > 0.99
        assert np.mean(o) == pytest.approx(joint.output.mean(), rel=0.05)


@pytest.mark.parametrize("name", ["chat", "coding-agent", "reasoning"])
def test_a_million_requests(name: str) -> None:
    w = load_workload(example_path(name))
    drawn = draw_requests(w, 10.0, 1_000_000, 1)
    assert len(drawn) == 1_000_000
    assert float(drawn.input.mean()) == pytest.approx(w.moments.mean_input, rel=0.02)


# -- sessions ------------------------------------------------------------------------------------

SESSION = """[demand]
sessions = 50
[context]
mean = 4000
cv = 0.5
[answer]
mean = 300
cv = 1.0
[session]
turns = { mean = 8, cv = 1.0 }
appended = 500
pause = { mean = "20s", cv = 2.0 }
pinned = 1000
"""


def test_a_session_is_a_load_of_turns() -> None:
    w = load(SESSION)
    assert (w.demand.kind, w.demand.concurrent_users, w.demand.think_time) == ("sessions", 50, 20)
    assert w.demand.session is not None
    assert w.demand.session.pause_cv == 2
    m = w.moments
    assert m.mean_output == pytest.approx(300, rel=0.03)
    # later turns of longer sessions: context well above the first prompt, almost all of it cached
    assert m.mean_input > 9000
    assert m.mean_prefill < 1500
    assert w.classes[0].joint is not None


def test_turns_append_to_what_is_there() -> None:
    model = SessionModel(Constant(4), Constant(1000), Constant(100), (Constant(50),), 5.0, 0.0, pinned=400)
    turns = draw_sessions(model, 3, 1)
    assert turns.session.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert turns.turn.tolist() == [0, 1, 2, 3] * 3
    assert turns.input[:4].tolist() == [1000, 1150, 1300, 1450]
    assert turns.cached[:4].tolist() == [400, 1050, 1200, 1350]
    assert turns.pause_s.tolist() == [5.0] * 12


def test_idle_contexts_are_dropped_after_their_time() -> None:
    kept = SessionModel(Constant(50), Constant(1000), Constant(100), (Constant(50),), 60.0, 1.0, ttl=60.0, pinned=400)
    turns = draw_sessions(kept, 2000, 1)
    later = turns.turn > 0
    share = np.mean(turns.cached[later] == 400)
    expected = 1 - float(np.mean(kept.pause.stratified(4096) <= 60))
    assert share == pytest.approx(expected, abs=0.01)


def test_sessions_start_over_at_their_limit() -> None:
    model = SessionModel(Constant(40), Constant(1000), Constant(100), (Constant(50),), 1.0, 0.0, max_context=2000)
    turns = draw_sessions(model, 1, 1)
    assert turns.input.max() <= 2000
    assert np.sum(np.diff(turns.input) < 0) >= 4
    assert turns.input[7] == 1100


def test_dropped_reasoning_is_neither_repeated_nor_cached() -> None:
    model = SessionModel(Constant(3), Constant(1000), Constant(100), (Constant(50),), 1.0, 0.0, kept_output=0.2)
    turns = draw_sessions(model, 1, 1)
    assert turns.input.tolist() == [1000, 1110, 1220]
    assert turns.cached.tolist() == [0, 1000, 1110]


def test_turns_as_a_sample() -> None:
    model = SessionModel(Lognormal.from_mean(6, 1.0), Constant(1000), Constant(100), (Constant(50),), 1.0, 0.0)
    lengths = turn_lengths(model)
    drawn = draw_sessions(model, 50_000, 9)
    assert lengths.input.mean() == pytest.approx(drawn.input.mean(), rel=0.05)
    assert lengths.cached_fraction == pytest.approx(drawn.cached.sum() / drawn.input.sum(), rel=0.03)


def test_sessions_without_a_table_are_users() -> None:
    w = load('[demand]\nsessions = 50\nthink_time = "3s"\n' + LENGTHS)
    assert (w.demand.kind, w.demand.concurrent_users, w.demand.think_time) == ("users", 50, 3)


@pytest.mark.parametrize(("old", "new", "says"), [
    ("sessions = 50", "requests_per_second = 50", "session: given without demand.sessions"),
    ("sessions = 50", 'sessions = 50\nthink_time = "3s"', "demand.think_time: given beside"),
    ("pinned = 1000", "pinned = 9000", "session.pinned: is 9000, longer than the mean first prompt"),
    ("pinned = 1000", "max_context = 4100", "session.max_context: is 4100, less than a first prompt"),
])  # fmt: skip
def test_sessions_that_make_no_sense(old: str, new: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load(SESSION.replace(old, new))
