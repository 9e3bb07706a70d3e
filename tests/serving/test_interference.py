"""Prompts on the steps of a batch, against steps drawn one by one."""

from __future__ import annotations

import numpy as np
import pytest

from planner.serving.interference import ABOARD, EXPECTED, apart, largest_aboard, mixed_steps, own_stall

STEPS = 400_000


def drawn_steps(rate: float, decode: float, work: float, seed: int) -> np.ndarray:
    """Prompts on each of many steps: those that came during the one before, each of which made it longer."""
    rng = np.random.default_rng(seed)
    found = np.zeros(STEPS)
    for i in range(1, STEPS):
        found[i] = rng.poisson(rate * (decode + work * found[i - 1]))
    return found


@pytest.mark.parametrize(("rate", "work"), [(4.0, 0.05), (10.0, 0.05), (4.0, 0.15)])
def test_a_sequence_meets_the_prompts_that_came_while_its_own_was_prefilled(rate: float, work: float) -> None:
    decode, one = 0.02, np.ones((1, 1))
    on_step = drawn_steps(rate, decode, work, 1)
    # prompts on the next 60 steps of whoever joined on one, beyond as many as on any
    beyond = sum(float(np.mean(on_step[:-60] * on_step[k : len(on_step) - 60 + k])) for k in range(1, 61))
    later = beyond / float(on_step.mean()) - 60 * float(on_step.mean())
    mixed = mixed_steps(decode * one, work * one, work**2 * one, rate, one, 1.0)
    assert float(mixed.share[0, 0]) == pytest.approx(rate * work)
    assert float(own_stall(rate, mixed)[0, 0]) == pytest.approx(later * work, rel=0.1)


@pytest.mark.parametrize(("rate", "work"), [(4.0, 0.05), (10.0, 0.05), (4.0, 0.15)])
def test_how_many_prompts_have_a_step_to_themselves(rate: float, work: float) -> None:
    decode, one = 0.02, np.ones((1, 1))
    on_step = drawn_steps(rate, decode, work, 2)
    mixed = mixed_steps(decode * one, work * one, work**2 * one, rate, one, 1.0)
    found = float(apart(rate * mixed.seconds, 1.0, 1.0, mixed.variation)[0, 0])
    assert found == pytest.approx(float((on_step > 0).mean() / on_step.mean()), rel=0.03)


def test_what_prompts_share_counts_for_all_but_the_first_of_a_step() -> None:
    one = np.ones((1, 1))
    seldom = mixed_steps(0.02 * one, 0.05 * one, 0.0025 * one, 1e-3, one, 1.0, sharing=0.01 * one)
    assert float(seldom.share[0, 0]) == pytest.approx(1e-3 * 0.05, rel=1e-3)
    # groups of four always share their step
    group = mixed_steps(0.02 * one, 0.05 * one, 0.0025 * one, 1e-3, one, 1.0, 4.0, sharing=0.01 * one)
    assert float(group.share[0, 0]) == pytest.approx(1e-3 * (0.05 + 0.75 * 0.01), rel=1e-3)


def test_ranks_wait_for_the_largest_but_a_stage_does_all() -> None:
    one, rng = np.ones((1, 1)), np.random.default_rng(3)
    sizes = rng.lognormal(0.0, 0.8, 2000)
    largest = largest_aboard(sizes, np.ones(len(sizes)))
    for expected, count, found in list(zip(EXPECTED, ABOARD, largest, strict=True))[2:8]:
        numbers = rng.poisson(expected, 40_000)
        drawn = [rng.choice(sizes, n).max() for n in numbers if n]
        assert count == pytest.approx(numbers[numbers > 0].mean(), rel=0.02)
        assert found == pytest.approx(np.mean(drawn) / sizes.mean(), rel=0.03)
    common = (0.02 * one, 0.05 * one, 0.005 * one, 20.0, 4 * one, 1.0, 1.0, 1.0, largest)
    apart_ranks = mixed_steps(*common)
    shared = mixed_steps(*common, stage=0.05 * one)
    assert float(apart_ranks.share[0, 0]) < float(shared.share[0, 0]) < 1
