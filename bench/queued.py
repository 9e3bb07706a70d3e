"""Published throughput with everything queued, as rows a fit takes beside served ones: TensorRT-LLM's own tables.

Their batches are full and their prompts wait for nobody, so they say what kernels do where served rows mostly say what
hosts do. A table of an older engine generation (0.14) is left out.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from planner.hardware import Database
from planner.serving.statistics import distribution
from planner.validation.comparison import Skipped
from planner.validation.fitting import Observation
from planner.validation.knobs import Answer, answer
from planner.validation.offline import as_run, predict_queued, why_not
from planner.validation.points import MeasuredPoint, read_point
from planner.validation.protocols import Prediction

TABLES = tuple(
    f"trtllm_{version}_perf_overview.csv" for version in ("v0.17", "v0.20", "v1.0", "v1.2")
)  # fmt: skip
#: scatter of a rate, and of a group's own deviation, logarithms
SPREAD, GROUP_SPREAD = 0.15, 0.05
FIGURE = ("throughput", "mean")
NOTHING = distribution(np.zeros(1))


def points(folder: Path, database: Database) -> list[MeasuredPoint]:
    """Queued rows of all tables that can be predicted, as their benchmark ran them."""
    found = []
    for name in TABLES:
        with (folder / name).open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                point = read_point({**row, "model": row["model"].removesuffix("/R1")}, name, database)
                if isinstance(point, Skipped) or why_not(point) or point.output_tokens <= 1:
                    continue
                if point.value(*FIGURE) is not None:
                    found.append(as_run(point, database))
    return found


def is_queued(point: MeasuredPoint) -> bool:
    """Whether a point is one of these."""
    return point.file in TABLES


def predict(point: MeasuredPoint, database: Database) -> Prediction:
    """Its rate, [tokens/s] of an accelerator; a queue has no latencies."""
    return Prediction(NOTHING, NOTHING, NOTHING, predict_queued(point, database))


def answered(point: MeasuredPoint, database: Database) -> Answer:
    """Prediction and slopes of a queued point."""
    return answer(point, database, (FIGURE,), predict)


def observation(point: MeasuredPoint, found: Answer) -> Observation:
    """What a queued point says about knobs."""
    measured = point.value(*FIGURE)
    assert measured is not None
    residual = math.log(measured / found.prediction.throughput) + found.start.get(FIGURE, 0.0)
    offset = (*point.group, point.engine, "throughput")
    return Observation(residual, found.slopes[FIGURE], SPREAD, offset, GROUP_SPREAD)
