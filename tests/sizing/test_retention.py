"""What replicas keep of idle sessions: directions, limits, the fixed point, and a simulated prefix cache."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from planner.hardware import Database, load_database
from planner.hardware.offload import load_offload, tiers_behind
from planner.serving.requests import Requests
from planner.serving.simulator import run_replica
from planner.sizing.confirm import resized
from planner.sizing.plan import build_plan, max_batch
from planner.sizing.replica_simulation import replica_limits, replica_step_time
from planner.sizing.retention import retention, with_retention
from planner.sizing.retention_result import Retention
from planner.sizing.retention_search import TOLERANCE, keeping, search_with_retention
from planner.sizing.search import Search, Sized, search
from planner.workload import Workload, load_workload
from planner.workload.sessions import draw_sessions, turn_lengths

AGENT = """
model = "llama-3.1-8b"
[demand]
sessions = 60
[context]
mean = 15000
cv = 0.3
[answer]
mean = 500
[session]
turns = { mean = 10, cv = 1.0 }
appended = { mean = 3000, cv = 1.5 }
pinned = 6000
max_context = 120000
pause = { mean = "180s", cv = 2.0 }
[slo]
ttft_p95 = "20s"
tpot_p95 = "40ms"
[speculation]
enabled = false
[hardware]
allow = ["h200-sxm"]
[parallelism]
tensor = [1]
[reliability]
spare_replicas = 0
"""
HASHED = 512  # tokens of a prefix block
USERS = AGENT[: AGENT.index("[session]")].replace("sessions", "concurrent_users") + AGENT[AGENT.index("[slo]") :]


def agent(*overrides: str, text: str = AGENT) -> Workload:
    return load_workload("agent", overrides, text=text)


def kept(found: Search, sized: Sized) -> Retention:
    result = retention(found, sized)
    assert result is not None
    return result


def with_serving(database: Database, serving: int, *overrides: str) -> Retention:
    found = search(agent(*overrides), database)
    return kept(found, resized(found, found.found[0], serving))


def test_hits_fall_with_sessions_per_replica(database: Database) -> None:
    found = [with_serving(database, n, "demand.sessions=240") for n in (12, 8, 4, 2)]
    assert [r.sessions_per_replica for r in found] == [20, 30, 60, 120]
    hits = [r.hit_ratio for r in found]
    assert all(a > b + 0.02 for a, b in pairwise(hits)), hits


def test_hits_fall_with_longer_pauses(database: Database) -> None:
    """At about the same rate of turns: more sessions pause longer."""
    pauses = (10, 40, 120, 400)
    found = [
        with_serving(database, 1, f"demand.sessions={0.4 * (z + 7)}", f'session.pause.mean="{z}s"') for z in pauses
    ]
    hits = [r.hit_ratio for r in found]
    assert all(a > b + 0.01 for a, b in pairwise(hits)), hits
    assert all(r.turns_per_second_per_replica == pytest.approx(0.4, rel=0.1) for r in found)


def test_hits_rise_with_memory(database: Database) -> None:
    hits = [with_serving(database, 1, f"engine.memory_fraction={share}").hit_ratio for share in (0.4, 0.65, 0.9)]
    assert all(a < b - 0.02 for a, b in pairwise(hits)), hits


def test_endless_memory_keeps_what_is_assumed(database: Database) -> None:
    found = search(agent('session.cache_ttl="300s"'), database)
    best = found.found[0]
    assert kept(found, best).hit_ratio < 0.9
    rows = replace(best.rows, kv_room=best.rows.kv_room * 1e6)
    endless = kept(found, replace(best, rows=rows))
    assert endless.hit_ratio == pytest.approx(1.0, abs=1e-6)
    assert endless.cached_fraction == pytest.approx(endless.cached_fraction_without_eviction)
    assert (endless.keep_warm_more_bytes, endless.planned_hit_ratio) == (0.0, 1.0)
    assert endless.extra_ttft_s == pytest.approx(0.0, abs=1e-6)


def test_without_sessions_it_is_the_search(database: Database) -> None:
    workload = agent(text=USERS)
    plain, (found, result) = search(workload, database), search_with_retention(workload, database)
    assert result is None
    assert retention(plain, plain.found[0]) is None
    assert with_retention(workload, 0.3) is workload
    assert [build_plan(found, s) for s in found.found] == [build_plan(plain, s) for s in plain.found]


def test_sessions_that_fit_leave_the_search_alone(database: Database) -> None:
    workload = agent("demand.sessions=8", 'session.pause={mean="20s",cv=0.5}')
    plain, (found, result) = search(workload, database), search_with_retention(workload, database)
    assert result is not None
    assert result.hit_ratio > 1 - TOLERANCE
    assert build_plan(found, found.found[0]) == build_plan(plain, plain.found[0])


def test_misses_keep_only_what_is_pinned() -> None:
    workload = agent()
    assert workload.demand.session is not None
    full = turn_lengths(workload.demand.session)
    before = full.cached.mean()
    pinned = np.minimum(6000, full.cached).mean()
    for hit in (0.75, 0.4, 0.0):
        part = with_retention(workload, hit).classes[0]
        assert part.joint is not None
        assert part.joint.cached.mean() == pytest.approx(pinned + hit * (before - pinned), rel=0.02)
        assert np.array_equal(part.joint.input, full.input)
        assert part.cached_fraction == part.joint.cached_fraction
    assert with_retention(workload, 1.0) is workload


@pytest.mark.parametrize(
    "overrides",
    [
        ("demand.sessions=240",),
        ("demand.sessions=400", 'session.pause.mean="30s"', 'slo.ttft_p95="3s"', "parallelism.tensor=[1,2]"),
        ("demand.sessions=400", 'session.pause={mean="60s",cv=0}'),
        ("demand.sessions=120", 'session.pause.mean="30s"', 'slo.ttft_p95="500ms"'),
    ],
)
def test_the_plan_keeps_what_it_is_priced_with(database: Database, overrides: tuple[str, ...]) -> None:
    found, result = search_with_retention(agent(*overrides), database)
    assert result is not None
    assert result.hit_ratio >= result.planned_hit_ratio - 2 * TOLERANCE
    assert result == retention(found, found.found[0], load_offload(database.root))
    plain = search(agent(*overrides), database).found[0]
    assert found.found[0].objective >= plain.objective


def test_the_fixed_point_is_one(database: Database) -> None:
    workload = agent("demand.sessions=120")
    found, result = search_with_retention(workload, database)
    assert result is not None
    assert 0.2 < result.hit_ratio < 0.9
    assert result.hit_ratio == pytest.approx(result.planned_hit_ratio, abs=2 * TOLERANCE)
    again = search(with_retention(workload, result.hit_ratio), database)
    assert again.found[0].replicas == found.found[0].replicas
    assert kept(again, again.found[0]).hit_ratio == pytest.approx(result.hit_ratio, abs=2 * TOLERANCE)


def test_more_replicas_where_a_miss_breaks_the_limit(database: Database) -> None:
    """More than one turn in twenty that computes its context again breaks the limit of the 95th percentile."""
    workload = agent("demand.sessions=240", 'slo.ttft_p95="1s"')
    plain = search(workload, database)
    first = kept(plain, plain.found[0])
    assert not search(with_retention(workload, first.hit_ratio), database).found
    found, result = search_with_retention(workload, database)
    assert result is not None
    assert result.hit_ratio > 0.95 > first.hit_ratio
    assert result.planned_hit_ratio == pytest.approx(result.hit_ratio, abs=2 * TOLERANCE)
    assert plain.found[0].replicas < found.found[0].replicas < keeping(plain, 1.0).found[0].replicas
    limited, none = search_with_retention(with_most(workload, plain.found[0].gpus), database)
    assert none is None
    assert not limited.found
    assert "idle contexts" in limited.rejected["h200-sxm"]


def with_most(workload: Workload, gpus: int) -> Workload:
    return replace(workload, hardware=workload.hardware.model_copy(update={"max_gpus": gpus}))


@cache
def simulated_hits(seed: int) -> tuple[float, float]:
    """Share of cached tokens found again by sessions on one replica, and what the closed form says."""
    database = load_database()
    workload = agent()
    found, result = search_with_retention(workload, database)
    assert result is not None
    session, best = workload.demand.session, found.found[0]
    assert session is not None
    users, until = round(result.sessions_per_replica), 9000.0
    turns = draw_sessions(session, 3000, seed)
    inputs, outputs = (np.maximum(np.rint(x), 1).astype(int) for x in (turns.input, turns.output))
    common = int(session.pinned) // HASHED
    # a session that starts over has another context than before
    fresh = (turns.turn == 0) | (turns.cached <= session.pinned)
    context = np.cumsum(fresh)
    prefix = [
        [(0, k) if k < common else (int(context[i]), k) for k in range(inputs[i] // HASHED)] for i in range(len(turns))
    ]
    starts = np.flatnonzero(turns.turn == 0)
    arrival = np.full(len(turns), math.inf)
    arrival[starts[:users]] = np.random.default_rng(seed).uniform(0, 2 * session.pause_mean, users)
    others = iter(starts[users:])

    def follow(i: int, end: float) -> Iterable[tuple[float, int]]:
        if end > until:
            return []
        goes_on = i + 1 < len(turns) and turns.turn[i + 1] > 0
        return [(end + float(turns.pause_s[i]), i + 1 if goes_on else int(next(others)))]

    slots = max_batch(best)
    limits = replica_limits(found, best, slots, float(np.max(inputs + outputs)))
    run = run_replica(
        Requests(arrival.tolist(), inputs.tolist(), outputs.tolist(), [0] * len(turns), prefix),
        replica_step_time(found, best, slots), replace(limits, prefix_block_tokens=HASHED), follow=follow,
    )  # fmt: skip
    got = had = 0
    for i, record in enumerate(run.records):
        if not fresh[i] and until / 3 < record.arrival_s < until:
            got += max(0, record.cached_tokens - common * HASHED)
            had += (inputs[i - 1] // HASHED - common) * HASHED  # outputs fill no blocks that others find
    return got / had, result.hit_ratio


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_simulated_prefix_cache_agrees(seed: int) -> None:
    simulated, closed = simulated_hits(seed)
    assert 0.3 < closed < 0.9
    assert simulated == pytest.approx(closed, abs=0.1)


SMALL = (
    "model='qwen3-0.6b'", "hardware.allow=['h100-sxm']", "session.pinned=0", "session.appended.mean=200",
    "answer.mean=100", "session.max_context=30000",
)  # fmt: skip


def test_reload_wins_for_long_contexts_and_recompute_for_short_ones(database: Database) -> None:
    wins = {}
    for context in (1000, 16_000):
        workload = agent(*SMALL, f"context.mean={context}")
        found = search(workload, database)
        result = kept(found, found.found[0])
        host, drive = result.tiers
        assert (host.name, drive.name) == ("host-pcie5", "nvme-pcie5")
        assert (host.wins == "reload") == (host.reload_s < result.recompute_s)
        wins[context] = host.wins
    assert wins == {1000: "recompute", 16_000: "reload"}


def test_tiers_take_over_what_memory_lost(database: Database) -> None:
    found = search(agent("demand.sessions=240"), database)
    result = kept(found, resized(found, found.found[0], 2))
    host, drive = result.tiers
    assert result.hit_ratio + host.hit_ratio + drive.hit_ratio <= 1 + 1e-9
    assert 0 <= drive.extra_ttft_s <= host.extra_ttft_s < result.extra_ttft_s
    assert "host memory per accelerator" in result.statement
    assert f"{result.hit_ratio:.0%}" in result.statement
    without = retention(found, resized(found, found.found[0], 2), {})
    assert without is not None
    assert without.tiers == ()
    assert "host memory" not in without.statement


def test_tiers_are_those_the_accelerator_reaches(database: Database) -> None:
    tiers = load_offload(database.root)
    reached = {
        name: [t.name for t in tiers_behind(database.accelerator(name), tiers)]
        for name in ("h100-sxm", "a100-sxm-80gb", "gb200-nvl72", "m4-max")
    }
    assert reached == {
        "h100-sxm": ["host-pcie5", "nvme-pcie5"],
        "a100-sxm-80gb": ["host-pcie4", "nvme-pcie4"],
        "gb200-nvl72": ["host-c2c", "nvme-pcie5"],
        "m4-max": [],
    }
    half = tiers_behind(database.accelerator("arc-pro-b60"), tiers)[0]  # eight lanes
    assert half.bandwidth == tiers["host-pcie5"].bandwidth / 2
    assert all(t.capacity > 0 and t.capacity_source for t in tiers.values())


def test_sessions_without_pauses(database: Database) -> None:
    result = with_serving(database, 1, 'session.pause="0s"', "demand.sessions=4")
    assert result.hit_ratio == pytest.approx(1.0)
