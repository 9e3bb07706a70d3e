"""The stopwatch under a clock that only work moves."""

from __future__ import annotations

import pytest
from fakes import FakeClock

from planner.measuring import Figure, Sample, Stopwatch


def watch(clock: FakeClock, budget: float = 1.0, least: int = 7, most: int = 100) -> Stopwatch:
    return Stopwatch(budget, least, most, clock=clock)


def test_seconds_are_those_of_the_work() -> None:
    clock = FakeClock()
    sample = watch(clock).time(clock.work(0.02))
    assert (sample.best, sample.median) == pytest.approx((0.02, 0.02))
    assert sample.spread == pytest.approx(0, abs=1e-9)
    assert 50 <= sample.repetitions <= 51  # a budget of 1 s


def test_twice_the_time_is_half_the_rate() -> None:
    def rate(seconds: float) -> float:
        clock = FakeClock()
        return Figure("read", "x", "x", watch(clock).time(clock.work(seconds)), bytes=1e9).best

    assert rate(0.1) == pytest.approx(2 * rate(0.2)) == pytest.approx(1e10)


def test_short_calls_are_grouped() -> None:
    clock = FakeClock()
    sample = watch(clock, budget=0.0).time(clock.work(1e-6))
    assert sample.best == pytest.approx(1e-6)
    assert sample.repetitions == 7
    assert clock.calls > 7 * 2e-3 / 1e-6


def test_best_and_median_of_a_noisy_machine() -> None:
    clock = FakeClock((1.0, 1.0, 1.5))
    sample = watch(clock).time(clock.work(0.1))
    assert sample.best == pytest.approx(0.1)
    assert sample.median == pytest.approx(0.1)
    assert sample.spread == pytest.approx(0.5)
    assert Figure("read", "x", "x", sample, bytes=1.0).noisy


def test_a_stalled_machine_is_not_waited_for() -> None:
    clock = FakeClock()
    assert watch(clock, least=50).time(clock.work(3.0)).repetitions == 3


def test_repetitions_have_an_end() -> None:
    clock = FakeClock()
    assert watch(clock, budget=1e9, most=20).time(clock.work(0.1)).repetitions == 20


def test_a_clock_that_stands_still_gives_no_zero() -> None:
    assert Stopwatch(0.0, 3, 3, shortest=0.0, clock=lambda: 0.0).time(lambda: None).best > 0


def test_the_device_is_waited_for() -> None:
    clock, waits = FakeClock(), []
    Stopwatch(0.0, 3, 3, clock=clock, wait=lambda: waits.append(clock.now)).time(clock.work(1.0))
    assert len(waits) == 2 * (2 + 3)  # before and after two groups of warm-up and three repetitions


def test_units() -> None:
    sample = Sample((2.0, 4.0))
    assert Figure("matmul", "x", "x", sample, flops=8.0).best == 4.0
    assert Figure("matmul", "x", "x", sample, flops=6.0).typical == 2.0
    assert Figure("call", "x", "x", sample).typical == 3.0
