"""The occupancy in closed form against exact arithmetic, and what leaving states out may not change."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.serving.latency import percentiles
from planner.serving.occupancy import Occupancy, dense_steps, last_state, occupancy

BATCHES = np.array([1.0, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256])


def exact(load: float, step: np.ndarray, dispersion: np.ndarray, slots: int) -> list[float]:
    """P(N <= n) for n = 0..slots by rational arithmetic, the tail beyond the slots geometric."""
    weights = [Fraction(1)]
    phi = [Fraction(float(d)) for d in dispersion]
    # sequences over the load at that number, as many tokens asked for as made where it is one
    pressure = [n / (Fraction(load) * Fraction(float(step[n - 1]))) for n in range(1, slots + 1)]
    for n in range(slots):
        arriving = 1 if n == 0 else 1 + (phi[n - 1] - 1) * pressure[n - 1]
        weights.append(weights[-1] * arriving / (phi[n] * pressure[n]))
    r = Fraction(load) * Fraction(float(step[slots - 1])) / slots
    total = sum(weights) + weights[-1] * r / (1 - r)
    below, found = Fraction(0), []
    for w in weights:
        below += w
        found.append(float(below / total))
    return found


def grid_steps(fixed: float, slope: float) -> np.ndarray:
    return (fixed + slope * BATCHES)[None, :]


@given(
    share=st.floats(0.01, 0.95), slots=st.integers(1, 60), fixed=st.floats(1e-3, 0.1), slope=st.floats(1e-6, 1e-2),
    phi=st.floats(1.0, 20.0),
)  # fmt: skip
def test_occupancy_is_exact(share: float, slots: int, fixed: float, slope: float, phi: float) -> None:
    steps = dense_steps(BATCHES, grid_steps(fixed, slope), slots)
    load = share * slots / float(steps[0, slots - 1])
    dispersion = np.full_like(steps, phi)
    most = np.array([[float(slots)]])
    state = occupancy(np.array([[load]]), 1.0, steps, most, dispersion=dispersion)
    expected = exact(load, steps[0], dispersion[0], slots)
    kept = state.cumulative.shape[1]
    assert state.cumulative[0] == pytest.approx(expected[:kept], rel=1e-11)
    # what was left out lies beyond every float64 below the rest
    assert expected[kept - 1] == pytest.approx(expected[-1], rel=1e-15)
    # and without dispersion the two ways to the weights agree
    plain = occupancy(np.array([[load]]), 1.0, steps, most)
    poisson = occupancy(np.array([[load]]), 1.0, steps, most, dispersion=np.ones_like(steps))
    assert float(plain.mean[0, 0]) == pytest.approx(float(poisson.mean[0, 0]), rel=1e-11)
    assert float(plain.wait_probability[0, 0]) == pytest.approx(float(poisson.wait_probability[0, 0]), rel=1e-9)


@given(share=st.floats(0.05, 0.6), fixed=st.floats(1e-3, 0.1), slope=st.floats(1e-6, 1e-3), phi=st.floats(1.0, 3.0))
def test_tokens_are_made_as_fast_as_asked_for(share: float, fixed: float, slope: float, phi: float) -> None:
    """The mean of n over the load at n is one, whatever the dispersion, where no slot is ever missing."""
    slots = 256
    steps = dense_steps(BATCHES, grid_steps(fixed, slope), slots)
    load = share * 20 / float(steps[0, 19])
    state = occupancy(
        np.array([[load]]), 1.0, steps, np.array([[float(slots)]]), dispersion=np.full_like(steps, phi)
    )  # fmt: skip
    if float(state.wait_probability[0, 0]) > 1e-9:
        return
    here = np.diff(state.cumulative[0], prepend=0.0)
    n = np.arange(len(here), dtype=float)
    made = n[1:] / (load * steps[0, : len(here) - 1])
    assert float(here[1:] @ made) == pytest.approx(1.0, rel=1e-6)


@given(
    share=st.lists(st.floats(0.001, 0.9), min_size=1, max_size=4), slots=st.integers(8, 2000),
    fixed=st.floats(1e-3, 0.1), slope=st.floats(1e-7, 1e-2), phi=st.floats(1.0, 30.0),
)  # fmt: skip
def test_states_beyond_the_last_weigh_nothing(
    share: list[float], slots: int, fixed: float, slope: float, phi: float
) -> None:
    """Candidates together, of uneven slots, cut where ``last_state`` says: every figure as without the cut."""
    grid = np.repeat(grid_steps(fixed, slope), len(share), axis=0)
    most = np.array([[float(max(1, slots // (i + 1)))] for i in range(len(share))])
    full = np.array([[float(dense_steps(BATCHES, grid[i : i + 1], int(m))[0, -1])] for i, m in enumerate(most[:, 0])])
    rate = np.array(share)[:, None] * most / full
    dispersion = np.full_like(grid, phi)

    def at(last: int, **extra: np.ndarray) -> Occupancy:
        steps, spread = dense_steps(BATCHES, grid, last), dense_steps(BATCHES, dispersion, last)
        return occupancy(rate, 1.0, steps, most, dispersion=spread, **extra)

    whole = at(int(most.max()))
    cut = at(last_state(BATCHES, rate * grid, dispersion, most), full_step=full)
    for name in ("mean", "variance", "waiting", "wait_probability"):
        assert getattr(cut, name) == pytest.approx(getattr(whole, name), rel=1e-9, abs=1e-15)
    levels = (0.01, 0.5, 0.999)
    assert np.array_equal(cut.quantile(levels), whole.quantile(levels))


def test_few_states_are_built_at_light_load() -> None:
    grid, slots = grid_steps(0.01, 1e-5), np.array([[4000.0]])
    assert last_state(BATCHES, 10.0 * grid, np.ones_like(grid), slots) <= 16
    assert last_state(BATCHES, 1e6 * grid, np.ones_like(grid), slots) == 4000


def test_quantiles_stop_at_a_candidate_s_own_slots() -> None:
    """Beside a candidate of many slots, a full one of few: nobody is in service beyond them."""
    steps = np.full((2, 100), 0.1)
    state = occupancy(np.array([[19.9], [1.0]]), 1.0, steps, np.array([[2.0], [100.0]]))
    assert float(state.quantile(0.999)[0, 0]) == 2
    assert state.quantile((0.1, 0.9)).shape == (2, 2)


@given(st.lists(st.floats(0, 1e3), min_size=2, max_size=40), st.integers(0, 39))
def test_percentiles_of_even_and_uneven_weights_agree(values: list[float], twice: int) -> None:
    """A value of double weight is the same as the value twice."""
    at = twice % len(values)
    weights = np.ones(len(values))
    weights[at] = 2.0
    uneven = percentiles(np.array([values]), weights)
    even = percentiles(np.array([[*values, values[at]]]), np.ones(len(values) + 1))
    for name in ("p50", "p95", "p99"):
        assert uneven.statistic(name)[0, 0] == even.statistic(name)[0, 0]
    assert uneven.mean[0, 0] == pytest.approx(math.fsum([*values, values[at]]) / (len(values) + 1), rel=1e-12)
