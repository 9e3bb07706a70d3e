"""Where a growing figure reaches its limit: smooth, with jumps, flat, never and always."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.sizing.bracketing import last_within

TOLERANCE = 1e-6


@given(
    roots=st.lists(st.floats(-3, 3), min_size=1, max_size=8), jump=st.floats(0, 5), steepness=st.floats(0.01, 50),
    first=st.floats(0.05, 0.95),
)  # fmt: skip
def test_the_answer_is_within_and_just_beyond_is_not(
    roots: list[float], jump: float, steepness: float, first: float
) -> None:
    at = np.array(roots)
    asked = []

    def excess(x: np.ndarray, index: np.ndarray) -> np.ndarray:
        asked.append(len(index))
        past = x - at[index]
        return np.expm1(np.minimum(steepness * past, 50)) + np.where(past > 0, jump, 0.0)

    found, possible = last_within(excess, np.full(len(at), -4.0), np.full(len(at), 4.0), TOLERANCE, first)
    assert possible.all()
    assert np.all(found <= at) and np.all(at - found <= TOLERANCE)
    # no worse than twice a bisection, and settled candidates are not asked again
    assert len(asked) <= 2 + 2 * math.ceil(math.log2(8 / TOLERANCE))
    assert asked == sorted(asked, reverse=True)


def test_smooth_figures_take_far_fewer_looks_than_bisection() -> None:
    looks = []

    def excess(x: np.ndarray, index: np.ndarray) -> np.ndarray:
        looks.append(1)
        return np.asarray(np.exp(x) - 2.0)

    found, _ = last_within(excess, np.array([-4.0]), np.array([4.0]), 1e-9)
    assert found[0] == pytest.approx(math.log(2), abs=2e-9)
    assert len(looks) <= 14  # bisection: 33


def test_ends() -> None:
    """Within everywhere: the upper end; nowhere: none; and the rest is settled beside them."""
    shift = np.array([-10.0, 10.0, 0.25])
    found, possible = last_within(lambda x, index: x + shift[index], np.full(3, -1.0), np.full(3, 1.0), TOLERANCE)
    assert list(possible) == [True, False, True]
    assert found[0] == 1.0 and found[1] == -1.0
    assert found[2] == pytest.approx(-0.25, abs=TOLERANCE)
