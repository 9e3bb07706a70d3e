"""The fan-out curve: worked numbers, brute force over tasks drawn one by one, and what must always hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.layout import Layout
from planner.cost.memory import CacheLayout
from planner.cost.step import StepModel
from planner.decisions.fanout import fan_out
from planner.decisions.fanout_curve import Curve, Fork, Site, fan_out_curve, turns_ahead
from planner.decisions.fanout_place import group_bytes
from planner.decisions.fanout_result import FanOut
from planner.errors import NoPlanError
from planner.hardware import Database
from planner.models import Model
from planner.serving.branches import tokens_with_alive
from planner.workload import load_workload
from planner.workload.examples import example_path
from planner.workload.lengths import Lognormal
from tests.conftest import H200, reference_machine

TASKS = 20_000
MOST = 12
MU = 6.774


def site(
    most: int = MOST,
    others: float = 20.0,
    base: float = 8e-3,
    slope: float = 2e-4,
    first: float = 2.0,
    each: float = 0.05,
    usd: float = 8 / 3600,
) -> Site:
    """A replica with linear steps, ``base + slope * batch``."""
    j, k = np.arange(most + 1.0), np.arange(1.0, most + 1)
    steps = np.tile(base + slope * (others + j), (most, 1))
    prefill = first + (k - 1) * each
    return Site(others, steps, prefill, 0.1 + prefill, usd, devices=2, acceptance=1.5, stretch=1.2)


# --- worked numbers


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [
        (0.97, {1: 1.0, 2: 1.507, 3: 1.875, 4: 2.170, 5: 2.419, 8: 3.006, 16: 4.033}),
        (0.4, {2: 1.223, 3: 1.356, 4: 1.451, 5: 1.525, 8: 1.682, 16: 1.917}),
    ],
)
def test_join_waits_for_the_longest(sigma: float, expected: dict[int, float]) -> None:
    lengths = Lognormal(MU, sigma)
    # a step a second, and the first token takes one too: seconds are tokens
    alone = Site(0.0, np.ones((16, 17)), np.zeros(16), np.ones(16), 1.0)
    found = fan_out_curve(Fork(lengths.quantile, 0.3), alone)
    for k, ratio in expected.items():
        assert found.join_mean[k - 1] / lengths.mean == pytest.approx(ratio, rel=0.01)
    assert found.at_work[7] == pytest.approx(8 / (found.join_mean[7] / lengths.mean), rel=0.01)


@pytest.mark.parametrize(("q", "expected"), [(0.5, {4: 2303.5, 8: 3353.1}), (0.9, {4: 5761.2, 8: 7562.9})])
def test_quantiles_of_the_longest(q: float, expected: dict[int, float]) -> None:
    tokens = tokens_with_alive(Lognormal(MU, 0.97).quantile, 8, q).sum(axis=1)
    for k, length in expected.items():
        assert tokens[k - 1] == pytest.approx(length, rel=0.01)


@pytest.mark.parametrize(
    ("correlation", "expected"),
    [
        (0.0, {1: 0.3, 2: 0.51, 4: 0.7599, 8: 0.94235, 16: 0.99668}),
        (0.3, {1: 0.3, 2: 0.447, 4: 0.59719, 8: 0.7254, 16: 0.82103}),
        (0.7, {1: 0.3, 2: 0.363, 4: 0.41935, 8: 0.4699, 16: 0.5156}),
    ],
)
def test_useful_work(correlation: float, expected: dict[int, float]) -> None:
    found = fan_out_curve(Fork(Lognormal(MU, 0.97).quantile, 0.3, correlation), site(16))
    for k, useful in expected.items():
        assert found.useful[k - 1] == pytest.approx(useful, rel=0.01)


def test_turns_ahead() -> None:
    ahead = turns_ahead(0.6, 4, 10.0, 0.01)
    assert ahead.useful == pytest.approx([0.6, 0.36, 0.216, 0.1296])
    # the first saves six seconds and wastes 0.4 cents: break-even at 0.004 / 6 s
    assert ahead.pays_from[0] == pytest.approx(0.004 / 6 * 3600)
    assert [ahead.paying(v) for v in (1.0, 3.0, 7.0, None)] == [0, 1, 2, 1]


def test_sharing_saves_memory_always_and_bandwidth_with_a_cascade_kernel(llama_70b: Model) -> None:
    step = StepModel(llama_70b, llama_70b.formats, "bf16")
    cache_layout = CacheLayout(llama_70b.layers, "bf16")
    contexts = np.array([32768.0 + 2048])
    for layout in (Layout(), Layout(tensor=4), Layout(tensor=2, data=2), Layout(tensor=2, pipeline=2)):
        unshared, stored, read, cascade = group_bytes(
            step, reference_machine(H200), layout, cache_layout, contexts, 32768.0, 8
        )
        assert unshared[7] == pytest.approx(91_268_055_040, rel=1e-9)
        assert read[7] == pytest.approx(91_268_055_040, rel=1e-3)
        assert stored[7] == pytest.approx(16_106_127_360, rel=1e-9)
        assert cascade[7] == pytest.approx(16_106_127_360, rel=1e-3)
        assert stored[0] == unshared[0]
        assert cascade[0] == read[0]


# --- brute force


@dataclass(frozen=True)
class Drawn:
    """Tasks drawn one by one, at every K: seconds to the join, dollars, solved or not."""

    join: np.ndarray
    usd: np.ndarray
    solved: np.ndarray


@cache
def drawn(
    sigma: float, success: float, correlation: float, avenues: int | None, first: float, base: float
) -> tuple[Drawn, ...]:
    """Each task's branches run to their ends beside others, and pay their share of every step."""
    at = site(first=first, base=base)
    rng = np.random.default_rng(7)
    found = []
    for k in range(1, MOST + 1):
        lengths = np.sort(np.maximum(rng.lognormal(MU, sigma, (TASKS, k)) - 1, 0), axis=1)
        gaps = np.diff(lengths, prepend=0.0, axis=1) / at.acceptance
        alive = np.arange(k, 0, -1)
        step = at.steps[0, alive]
        join = at.first_token[k - 1] + at.stretch * gaps @ step
        replica = at.prefill[k - 1] + gaps @ (step * alive / (at.others + alive))
        chance = np.full(TASKS, success)
        if correlation:
            odds = (1 - correlation) / correlation
            chance = rng.beta(success * odds, (1 - success) * odds, TASKS)
        solved = rng.binomial(min(k, avenues or k), chance) > 0
        found.append(Drawn(join, replica * at.usd_per_second, solved))
    return tuple(found)


