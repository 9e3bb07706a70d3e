"""How far off predictions are: errors, bias and ranks by group, and throughput lost by following them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.errors import InputError, nearest
from planner.validation.closed_loops import Offer
from planner.validation.comparison import Comparison, Skipped
from planner.validation.labels import format_named
from planner.validation.runs import Compared

Vector = npt.NDArray[np.float64]
METRICS = ("tpot", "ttft", "throughput", "speedup", "kernel", "acceptance_length")
#: tokens per second of a user that somebody may ask for, 0 for nobody does, and the share of it a pick may miss it by
LEVELS = (0.0, 20.0, 50.0, 100.0)
SLACK = 0.9
#: bounds of load bands: requests in flight, batches, tokens of a matmul
BANDS = (1, 4, 16, 64, 256, 1024, 4096)
#: comparisons a group needs to be listed among the worst
ENOUGH = 5


@dataclass(frozen=True)
class Score:
    """Errors of ``n`` comparisons, all relative to the measured figure [1].

    ``bias`` is the mean of predicted/measured - 1, ``median_ratio`` the median of predicted/measured,
    ``rank_correlation`` Spearman's, None below three comparisons. ``statistic`` is mean (the median where only
    that was published) or p99; ``rows`` clean, flagged or known.
    """

    metric: str
    statistic: str
    rows: str
    n: int
    median_ape: float
    mean_ape: float
    p90_ape: float
    bias: float
    median_ratio: float
    rank_correlation: float | None
    group: Mapping[str, str]


@dataclass(frozen=True)
class Regret:
    """Throughput lost by our picks, [1], over ``groups`` of configurations that share what is given.

    ``interactivity``: tokens/s of a user that was asked for, 0 for none, None where everything is queued. ``missed``:
    share of groups where the pick was slower than that by over a tenth, or nothing was thought to reach it though
    something does; those have no regret.
    """

    interactivity: float | None
    groups: int
    median: float | None
    mean: float | None
    missed: float


def ranks(values: Vector) -> Vector:
    """Ranks from 1, ties sharing their mean, [1].

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place], dtype=float)


