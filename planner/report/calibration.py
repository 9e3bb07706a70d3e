"""A calibration as blocks and as a record of JSON keys: what improved, what was learnt, what stays unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from planner.report.blocks import Block, Heading, Text, sheet
from planner.validation.calibrating import EVERY, Calibrated, Improvement
from planner.validation.knobs import Knob

TITLES = {"tpot": "time per output token", "ttft": "time to first token"}
#: skipped rows and contradictions that are named
SHOWN = 8


def calibration_record(found: Calibrated) -> dict[str, Any]:
    """Everything there is to say: errors relative to the measured figure [1], constants as factors [1] or seconds."""
    return {
        "schema_version": "1.0",
        "name": found.calibration.name,
        "points": found.points,
        "held_out": [_improvement(i) for i in found.held_out],
        "fitted": [_improvement(i) for i in found.fitted],
        "identified": [_constant(found, k) for k in found.identified],
        "not_identified": [k.label for k in found.unidentified],
        "contradictions": list(found.contradictions),
        "skipped": [{"id": s.id, "file": s.file, "reason": s.reason} for s in found.skipped],
    }


def _improvement(one: Improvement) -> dict[str, Any]:
    return {
        "metric": one.metric, "n": one.n, "median_ape_before": one.median_before, "median_ape_after": one.median_after,
        "mean_ape_before": one.mean_before, "mean_ape_after": one.mean_after,
    }  # fmt: skip


def _constant(found: Calibrated, knob: Knob) -> dict[str, Any]:
    """A constant as it is after the fit, and the bounds two spreads away."""
    value, spread = found.fit.values[knob], found.fit.spreads[knob]
    if knob.overhead:
        base = found.engines.get(knob.owner, {}).get(knob.what, 0.0)
        at, unit = [max(0.0, base + value + k * spread) for k in (0, -2, 2)], "s"
    else:
        at, unit = [math.exp(value + k * spread) for k in (0, -2, 2)], "1"
    return {"constant": knob.label, "value": at[0], "low": at[1], "high": at[2], "unit": unit}


def calibration_blocks(found: Calibrated) -> list[Block]:
    """Errors before and after, the constants the points told, and those they could not tell."""
    blocks: list[Block] = [
        Heading(f"Calibration {found.calibration.name!r}"),
        Text(f"{found.points} {'point' if found.points == 1 else 'points'} used, {len(found.skipped)} left out"),
    ]
    if found.held_out:
        blocks += [Heading(f"Errors on points held out, every {EVERY}rd"), _errors(found.held_out)]
    else:
        blocks.append(
            Text(f"Nothing could be held out of fewer than {EVERY} points: what the fit is worth is unknown", "bad")
        )
    blocks += [Heading("Errors on all points, which were fitted"), _errors(found.fitted)]
    if found.identified:
        rows = [tuple(_shown(_constant(found, k))) for k in found.identified]
        blocks += [
            Heading("Identified"),
            sheet(("Constant", "Value", "Low", "High"), rows, numeric=("Value", "Low", "High")),
        ]
        blocks.append(
            Text("Factors on achieved rates and fixed times; overheads in ms. Low and high: two spreads.", "note")
        )
    if found.unidentified:
        blocks += [Heading("Could not be identified"), Text(", ".join(_grouped(found.unidentified)), "note")]
    blocks += [Text(f"warning: {text}", "bad") for text in found.contradictions[:SHOWN]]
    if len(found.contradictions) > SHOWN:
        blocks.append(Text(f"{len(found.contradictions) - SHOWN} more contradictions: --format json has all", "note"))
    reasons: dict[str, list[str]] = {}
    for s in found.skipped:
        reasons.setdefault(s.reason, []).append(s.id)
    for reason, names in list(reasons.items())[:SHOWN]:
        which = names[0] if len(names) == 1 else f"{len(names)} rows ({names[0]}, …)"
        blocks.append(Text(f"warning: left out {which}: {reason}", "bad"))
    if len(reasons) > SHOWN:
        blocks.append(Text(f"{len(reasons) - SHOWN} more reasons: --format json has all", "note"))
    return blocks


def _errors(found: Sequence[Improvement]) -> Block:
    rows = [
        (
            TITLES[i.metric],
            i.n,
            f"{i.median_before:.1%}",
            f"{i.median_after:.1%}",
            f"{i.mean_before:.1%}",
            f"{i.mean_after:.1%}",
        )
        for i in found
    ]
    columns = ("Metric", "n", "Median before", "after", "Mean before", "after ")
    return sheet(columns, rows, numeric=columns[1:])


def _shown(one: dict[str, Any]) -> list[str]:
    if one["unit"] == "s":
        return [one["constant"], *(f"{one[k] * 1e3:.3g} ms" for k in ("value", "low", "high"))]
    return [one["constant"], *(f"{one[k]:.3g}" for k in ("value", "low", "high"))]


def _grouped(knobs: Sequence[Knob]) -> list[str]:
    """Labels without what is above a single part or engine: one line for what several hold of one operator."""
    return list(dict.fromkeys(f"{k.what}{'' if k.overhead else ' ' + k.quantity}" for k in knobs))
