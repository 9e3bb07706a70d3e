"""A benchmark client's closed loop: time to first token against concurrency, as measured and as simulated.

Nothing is fitted to these measurements: the step is the cost layer's. Their source is in fixtures/README.md.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from planner.cost.layout import Layout
from planner.cost.machine import machine
from planner.cost.speculation import Drafter
from planner.cost.step import StepModel
from planner.hardware import Database
from planner.models import load_model
from planner.serving import simulate
from planner.serving.model_step_time import model_step_time
from planner.sizing.candidates import weight_formats

MEASURED = Path(__file__).parent / "fixtures" / "closed_loop.csv"
PROMPTS = 10  # of each one in flight, as the benchmark's client sends
SHORTEST = 0.8  # of the nominal length
GROWTH = 1.15  # factor within which TTFT grows from one concurrency to the next
ABSOLUTE = 0.20
Setting = tuple[str, int, int, int]


@dataclass(frozen=True)
class Curve:
    """One setting over its concurrencies: measured and simulated mean TTFT [s], simulated at start and after."""

    concurrency: list[int]
    measured: list[float]
    simulated: list[float]
    burst: list[float]
    later: list[float]
    tpot_measured: list[float]
    tpot: list[float]


def settings() -> dict[Setting, list[dict[str, str]]]:
    found: dict[Setting, list[dict[str, str]]] = {}
    with MEASURED.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            key = (
                row["accelerator"], int(row["tensor_parallel"]), int(row["input_tokens"]), int(row["output_tokens"])
            )  # fmt: skip
            found.setdefault(key, []).append(row)
    return found


@pytest.fixture(scope="module", params=settings().items(), ids=lambda p: "-".join(map(str, p[0])))
def curve(request: pytest.FixtureRequest, database: Database) -> Curve:
    (name, tensor, context, answer), rows = request.param
    engine, chip, model = database.engine("vllm"), database.accelerator(name), load_model("llama-3.1-70b")
    step = StepModel(model, weight_formats(model, "fp8"), "bf16")
    priced = machine(chip, engine, ("bf16", "fp8"), "bf16", tensor, tensor)
    budget = int(engine.max_batched_tokens(chip.memory_bytes))
    time = model_step_time(
        step, Drafter("none", 0), priced, Layout(tensor), sequences=64, budget=budget, longest=context + answer
    )
    found = Curve([], [], [], [], [], [], [])
    for row in rows:
        concurrency = int(row["concurrency"])
        rng = np.random.default_rng(0)
        lengths = (rng.integers(int(SHORTEST * n), n, PROMPTS * concurrency, endpoint=True) for n in (context, answer))
        records = simulate(
            [
                {"arrival_s": 0.0, "input_tokens": int(i), "output_tokens": int(o)}
                for i, o in zip(*lengths, strict=True)
            ],
            time, token_budget=budget, max_sequences=64, concurrency=concurrency,
        )  # fmt: skip
        waits = np.array([r.first_token_s - r.arrival_s for r in records]) + engine.request_overhead_s
        found.concurrency.append(concurrency)
        found.measured.append(float(row["ttft_ms"]) / 1e3)
        found.simulated.append(float(waits.mean()))
        found.burst.append(float(waits[:concurrency].mean()))
        found.later.append(float(np.median(waits[concurrency:])))
        found.tpot_measured.append(float(row["tpot_ms"]) / 1e3)
        found.tpot.append(float(np.mean([(r.completion_s - r.first_token_s) / (r.output_tokens - 1) for r in records])))
    return found


def test_ttft_rises_with_concurrency(curve: Curve) -> None:
    assert len(curve.concurrency) == 5
    assert np.all(np.diff(curve.measured) > 0)  # so a rank correlation of one is a simulation that rises too
    assert np.all(np.diff(curve.simulated) > 0)


def test_it_grows_as_measured(curve: Curve) -> None:
    for (a, b), (c, d) in zip(pairwise(curve.simulated), pairwise(curve.measured), strict=True):
        assert 1 / GROWTH < (b / a) / (d / c) < GROWTH
    whole = (curve.simulated[-1] / curve.simulated[0]) / (curve.measured[-1] / curve.measured[0])
    assert 1 / GROWTH < whole < GROWTH


def test_the_burst_at_the_start_is_why(curve: Curve) -> None:
    """The first prompts come all at once and share the accelerator; later ones come one by one and hardly wait."""
    assert np.all(np.diff(curve.burst) > 0)
    assert curve.burst[-1] / curve.burst[0] > 5
    assert curve.later[-1] / curve.later[0] < 1.3
    assert curve.simulated[-1] > 2 * curve.later[-1]  # without it the mean would be far too low


def test_it_is_near_the_measured_one(curve: Curve) -> None:
    assert curve.simulated == pytest.approx(curve.measured, rel=ABSOLUTE)
    assert curve.tpot == pytest.approx(curve.tpot_measured, rel=ABSOLUTE)