def rank_correlation(one: Vector, other: Vector) -> float | None:
    """Spearman's coefficient, [1]; None for fewer than three values or values that are all the same.

    Source: Spearman, "The proof and measurement of association between two things", 1904.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    if len(one) < 3:
        return None
    first, second = ranks(one), ranks(other)
    first, second = first - first.mean(), second - second.mean()
    spread = float(np.sqrt(np.sum(first**2) * np.sum(second**2)))
    return round(float(np.sum(first * second)) / spread, 12) if spread else None


def load_band(load: str) -> str:
    """The band a load falls into: numbers by powers of four, other loads by their first word.

    >>> load_band("24"), load_band("batch 300"), load_band("queued"), load_band("poisson, p99 within 1/2 ms")
    ('16-63', '256-1023', 'queued', 'poisson')
    """
    number = re.fullmatch(r"(?:batch )?(\d+(?:\.\d+)?(?:e\+?\d+)?)", load)
    if number is None:
        return load.split(",")[0].strip()[:40]
    value = float(number[1])
    below = [b for b in BANDS if b <= value]
    if not below:
        return "0"
    return f"{BANDS[-1]}+" if below[-1] == BANDS[-1] else f"{below[-1]}-{BANDS[len(below)] - 1}"


#: what comparisons can be grouped by, and what of them it is
DIMENSIONS: dict[str, Callable[[Comparison], str]] = {
    "accelerator": lambda c: c.accelerator,
    "model": lambda c: c.model,
    "engine": lambda c: c.engine.split(" ")[0],
    "precision": lambda c: format_named(c.precision) or c.precision,
    "load": lambda c: load_band(c.load),
    "kind": lambda c: c.kind,
    "file": lambda c: c.file,
}


def parse_by(text: str | None) -> list[tuple[str, ...]]:
    """``--by``: groupings between commas, crossed with ``+``; by default every dimension alone.

    >>> parse_by("model+accelerator, load")
    [('model', 'accelerator'), ('load',)]
    """
    if text is None:
        return [(name,) for name in DIMENSIONS]
    found = []
    for part in text.split(","):
        names = tuple(dict.fromkeys(name.strip() for name in part.split("+") if name.strip()))
        for name in names:
            if name not in DIMENSIONS:
                raise InputError(
                    f"is {name!r}", key="--by", expected="some of " + ", ".join(DIMENSIONS),
                    suggestion=nearest(name, DIMENSIONS),
                )  # fmt: skip
        if names and names not in found:
            found.append(names)
    if not found:
        raise InputError("names nothing", key="--by", expected="some of " + ", ".join(DIMENSIONS))
    return found


def parse_metrics(texts: Sequence[str]) -> tuple[str, ...]:
    """``--metric``: names between commas, by default all; InputError for one there is not.

    >>> parse_metrics(["ttft,tpot"])
    ('tpot', 'ttft')
    """
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    for name in names:
        if name not in METRICS:
            raise InputError(
                f"is {name!r}", key="--metric", expected="some of " + ", ".join(METRICS),
                suggestion=nearest(name, METRICS),
            )  # fmt: skip
    return tuple(m for m in METRICS if m in names) if names else METRICS


def scores(compared: Iterable[Compared], by: Sequence[str] = ()) -> list[Score]:
    """A score for each metric, statistic and kind of rows, and each value of the dimensions ``by``.

    Clean rows first; comparisons that have no value of a dimension are left out.
    """
    groups: dict[tuple[str, str, str, tuple[str, ...]], list[Comparison]] = {}
    for one in compared:
        c = one.comparison
        values = tuple(DIMENSIONS[name](c) for name in by)
        if all(values):
            groups.setdefault((one.rows, c.metric, "p99" if c.statistic == "p99" else "mean", values), []).append(c)
    order = {name: i for i, name in enumerate(("clean", "flagged", "known", *METRICS, "mean", "p99"))}
    found = []
    for key in sorted(groups, key=lambda k: (*(order.get(part, 99) for part in k[:3]), k[3])):
        rows, metric, statistic, values = key
        found.append(_score(metric, statistic, rows, groups[key], dict(zip(by, values, strict=True))))
    return found


def _score(metric: str, statistic: str, rows: str, members: Sequence[Comparison], group: dict[str, str]) -> Score:
    measured = np.array([c.measured for c in members])
    predicted = np.array([c.predicted for c in members])
    ratio = predicted / measured
    errors = np.abs(ratio - 1)
    return Score(
        metric, statistic, rows, len(members), float(np.median(errors)), float(np.mean(errors)),
        float(np.quantile(errors, 0.9)), float(np.mean(ratio - 1)), float(np.median(ratio)),
        rank_correlation(measured, predicted), group,
    )  # fmt: skip


def worst(compared: Iterable[Compared], most: int = 8) -> list[Score]:
    """Cells of kind, model and accelerator with the largest median error, of clean rows, largest first."""
    cells = scores((c for c in compared if c.rows == "clean"), ("kind", "model", "accelerator"))
    enough = [s for s in cells if s.n >= ENOUGH and s.statistic == "mean"]
    return sorted(enough, key=lambda s: -s.median_ape)[:most]


def skipped_by_reason(skipped: Iterable[Skipped]) -> list[tuple[str, int, list[str], list[str]]]:
    """Reasons with how many rows they left out, of which files, and a few of the rows; the most frequent first."""
    members: dict[str, list[Skipped]] = {}
    for one in skipped:
        members.setdefault(one.reason, []).append(one)
    return [
        (reason, len(those), list(dict.fromkeys(s.file for s in those)), [s.id for s in those[:5]])
        for reason, those in sorted(members.items(), key=lambda item: -len(item[1]))
    ]


def regrets(offers: Iterable[Offer]) -> list[Regret]:
    """What our picks lose, at each level of interactivity and where everything is queued.

    In every group of at least two settings that reach the level, measured or predicted, the pick is the one of the
    highest predicted throughput per accelerator that is predicted to reach it; its regret is
    ``1 - measured throughput / the best measured of those that reach it``, [1]. Runs of a setting count by their
    median.
    """
    groups: dict[tuple[str, ...], dict[str, list[Offer]]] = {}
    for one in offers:
        groups.setdefault(one.choice, {}).setdefault(one.setting, []).append(one)
    settings = [[_median(runs) for runs in those.values()] for those in groups.values() if len(those) > 1]
    queued = [those for those in settings if those[0].measured_interactivity is None]
    served = [those for those in settings if those[0].measured_interactivity is not None]
    found = [_regret(None, queued)] if queued else []
    found += [_regret(level, served) for level in LEVELS] if served else []
    return [one for one in found if one.groups]


def _median(runs: Sequence[Offer]) -> Offer:
    def middle(name: str) -> float | None:
        values = [getattr(run, name) for run in runs]
        return None if None in values else float(np.median(values))

    names = ("measured", "predicted", "measured_interactivity", "predicted_interactivity")
    measured, predicted, fast, guessed = (middle(name) for name in names)
    return Offer(runs[0].choice, runs[0].setting, measured or 0.0, predicted or 0.0, fast, guessed)


def _regret(level: float | None, groups: Sequence[Sequence[Offer]]) -> Regret:
    lost: list[float] = []
    missed = 0
    counted = 0
    for settings in groups:
        reach = [s for s in settings if level is None or (s.measured_interactivity or 0.0) >= level]
        thought = [s for s in settings if level is None or (s.predicted_interactivity or 0.0) >= level]
        if len({s.setting for s in (*reach, *thought)}) < 2:
            continue
        counted += 1
        pick = max(thought, key=lambda s: s.predicted, default=None)
        if pick is None or (level is not None and (pick.measured_interactivity or 0.0) < SLACK * level):
            missed += 1
        elif reach:
            lost.append(max(0.0, 1 - pick.measured / max(s.measured for s in reach)))
    if not counted:
        return Regret(level, 0, None, None, 0.0)
    return Regret(
        level, counted, float(np.median(lost)) if lost else None, float(np.mean(lost)) if lost else None,
        missed / counted,
    )  # fmt: skip


def counts(compared: Iterable[Compared], skipped: Iterable[Skipped]) -> dict[str, tuple[int, int]]:
    """Comparisons and rows skipped of every file."""
    made = Counter(c.comparison.file for c in compared)
    left = Counter(s.file for s in skipped)
    return {file: (made[file], left[file]) for file in {**made, **left}}