CASES = [
    (0.97, 0.3, 0.3, None, 4.0, 8e-3),
    (0.97, 0.3, 0.0, None, 4.0, 8e-3),
    (0.4, 0.1, 0.1, 3, 30.0, 2e-3),
    (0.97, 0.6, 0.7, None, 2.0, 20e-3),
]


def curve_of(case: tuple[float, float, float, int | None, float, float]) -> Curve:
    sigma, success, correlation, avenues, first, base = case
    return fan_out_curve(
        Fork(Lognormal(MU, sigma).quantile, success, correlation, avenues), site(first=first, base=base)
    )


@pytest.mark.parametrize("case", CASES)
def test_latencies_and_costs_of_drawn_tasks(case: tuple[float, float, float, int | None, float, float]) -> None:
    found = curve_of(case)
    z = 3.9  # four of 48 * 4 intervals this wide would be missed once in fifty runs of other seeds
    for i, tasks in enumerate(drawn(*case)):
        for ours, sample in (
            (found.join_mean[i], tasks.join),
            (found.usd[i], tasks.usd),
            (found.useful[i], tasks.solved),
        ):
            assert abs(ours - sample.mean()) <= z * sample.std() / np.sqrt(TASKS)
        spread = z * np.sqrt(0.95 * 0.05 / TASKS)
        low, high = np.quantile(tasks.join, (0.95 - spread, 0.95 + spread))
        assert low <= found.join_p95[i] <= high
        cost = tasks.usd.mean() / tasks.solved.mean()
        error = (tasks.usd - cost * tasks.solved).std() / tasks.solved.mean() / np.sqrt(TASKS)
        assert abs(found.usd_per_solved[i] - cost) <= z * error


@pytest.mark.parametrize("case", CASES)
def test_the_optimum_is_where_drawn_tasks_have_it(case: tuple[float, float, float, int | None, float, float]) -> None:
    found, tasks = curve_of(case), drawn(*case)
    costs = [t.usd.mean() / t.solved.mean() for t in tasks]
    assert found.cheapest() == int(np.argmin(costs)) + 1
    assert found.cheapest() < MOST
    for value in (0.015, 0.03, 0.06, 0.1, 0.3):
        net = np.array([value * t.solved.mean() - t.usd.mean() for t in tasks])
        errors = [(value * t.solved - t.usd).std() / np.sqrt(TASKS) for t in tasks]
        ours = found.paying(value)
        best_net = max(float(net.max()), 0.0)
        # where neighbours are closer than the draws can tell apart, any of them
        mine, error = (float(net[ours - 1]), errors[ours - 1]) if ours else (0.0, max(errors))
        assert mine >= best_net - 3 * np.hypot(error, errors[int(np.argmax(net))])


