"""Constants from results of one's own: fit them, say what improved on points left out, and what stays unknown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.errors import InputError
from planner.hardware import Database
from planner.hardware.accelerator import ANY
from planner.hardware.calibration import EXCHANGES, LEAST, MOST, Calibration
from planner.validation.comparison import Skipped
from planner.validation.fitting import Fit, Observation, fit, misfit
from planner.validation.knobs import Answer, Knob, answer, calibration_of, engine_overheads
from planner.validation.points import MeasuredPoint
from planner.validation.protocols import Prediction, predict

Pair = tuple[MeasuredPoint, Answer]
#: figures fitted to, and how much each scatters around a right prediction, [1]
FIGURES = (("tpot", "mean"), ("ttft", "mean"), ("tpot", "p50"), ("ttft", "p50"))
SPREAD = {"tpot": 0.05, "ttft": 0.15}
NO_SLOPES: Mapping[tuple[str, str], Mapping[Knob, float]] = {figure: {} for figure in FIGURES}
#: every how many points one is left out to see what the fit is worth
EVERY = 3
#: rounds of a fit at most, parts of a step that are tried, and the mean surprise of predictions that ends it
ROUNDS, PARTS, SETTLED = 6, (1.0, 0.5, 0.25, 0.125), 0.02
#: equal configurations whose figures are this many times apart contradict each other
APART = 1.3


@dataclass(frozen=True)
class Improvement:
    """Median and mean absolute error of a metric on ``n`` points left out, before and after, [1]."""

    metric: str
    n: int
    median_before: float
    median_after: float
    mean_before: float
    mean_after: float


@dataclass(frozen=True)
class Calibrated:
    """What came of a calibration: the constants, what they improve, and what the points could not say.

    ``held_out`` errors with constants from the other points; ``fitted`` errors of the final ones on all.
    """

    calibration: Calibration
    fit: Fit
    engines: Mapping[str, Mapping[str, float]]
    points: int
    held_out: tuple[Improvement, ...]
    fitted: tuple[Improvement, ...]
    identified: tuple[Knob, ...]
    unidentified: tuple[Knob, ...]
    contradictions: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def observations(point: MeasuredPoint, found: Answer, spreads: Mapping[str, float] = SPREAD) -> list[Observation]:
    """What a point's measured figures say about knobs; a median only where there is no mean, [1].

    Source: definition of the residual.
    """
    said = []
    for metric, statistic in FIGURES:
        value = point.value(metric, statistic)
        if value is None or (statistic == "p50" and point.value(metric) is not None):
            continue
        residual = math.log(value / found.prediction.value(metric, statistic)) + found.start.get(
            (metric, statistic), 0.0
        )
        said.append(Observation(residual, found.slopes[metric, statistic], spreads[metric], point.group))
    return said


def calibrate(
    points: Sequence[MeasuredPoint],
    database: Database,
    *,
    name: str = "own",
    source: str = "",
    said: Callable[[int, int], None] = lambda done, of: None,
) -> Calibrated:
    """Fit the constants that the points can tell; InputError when not one of them can be predicted.

    Every third point, in order of load, is left out of a first fit and predicted with it; the final one takes
    all. Source: :func:`settled`.
    """
    known: list[Pair] = []
    skipped: list[Skipped] = []
    ordered = sorted(points, key=lambda p: (p.group, p.input_tokens, p.output_tokens, p.concurrency, p.id))
    for i, point in enumerate(ordered):
        said(i, len(ordered))
        try:
            known.append((point, answer(point, database, FIGURES)))
        except InputError as error:
            skipped.append(Skipped(point.id, point.file, error.problem))
    if not known:
        reasons = "; ".join(dict.fromkeys(s.reason for s in skipped)) or "no serving points"
        raise InputError(f"nothing to calibrate with: {reasons}", expected="rows with latencies of a closed loop")
    engines = engine_overheads(database, {p.engine for p, _ in known})
    left_out = [known[i] for i in range(1, len(known), EVERY)] if len(known) >= EVERY else []
    rest = [pair for i, pair in enumerate(known) if i % EVERY != 1]
    first = calibration_of(settled(rest, database, engines).values, engines, name) if left_out else Calibration()
    final = settled(known, database, engines)
    calibration = calibration_of(final.values, engines, name, source)
    knobs = sorted(final.values, key=lambda k: k.label)
    turned = [k for k in knobs if final.identified(k)]
    return Calibrated(
        calibration, final, engines, len(known),
        improvements(left_out, database.calibrated(first)),
        improvements(known, database.calibrated(calibration)),
        tuple(turned), tuple(k for k in knobs if k not in turned), tuple(_contradictions(known)), tuple(skipped),
    )  # fmt: skip


def settled(pairs: Sequence[Pair], database: Database, engines: Mapping[str, Mapping[str, float]]) -> Fit:
    """Knobs fitted to points, with slopes taken anew where a fit ended until predictions are what slopes promise.

    Far from where constants start, a figure doesn't answer to a knob as it does there: a step that suits points and
    priors no better when predictions are run again is shortened, and the last one that does is kept. Source: damped
    Gauss-Newton, :func:`planner.validation.fitting.fit`.
    """
    floors = {Knob(e, key, ANY, "seconds"): -value for e, table in engines.items() for key, value in table.items()}
    here = list(pairs)
    at: dict[Knob, float] = {}
    cost = _cost(here, [a.prediction for _, a in here], {}, {})
    best: Fit | None = None
    for left in reversed(range(ROUNDS)):
        aim = fit([o for p, a in here for o in observations(p, a)], floors)
        for part in PARTS:
            values = {k: at.get(k, 0.0) + part * (v - at.get(k, 0.0)) for k, v in aim.values.items()}
            after = database.calibrated(calibration_of(values, engines))
            again = [predict(p, after) for p, _ in here]
            there = _cost(here, again, values, aim.priors)
            if there < cost:
                break
        else:
            return best or replace(aim, values=dict.fromkeys(aim.values, 0.0))
        at, cost, best = values, there, replace(aim, values=values)
        surprises = [_surprise(p, a, b, best) for (p, a), b in zip(here, again, strict=True)]
        if not left or (part == 1 and np.mean(surprises) < SETTLED):
            break
        here = [(p, _from_there(p, after, best)) for p, _ in here]
    assert best is not None
    return best


def _cost(
    pairs: Sequence[Pair], predictions: Sequence[Prediction], values: Mapping[Knob, float], priors: Mapping[Knob, float]
) -> float:
    """What residuals of predictions and turned knobs cost together, [1]: what a fit makes least."""
    off = [o for (p, _), b in zip(pairs, predictions, strict=True) for o in observations(p, Answer(b, NO_SLOPES))]
    return misfit(off) + sum((value / priors[knob]) ** 2 for knob, value in values.items())


def _from_there(point: MeasuredPoint, after: Database, found: Fit) -> Answer:
    """Slopes where a fit ended, and what it had added by them."""
    there = answer(point, after, FIGURES)
    return replace(there, start={figure: found.shift(slopes) for figure, slopes in there.slopes.items()})


def _surprise(point: MeasuredPoint, at: Answer, again: Prediction, found: Fit) -> float:
    """How far a prediction run again is from what slopes promised, logarithm, the largest of the figures, [1]."""
    off = [0.0]
    for figure, slopes in at.slopes.items():
        if point.value(*figure) is not None:
            promised = found.shift(slopes) - at.start.get(figure, 0.0)
            off.append(abs(math.log(again.value(*figure) / at.prediction.value(*figure)) - promised))
    return max(off)


def improvements(pairs: Sequence[tuple[MeasuredPoint, Answer]], after: Database) -> tuple[Improvement, ...]:
    """Errors of the answers' predictions and of those of another database on the same points, [1].

    Source: :func:`planner.validation.protocols.predict`.
    """
    errors: dict[str, list[tuple[float, float]]] = {}
    for point, found in pairs:
        again = predict(point, after)
        for metric, statistic in FIGURES:
            value = point.value(metric, statistic)
            if value is None or (statistic == "p50" and point.value(metric) is not None):
                continue
            both = (found.prediction.value(metric, statistic), again.value(metric, statistic))
            errors.setdefault(metric, []).append((abs(both[0] / value - 1), abs(both[1] / value - 1)))
    return tuple(
        Improvement(
            metric, len(pairs_), *(float(np.median([e[i] for e in pairs_])) for i in (0, 1)),
            *(float(np.mean([e[i] for e in pairs_])) for i in (0, 1)),
        )
        for metric, pairs_ in errors.items()
    )  # fmt: skip


def _contradictions(known: Sequence[tuple[MeasuredPoint, Answer]]) -> list[str]:
    """Equal configurations that were measured far apart."""
    seen: dict[tuple[object, ...], MeasuredPoint] = {}
    found = []
    for p, _ in known:
        key = (p.group, p.engine, p.weights, p.kv, p.workers, p.input_tokens, p.output_tokens, p.concurrency)
        other = seen.setdefault(key, p)
        for metric in ("tpot", "ttft"):
            one, two = p.value(metric), other.value(metric)
            if one and two and max(one / two, two / one) > APART:
                found.append(
                    f"{other.id} and {p.id} ran the same, and {metric} is {max(one / two, two / one):.1f} times apart"
                )
    return found


def calibration_text(found: Calibrated, date: str) -> str:
    """The calibration as TOML, each value with its spread; readable by ``--calibration``. Source: the fit."""
    done = found.calibration
    lines = [
        "# Constants fitted to results of one's own, on top of those that ship. Overheads in seconds; the rest are",
        "# factors on achieved rates (compute, memory, bandwidth) and on fixed times (latency).",
        "schema = 1", f'name = "{done.name}"', f'source = "{done.source}"', f"date = {date}", "",
    ]  # fmt: skip
    for engine, overheads in sorted(done.engines.items()):
        lines.append(f"[engine.{_key(engine)}]")
        for key, seconds in overheads.items():
            spread = found.fit.spreads.get(Knob(engine, key, ANY, "seconds"), 0.0)
            lines.append(
                f'{key} = {{ value = {seconds:.4g}, unit = "s", low = {max(0.0, seconds - 2 * spread):.4g}, '
                f'high = {seconds + 2 * spread:.4g}, kind = "fitted", points = {found.points} }}'
            )
        lines.append("")
    for section, owners in (("kernels", done.kernels), ("accelerator", done.accelerators)):
        for owner, operators in sorted(owners.items()):
            for operator, formats in sorted(operators.items()):
                for fmt, scale in sorted(formats.items()):
                    place = [section, owner, operator, *([] if operator in EXCHANGES else [fmt])]
                    values = {k: getattr(scale, k) for k in ("compute", "memory", "latency", "bandwidth")}
                    turned = {k: min(max(v, LEAST), MOST) for k, v in values.items() if abs(v - 1) > 5e-4}
                    if turned:
                        lines.append("[" + ".".join(_key(p) for p in place) + "]")
                        lines += [f"{k} = {v:.4g}" for k, v in turned.items()]
                        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _key(name: str) -> str:
    return name if all(c.isalnum() or c in "-_" for c in name) else f'"{name}"'
