"""Faster tiers: the worked levers of a 70B model, the refactoring workload, and one request's limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.speculation import Drafter, speculative_step_seconds
from planner.cost.step import StepModel
from planner.decisions.physical_limit import alone
from planner.decisions.speed import faster
from planner.decisions.speed_levers import LEVERS, Configurations, Key, Levers, time_per_token
from planner.decisions.speed_result import Speed
from planner.errors import InputError
from planner.hardware import Database
from planner.models import Model
from planner.models.layers import GROUPS
from planner.sizing.candidates import Precision
from planner.sizing.operating import Seat
from planner.workload import load_workload
from planner.workload.examples import example_path
from tests.conftest import H100, H200, reference_machine

BATCHES = np.array([1.0, 4.0, 16.0, 32.0, 64.0])
DRAFT, DRAFT_KV = 0.6e-3, 2.38e-9 * 8192  # seconds of a draft token, and of a step's drafts for a sequence's cache
FOUR, EIGHT = (
    reference_machine(H200, all_reduce=fit, step_overhead=1.2e-3, verify_overhead=1e-5)
    for fit in ((4.73e-6, 192e9), (5.10e-6, 209e9))
)


@pytest.fixture(scope="module")
def llama(llama_70b: Model) -> Levers:
    """Llama 70B on H200 at 8192 tokens: ranks, precision and drafts, every batch, against TP4 at batch 64."""
    keys, gaps, price = [], [], []
    for formats in ({}, dict.fromkeys(("attention", "mlp", "head"), "fp8")):
        step = StepModel(llama_70b, formats, "bf16")
        for ranks in (4, 8):
            for k, accepted in ((0, 1.0), (3, 2.88)):
                drafter = Drafter("eagle3", k) if k else Drafter("none", 0)
                seconds = speculative_step_seconds(
                    step, drafter, FOUR if ranks == 4 else EIGHT, Layout(tensor=ranks), BATCHES, np.array([8192.0])
                )
                keys.append(Key("h200", (ranks,), tuple(formats), drafter.method))
                gaps.append((np.ravel(seconds) + k * DRAFT + bool(k) * DRAFT_KV * BATCHES) / accepted)
                price.append(float(ranks))
    gap = np.array(gaps)
    found = Configurations(tuple(keys), gap, np.ones(gap.shape, dtype=bool), np.array(price), BATCHES)
    return Levers(found, 0, len(BATCHES) - 1)


WORKED = [
    ((4,), False, "none", 16, 1.5409, 2.5958),
    ((4,), False, "none", 4, 1.7819, 8.9791),
    ((4,), False, "none", 1, 1.8544, 34.512),
    ((8,), False, "none", 64, 1.6465, 1.2147),
    ((8,), False, "none", 16, 2.3863, 3.3525),
    ((8,), False, "none", 1, 2.7761, 46.108),
    ((4,), False, "eagle3", 64, 1.9835, 0.50417),
    ((8,), False, "eagle3", 32, 4.1477, 0.9644),
    ((8,), False, "eagle3", 16, 5.1157, 1.5638),
    ((4,), True, "none", 64, 1.2187, 0.82053),
    ((8,), True, "eagle3", 64, 3.105, 0.64412),
]


@pytest.mark.parametrize(("ranks", "fp8", "drafts", "batch", "speed", "cost"), WORKED)
def test_worked_levers(
    llama: Levers, ranks: tuple[int, ...], fp8: bool, drafts: str, batch: float, speed: float, cost: float
) -> None:
    row = next(
        i for i, k in enumerate(llama.all.keys)
        if k.parallelism == ranks and bool(k.precision) == fp8 and k.speculation == drafts
    )  # fmt: skip
    column = int(np.flatnonzero(batch == BATCHES)[0])
    assert llama.speed[row, column] == pytest.approx(speed, rel=0.03)
    assert llama.cost[row, column] == pytest.approx(cost, rel=0.03)


def test_the_ranking_of_levers(llama: Levers) -> None:
    found = {name: llama.fastest((name,)) for name in LEVERS}
    assert found.pop("accelerator") is None
    known = {name: at for name, at in found.items() if at is not None}
    assert sorted(known, key=lambda name: known[name].cost) == ["speculation", "precision", "parallelism", "batch"]
    # drafts are the fastest lever too; no batch reaches 2.5 times, and batch one costs 34 times as much
    assert known["speculation"].speed == max(at.speed for at in known.values())
    assert llama.combination(("batch",), 2.5) is None
    assert known["batch"].cost == pytest.approx(34.5, rel=0.05)
    best = min((at for s in llama.subsets() if (at := llama.combination(s, 2.5))), key=lambda at: at.cost)
    assert "speculation" in best.levers
    assert best.cost < 1


def test_a_combination_changes_what_it_says(llama: Levers) -> None:
    for levers in llama.subsets():
        at = llama.combination(levers, 1.2)
        if at is None:
            continue
        key = llama.all.keys[at.row]
        changed = {name for name in key._fields if getattr(key, name) != getattr(llama.base, name)}
        assert changed | ({"batch"} if at.column != llama.column else set()) == set(levers)
        assert at.speed >= 1.2
        assert at.cost == pytest.approx(llama.cost[at.row, at.column])


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(1.01, 4.0))
def test_the_cheapest_of_a_combination_by_brute_force(seed: int, target: float) -> None:
    rng = np.random.default_rng(seed)
    keys = tuple(
        Key("a", (int(p),), (str(q),), str(s)) for p in (1, 2) for q in ("x", "y") for s in ("none", "drafts")
    )  # fmt: skip
    gap = np.sort(rng.uniform(0.005, 0.05, (len(keys), 4)), axis=1)
    allowed = rng.random(gap.shape) < 0.8
    allowed[0, 2] = True
    batches, price = np.array([1.0, 4.0, 16.0, 64.0]), rng.uniform(1, 5, len(keys))
    levers = Levers(Configurations(keys, gap, allowed, price, batches), 0, 2)
    base = price[0] * gap[0, 2] / 16
    for wanted in levers.subsets():
        costs = [
            price[i] * gap[i, j] / batches[j] / base
            for i, key in enumerate(keys)
            for j in range(4)
            if allowed[i, j] and gap[0, 2] / gap[i, j] >= target
            and {n for n in key._fields if getattr(key, n) != getattr(keys[0], n)} | ({"batch"} if j != 2 else set())
            == set(wanted)
        ]  # fmt: skip
        at = levers.combination(wanted, target)
        assert (at is None) == (not costs)
        if at is not None:
            assert at.cost == pytest.approx(min(costs))


def test_prompts_take_their_share_of_time() -> None:
    # 10 sequences, 0.1 s of prompt each 200 tokens: rho = rate * w, gap = T / (1 - rho)
    one = np.ones((1, 1))
    gap = float(time_per_token(0.02 * one, one, 0.1 * one, 200.0, np.array([10.0]))[0, 0])
    rate = 10 / (200 * gap)
    assert gap == pytest.approx(0.02 / (1 - rate * 0.1))


# --- one request alone


def limit(
    database: Database, model: Model, chip: str, machine: Machine, ranks: int = 8, formats: str | None = None
) -> float:
    groups = {} if formats is None else dict.fromkeys(GROUPS, formats)
    seat = Seat(database.accelerator(chip), Layout(tensor=ranks), Precision("x", "bf16", groups), machine, None, 0.0, 1)
    return 1 / float(alone(StepModel(model, groups, "bf16"), [seat], np.array([1.0])).seconds[0])


def test_limit_of_one_request(database: Database, llama_70b: Model, deepseek_v3: Model) -> None:
    assert limit(database, llama_70b, "h100-sxm", reference_machine(H100)) == pytest.approx(192.8, rel=0.01)
    one, eight = (limit(database, deepseek_v3, "h200-sxm", reference_machine(H200), n, "fp8") for n in (1, 8))
    # 1048 if every byte were split over eight; the projection to the latent and the router are on all of them
    assert 8 * one == pytest.approx(1048, rel=0.02)
    assert 0.8 < eight / (8 * one) < 1


# --- on a plan


@pytest.fixture(scope="module")
def refactor(database: Database) -> Speed:
    workload = load_workload(example_path("refactor"))
    return faster(workload, database, target=1.5, gpus=["h100-sxm", "h200-sxm", "b200-sxm"], simulate=False)


def test_speculation_before_a_small_batch_for_a_refactoring_workload(refactor: Speed) -> None:
    order = [t.levers[0] for t in refactor.alone]
    assert order.index("speculation") < order.index("batch")
    speculation = next(t for t in refactor.alone if t.levers == ("speculation",))
    assert speculation.reaches_target
    assert speculation.cost_multiple < 1
    small = refactor.small_batch_only
    assert small is not None
    assert small.cost_multiple > 1 > speculation.cost_multiple
    assert small.cost_multiple > 1.5 * speculation.cost_multiple
    assert small.batch < refactor.base.batch
    assert f"{small.cost_multiple:.3g} times the cost" in refactor.statement
    assert "speculation" in refactor.hypotheses[-1]


def test_the_base_is_the_plan_without_its_drafts(refactor: Speed) -> None:
    assert refactor.plan.speculation.enabled
    assert refactor.base.speculation == "none"
    assert refactor.base.accelerator == refactor.plan.accelerator
    assert refactor.base.speed_multiple == refactor.base.cost_multiple == 1
    speculation = next(t for t in refactor.alone if t.levers == ("speculation",))
    gain = refactor.plan.speculation.speedup
    assert speculation.speed_multiple == pytest.approx(gain, rel=0.25)  # prompts take some of it


def test_tiers_reach_the_target_cheapest_first(refactor: Speed) -> None:
    costs = [t.cost_multiple for t in refactor.tiers]
    assert costs == sorted(costs)
    for tier in refactor.tiers:
        assert tier.reaches_target
        assert tier.speed_multiple >= refactor.target_multiple * (1 - 1e-9)
        assert tier.tokens_per_second_per_user == pytest.approx(
            tier.speed_multiple * refactor.base.tokens_per_second_per_user
        )
        assert tier.tokens_per_second_at_low_acceptance <= tier.tokens_per_second_per_user
        assert len(tier.gives_up) == len(tier.levers)
        assert tier.gpus == tier.replicas * tier.gpus_per_replica


def test_no_one_is_faster_than_physics(refactor: Speed) -> None:
    for found in refactor.limits:
        if found.achieved_tokens_per_second is not None:
            assert found.perfect_tokens_per_second is not None
            assert found.achieved_tokens_per_second < found.perfect_tokens_per_second


def test_the_fleet_of_the_plans_own_point_is_the_plans(database: Database) -> None:
    workload = load_workload(example_path("refactor"))
    found = faster(workload, database, drafting_base=True, gpus=["h100-sxm"], simulate=False)
    assert found.base.gpus == found.plan.gpus
    assert found.base.usd_per_hour == pytest.approx(found.plan.cost.usd_per_hour)
    assert found.base.speculation != "none"


def test_a_base_of_one_sequence_has_no_smaller_batch(database: Database) -> None:
    workload = load_workload(example_path("chat"), ["demand.requests_per_second=0.01", 'serving.mode="disaggregated"'])
    found = faster(workload, database, gpus=["b200-sxm"], simulate=False)
    assert found.base.batch == 1
    assert found.small_batch_only is None
    assert all(t.levers != ("batch",) for t in found.alone)
    assert "two pools" in found.warnings[0]


@pytest.mark.parametrize(("chip", "four"), [("mi300x", "mxfp4"), ("h200-sxm", "nvfp4")])
def test_weights_of_four_bits_are_of_the_vendors_own_format(chip: str, four: str, database: Database) -> None:
    workload = load_workload(example_path("chat"))
    found = faster(workload, database, target=1.3, gpus=[chip], simulate=False)
    formats = {t.weight_dtype for t in (*found.alone, *found.tiers)}
    assert four in formats
    assert not formats & ({"mxfp4", "nvfp4"} - {four})
    own = faster(load_workload(example_path("batch")), database, target=1.3, gpus=["h200-sxm"], simulate=False)
    assert own.base.weight_dtype == "mxfp4"  # the model's own runs where somebody has kernels for it


def test_a_target_that_is_none(database: Database) -> None:
    with pytest.raises(InputError, match="already makes"):
        faster(load_workload(example_path("chat")), database, tokens_per_second=1.0, gpus=["b200-sxm"], simulate=False)


def test_machines_of_on_chip_memory_are_listed_with_what_lacks(database: Database) -> None:
    found = faster(load_workload(example_path("chat"), ['hardware.allow=["b200-sxm"]']), database, simulate=False)
    named = {limit.accelerator: limit for limit in found.limits}
    assert named["cerebras-wse3"].perfect_tokens_per_second is None
    assert "not known" in named["cerebras-wse3"].reason
    assert named["groq-lpu-v1"].gpus > 100
    assert named["groq-lpu-v1"].achieved_tokens_per_second is None