# --- what always holds

LAW = st.builds(
    Fork,
    st.sampled_from([Lognormal(MU, s).quantile for s in (0.3, 0.97)]),
    st.floats(0.02, 0.98),
    st.floats(0.0, 0.9),
    st.sampled_from([None, 2, 5]),
)
PLACE = st.builds(
    site, st.just(8), st.floats(0, 300), st.floats(1e-3, 0.1), st.floats(0, 1e-3), st.floats(0, 50), st.floats(0, 2)
)


@settings(max_examples=25)
@given(LAW, PLACE)
def test_more_branches(fork: Fork, place: Site) -> None:
    found = fan_out_curve(fork, place)
    assert np.all(np.diff(found.join_mean) > 0)
    assert np.all(found.join_p95 >= found.join_mean * 0.99)
    assert np.all(np.diff(found.usd) > 0)
    gains = np.diff(found.useful, prepend=0.0)
    assert np.all(gains >= -1e-12)
    assert np.all(np.diff(gains) <= 1e-12)
    assert np.all(found.at_work <= np.arange(1, 9) + 1e-9)
    paying = [found.paying(v) for v in (1e-4, 1e-2, 1.0, 100.0)]
    assert paying == sorted(paying)
    if fork.avenues is not None:
        assert max(paying) <= fork.avenues


@settings(max_examples=25)
@given(LAW, PLACE, st.floats(1e-3, 10))
def test_the_marginal_rule_finds_the_best_where_branches_cost_the_same(fork: Fork, place: Site, value: float) -> None:
    found = fan_out_curve(fork, place)
    pays = found.paying(value)
    if pays:
        assert pays == 1 or found.pays_from[pays - 1] <= value * (1 + 1e-9)
        assert pays == 8 or found.pays_from[pays] >= value * (1 - 1e-9)


# --- on a plan


@pytest.fixture(scope="module")
def agent(database: Database) -> FanOut:
    workload = load_workload(example_path("coding-agent"))
    return fan_out(workload, database, most=8, value=0.1, gpus=["b200-sxm"], simulate=False)


def test_the_workloads_own_fan_out_costs_what_the_plan_costs(agent: FanOut) -> None:
    plan = agent.plan
    per_task = plan.cost.usd_per_hour / 3600 / plan.throughput.requests_per_second
    assert agent.rows[3].usd_per_task == pytest.approx(per_task, rel=1e-6)
    assert agent.paid_over_used >= 1
    assert plan.sharing is not None
    assert agent.rows[3].useful_work == pytest.approx(plan.sharing.useful_work)
    assert agent.rows[3].join_latency_mean_s == pytest.approx(plan.sharing.join_latency_s, rel=0.05)


def test_three_avenues_bind(agent: FanOut) -> None:
    assert agent.fan_out_that_pays == 3
    assert agent.bound_by == "independent avenues"
    assert agent.rows[3].pays_from_value_usd is None


@pytest.mark.parametrize(
    ("settings_", "value", "bound"),
    [
        (["slo.e2e_p95=\"150s\"", "subagents.correlation=0.0"], 10.0, "latency limit"),
        (["subagents.independent_avenues=60"], 100.0, "largest tried"),
        (["subagents.independent_avenues=60"], 0.06, "marginal value"),
    ],
)  # fmt: skip
def test_what_binds(database: Database, settings_: list[str], value: float, bound: str) -> None:
    text = """
        model = "llama-3.1-8b"
        demand.requests_per_second = 2
        context.mean = 8000
        reasoning = { mean = 3000, cv = 1.2 }
        [subagents]
        shared_prefix = 6000
    """
    workload = load_workload("agent", settings_, text=text)
    found = fan_out(workload, database, most=8, value=value, gpus=["h100-sxm"], simulate=False)
    assert found.bound_by == bound


def test_a_cascade_kernel_only_shortens_steps(agent: FanOut) -> None:
    for row in agent.rows:
        assert row.kv_bytes_stored <= row.kv_bytes_without_sharing
        assert row.read_bytes_per_step_with_cascade <= row.read_bytes_per_step_without_cascade
        assert row.time_per_output_token_with_cascade_s <= row.time_per_output_token_s * (1 + 1e-9)


def test_no_plan(database: Database) -> None:
    with pytest.raises(NoPlanError, match="no feasible plan"):
        fan_out(load_workload(example_path("infeasible")), database)
