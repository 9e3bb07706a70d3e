"""What a plan's number formats are taken to do to the quality of answers: said, never computed."""

from __future__ import annotations

from planner.models.formats import FORMATS
from planner.models.model import Model
from planner.sizing.candidates import dominant_format
from planner.sizing.result import Assumption


def quality_assumptions(model: Model, weights: str, kv: str) -> tuple[Assumption, ...]:
    """What is assumed about quality under these formats, in words; names of formats. Source: none: nothing is measured.

    Formats narrower than the published ones are only searched where ``precision`` of the workload allows them.
    """
    published = dominant_format(model, model.formats)
    return (
        _said("quality of weights", "precision.weights", published, weights),
        _said("quality of the KV cache", "precision.kv", model.kv_format, kv),
    )


def _said(key: str, allowed: str, published: str, used: str) -> Assumption:
    if used == published:
        return Assumption(key=key, value=f"{used} as published: the model's own", origin="default")
    if FORMATS[used].bytes_per_element < FORMATS[published].bytes_per_element:
        said = f"{used} for published {published}, allowed by {allowed}: taken as equal, not measured; evaluate it"
    else:
        said = f"{used} for published {published}, as asked by {allowed}: taken as equal"
    return Assumption(key=key, value=said, origin="workload")


def narrowed(model: Model, weights: str, kv: str) -> tuple[Assumption, ...]:
    """The same of the formats that differ from the published ones alone, () where none does. Source: definition."""
    return tuple(a for a in quality_assumptions(model, weights, kv) if a.origin == "workload")
