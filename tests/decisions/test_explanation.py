"""The story of a plan: components add up, regimes are where they are said to be, and eleven claims turn."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from conftest import H100, reference_machine

from planner.cost.layout import Layout
from planner.cost.roofline import critical_batch
from planner.cost.speculation import Drafter
from planner.cost.step import StepModel
from planner.decisions.attention_kinds import compare_attention, counterpart
from planner.decisions.explained_step import ExplainedStep, components, curve, first_batch, rooflines
from planner.decisions.explanation import explain
from planner.decisions.explanation_result import Claim, Explanation
from planner.hardware import Database, load_database
from planner.models import Model, load_model
from planner.workload import load_workload
from planner.workload.examples import example_path

EXAMPLES = ("chat", "rag", "coding-agent", "reasoning", "reasoning-glm", "refactor", "batch")
KINDS = ("h100-sxm", "h200-sxm", "b200-sxm")


@cache
def found(example: str, *changes: str) -> Explanation:
    database = load_database()
    return explain(load_workload(example_path(example), list(changes)), database, gpus=KINDS, simulate=False)


def claim(number: int, example: str, *changes: str) -> Claim:
    return next(c for c in found(example, *changes).claims if c.number == number)


def step_of(model: Model, database: Database, contexts: float = 500.0, kv: str = "bf16") -> ExplainedStep:
    return ExplainedStep(
        StepModel(model, {}, kv), reference_machine(H100), Layout(), Drafter("none", 0), 1.0, np.array([contexts]), 1.0,
        database.accelerator("h100-sxm"),
    )  # fmt: skip


# --- the step


@pytest.mark.parametrize("example", EXAMPLES)
def test_components_and_curve_add_up(example: str) -> None:
    e = found(example)
    here = next(p for p in e.curve if p.batch == max(1.0, e.plan.mean_batch))
    assert sum(c.seconds for c in e.components) == pytest.approx(here.step_s, rel=1e-9)
    assert sum(c.share for c in e.components) == pytest.approx(1.0)
    moved = {c.name: c.bytes_per_step or 0.0 for c in e.components}
    assert moved["weights"] == pytest.approx(here.weights_bytes)
    assert sum(moved.get(n, 0.0) for n in ("kv", "indexer", "state")) == pytest.approx(here.cache_bytes)
    assert moved["weights"] == pytest.approx(e.why.bytes_per_step.weights)
    for p in e.curve:
        parts = p.memory_s + p.compute_s + p.network_s + p.overhead_s + p.drafts_s
        assert parts == pytest.approx(p.step_s, rel=1e-9)
        assert p.tokens_per_second == pytest.approx(p.batch * p.tokens_per_second_per_user)
    assert sum(o.seconds for o in e.operators) == pytest.approx(here.step_s - here.drafts_s, rel=1e-9)


@pytest.mark.parametrize("example", EXAMPLES)
def test_operators_stay_under_their_roof(example: str) -> None:
    for o in found(example).operators:
        if o.achieved_share is not None and o.bandwidth_share is not None:
            assert 0 < o.achieved_share <= 1 + 1e-9
            assert 0 <= o.bandwidth_share <= 1


@pytest.mark.parametrize("example", EXAMPLES)
def test_speed_of_a_request_always_falls(example: str) -> None:
    e = found(example)
    assert np.all(np.diff([p.tokens_per_second_per_user for p in e.curve]) < 0)
    assert np.all(np.diff([p.tokens_per_second for p in e.curve]) > 0)
    assert e.curve[0].batch == 1
    assert e.curve[-1].batch == e.max_batch
    floor = e.regimes.floor_time_per_output_token_s
    assert floor == pytest.approx(e.curve[0].time_per_output_token_s)
    assert e.regimes.floor_without_bytes_s < floor


def test_regimes_of_a_dense_model_are_where_arithmetic_puts_them(llama_8b: Model, database: Database) -> None:
    step = step_of(llama_8b, database)
    ideal = critical_batch(H100["bf16"] * 0.80, H100["bandwidth"] * 0.85, 2)
    gates = next(o for o in rooflines(step, 8.0) if o.name == "mlp gate+up")
    assert gates.compute_bound_batch == pytest.approx(ideal, rel=0.2)  # activations are bytes too
    assert gates.bound_by == "memory"
    attention = next(o for o in rooflines(step, 8.0) if o.name == "decode_attention")
    assert attention.compute_bound_batch is None
    # 15.0 GB of weights over 131 072 B a token and 500 tokens a sequence
    one, two = curve(step, np.array([1.0, 2.0]), 1.0)
    overtakes = first_batch(lambda b: b * one.cache_bytes > one.weights_bytes)
    assert overtakes == pytest.approx(15.0e9 / 131_072 / 500, rel=0.01)
    assert (one.fits, two.fits) == (True, False)
    shares = {c.name: c.bytes_per_step for c in components(step, overtakes)}
    assert shares["kv"] == pytest.approx(shares["weights"], rel=0.01)


# --- attention


def test_the_counterpart_is_the_same_model_otherwise() -> None:
    sparse = load_model("deepseek-v3.2")
    other, kind = counterpart(sparse)
    assert kind == "sparse"
    assert other.layers == load_model("deepseek-v3").layers
    back, kind = counterpart(other)
    assert kind == "dense"
    assert [x.attention for x in back.layers] == [x.attention for x in sparse.layers]


def test_a_selection_wins_where_contexts_are_long(database: Database, llama_8b: Model) -> None:
    short, long = (compare_attention(step_of(llama_8b, database, c), 32.0) for c in (1000.0, 60_000.0))
    assert short is not None
    assert long is not None
    assert short.sparse_speedup < 1 < long.sparse_speedup
    assert short.sparse_wins_context == long.sparse_wins_context
    assert 2048 < (long.sparse_wins_context or 0) < 60_000
    assert short.sparse_wins_batch is None
    dense = [x.dense_s for x in long.at[1:]]
    assert dense == sorted(dense)


# --- eleven claims, each where it holds and where it doesn't

CASES = [
    (1, ("chat", "demand.requests_per_second=0.5"), ("refactor", "context.p50=60_000", "context.p95=90_000")),
    (2, ("chat",), None),
    (3, ("coding-agent",), ("chat",)),
    (4, ("coding-agent", 'subagents.cascade="ideal"'), ("chat",)),
    (5, ("coding-agent",), ("refactor",)),
    (6, ("reasoning",), ("rag",)),
    (7, ("coding-agent",), ("chat", "subagents.fan_out=2", "subagents.correlation=0.0")),
    (8, ("chat",), ("batch",)),
    (9, ("chat",), None),
    (10, ("refactor", "speculation.acceptance_length=6.0"), ("batch",)),
    (11, ("batch",), ("rag",)),
]


@pytest.mark.parametrize(("number", "holds", "fails"), CASES)
def test_every_claim_has_its_regime(number: int, holds: tuple[str, ...], fails: tuple[str, ...] | None) -> None:
    yes = claim(number, *holds)
    assert yes.verdict == "true", yes
    if fails is not None:
        no = claim(number, *fails)
        assert no.verdict == "false", no
        assert no.numbers.keys() == yes.numbers.keys()


@pytest.mark.parametrize("example", EXAMPLES)
def test_all_claims_are_answered_with_numbers(example: str) -> None:
    answers = found(example).claims
    assert [c.number for c in answers] == list(range(1, 12))
    for c in answers:
        assert c.numbers
        assert c.command.startswith("planner ")
        assert all(v is None or np.isfinite(v) for v in c.numbers.values())


def test_numbers_behind_the_claims() -> None:
    agent = {c.number: c.numbers for c in found("coding-agent").claims}
    ideal = claim(4, "coding-agent", 'subagents.cascade="ideal"').numbers
    assert agent[4]["read_saved"] == 0  # stored once always, read once only with a kernel for it
    assert agent[4]["stored_saved"] == ideal["stored_saved"]
    assert ideal["read_saved"] == pytest.approx(agent[4]["read_saved_with_cascade"])
    assert claim(2, "coding-agent", 'subagents.cascade="ideal"').verdict == "partly"
    assert agent[5]["prefill_saved"] > 0.7  # type: ignore[operator]
    assert agent[5]["decode_saved"] == 0
    assert agent[7]["useful_work"] < agent[7]["useful_work_independent"]  # type: ignore[operator]
    assert agent[7]["last_adds"] == pytest.approx(0, abs=1e-12)  # a fourth subagent on three avenues
    assert agent[7]["slowest_over_mean"] > 1.5  # type: ignore[operator]
    growth = claim(1, "batch").numbers["step_growth"]
    assert growth is not None
    assert growth > 1.25  # experts: batching is not free
