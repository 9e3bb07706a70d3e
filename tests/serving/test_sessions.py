"""Sessions of turns, forks and joins, against draws of them; the guide's numbers."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest

from planner.cost.shared_prefix import group_tokens
from planner.errors import InputError
from planner.serving.fanout import expected_maximum, fork_tokens, join_seconds, mean_fork_tokens
from planner.serving.pauses import Pause
from planner.serving.sessions import (
    Turns,
    active_fraction,
    context_quantile,
    geometric_turns,
    interactive_throughput,
    keep_warm_tokens,
    mean_context,
    prefill_per_turn,
    turn_contexts,
    turn_survival,
)
from planner.workload.lengths import Constant, Lognormal

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "agents.md"


def drawn_sessions(count: Lognormal | None, turns: Turns, sessions: int = 20_000) -> tuple[np.ndarray, ...]:
    """Context before and after each turn, new tokens of its prompt, and whether it is a first turn."""
    rng = np.random.default_rng(11)
    if count is None:
        number = rng.geometric(1 / turns.count, sessions)
    else:
        number = np.maximum(1, np.rint(count.sample(rng, sessions))).astype(int)
    total = int(number.sum())
    first = np.zeros(total, dtype=bool)
    begins = np.concatenate(([0], np.cumsum(number)[:-1]))
    first[begins] = True
    new = np.where(first, turns.opening.sample(rng, total), turns.appended.sample(rng, total))
    grown = new + turns.kept_output * turns.output.sample(rng, total)
    running = np.cumsum(grown)
    after = running - np.repeat(running[begins] - grown[begins], number)
    return after - grown, after, new, first


AGENT = Turns(
    geometric_turns(20.0), Constant(15_000), Lognormal.from_mean(3000, 2.0), Lognormal.from_mean(500, 1.0), 6000, 0.8
)
HEAVY = Lognormal.from_mean(12.0, 1.5)


@pytest.mark.parametrize("kind", ["geometric", "heavy"])
def test_contexts_of_drawn_sessions(kind: str) -> None:
    count = HEAVY if kind == "heavy" else None
    turns = AGENT if count is None else Turns(turn_survival(count), AGENT.opening, AGENT.appended, AGENT.output)
    before, after, _, _ = drawn_sessions(count, turns, 40_000 if count is None else 400_000)
    assert mean_context(turns) == pytest.approx(after.mean(), rel=0.03)
    assert float(np.sum(turns.weight * turn_contexts(turns).prefix)) == pytest.approx(before.mean(), rel=0.03)
    # a few hundred sessions make the 99th percentile of the heavy case: too few to tell
    for q in (0.5, 0.9, 0.95) if count is not None else (0.5, 0.9, 0.95, 0.99):
        assert context_quantile(turns, q) == pytest.approx(np.quantile(after, q), rel=0.03)


def test_prefill_of_drawn_sessions() -> None:
    before, _, new, first = drawn_sessions(None, AGENT)
    rng = np.random.default_rng(2)
    for hit in (0.0, 0.7, 1.0):
        missed = rng.random(len(new)) >= hit
        tokens = np.where(first, new - AGENT.pinned, new + missed * (before - AGENT.pinned))
        assert float(prefill_per_turn(AGENT, hit)) == pytest.approx(tokens.mean(), rel=0.02)


def test_survival_of_turns() -> None:
    assert turn_survival(Constant(1)).tolist() == [1.0]
    assert turn_survival(Constant(0.2)).tolist() == [1.0]
    heavy = turn_survival(HEAVY)
    assert np.all(np.diff(heavy) <= 0) and heavy[0] == 1
    assert heavy.sum() == pytest.approx(np.maximum(1, np.rint(HEAVY.stratified(100_000))).mean(), rel=0.02)
    assert geometric_turns(1.0).tolist() == [1.0]
    with pytest.raises(InputError, match="at least 1"):
        geometric_turns(0.5)


def test_a_closed_loop_of_drawn_cycles() -> None:
    """Users of a system without queueing: turns per second and the share in flight, by counting."""
    rng = np.random.default_rng(4)
    users, horizon, ttft, itl = 50, 20_000.0, 0.8, 0.02
    turns, busy = 0, 0.0
    for _ in range(users):
        now = float(rng.exponential(30.0))
        while now < horizon:
            answer = ttft + float(rng.exponential(500.0)) * itl
            busy += min(answer, horizon - now)
            turns += 1
            now += answer + float(rng.exponential(30.0))
    assert float(interactive_throughput(users, ttft, 500.0, itl, 30.0)) == pytest.approx(turns / horizon, rel=0.02)
    assert float(active_fraction(ttft, 500.0, itl, 30.0)) == pytest.approx(busy / users / horizon, rel=0.02)


def test_warm_contexts_are_littles_law() -> None:
    pause, cycle = Pause(30.0, 2.0), 40.8
    for_ever = float(keep_warm_tokens(200, 60_000, pause, np.inf, cycle))
    assert for_ever == pytest.approx(200 * 60_000 * 30 / cycle)
    idle = 1 - float(active_fraction(0.8, 500, 0.02, 30.0))
    assert for_ever == pytest.approx(200 * 60_000 * idle)
    kept = keep_warm_tokens(200, 60_000, pause, np.array([0.0, 5.0, 60.0, 600.0]), cycle)
    assert kept[0] == 0 and np.all(np.diff(kept) > 0) and kept[-1] < for_ever


BRANCH = Lognormal(6.774, 0.97)


@pytest.mark.parametrize("draws", [1, 4, 8])
def test_join_waits_for_the_slowest(draws: int) -> None:
    longest = BRANCH.sample(np.random.default_rng(1), 400_000 * draws).reshape(-1, draws).max(axis=1)
    times = 0.5 + longest * 0.01 + 2.0
    assert join_seconds(0.5, BRANCH.quantile, draws, 0.01, 2.0) == pytest.approx(times.mean(), rel=0.01)
    assert join_seconds(0.5, BRANCH.quantile, draws, 0.01, 2.0, 0.95) == pytest.approx(
        np.quantile(times, 0.95), rel=0.01
    )


@pytest.mark.parametrize("draws", [2, 4, 8])
def test_tokens_after_a_fork_step_by_step(draws: int) -> None:
    rng = np.random.default_rng(6)
    lengths = np.rint(Lognormal.from_mean(60.0, 0.8).sample(rng, 6000 * draws)).reshape(-1, draws).clip(1)
    prefix, steps = 900.0, int(lengths.max())
    stored = plain = cascade = life = 0.0
    for t in range(steps):
        alive = (lengths > t).sum(axis=1)
        going = alive > 0
        life += going.sum()
        stored += (going * prefix + alive * (t + 0.5)).sum()
        plain += (alive * (prefix + t + 0.5)).sum()
        cascade += (going * prefix + alive * (t + 0.5)).sum()
        share = float((lengths > t).mean())
        if t in (5, 40):
            tokens = fork_tokens(prefix, draws, t + 0.5, share)
            assert tokens.read_without_cascade == pytest.approx((alive * (prefix + t + 0.5)).mean())
            assert tokens.read_with_cascade == pytest.approx((going * prefix + alive * (t + 0.5)).mean(), rel=0.02)
    found = mean_fork_tokens(prefix, draws, lengths.mean(), (lengths**2).mean(), lengths.max(axis=1).mean())
    assert found.stored == pytest.approx(stored / life)
    assert found.read_without_cascade == pytest.approx(plain / life)
    assert found.read_with_cascade == pytest.approx(cascade / life)


def test_branches_of_one_length_are_a_group_half_way() -> None:
    ours, plain = mean_fork_tokens(32768, 8, 2000.0, 2000.0**2, 2000.0), group_tokens(32768, 1000.0, 8)
    assert (ours.stored, ours.read_without_cascade, ours.read_with_cascade) == (
        plain.stored, plain.read_without_cascade, plain.read_with_cascade,
    )  # fmt: skip


def test_sharing_fades_with_the_spread_of_lengths() -> None:
    def gain(sigma: float) -> float:
        law = Lognormal.from_mean(1500.0, sigma)
        g = mean_fork_tokens(9000, 4, law.mean, law.moment(2), expected_maximum(law.quantile, 4))
        return float(g.read_without_cascade / g.read_with_cascade)

    assert 1 < gain(1.5) < gain(0.8) < gain(0.2) < 4


def test_the_guide_computes_what_it_says() -> None:
    failed, tried = doctest.testfile(str(GUIDE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried >= 8 and failed == 0
