"""Acceptance the user measured: a TOML file of curves on top of the bundled data.

A curve gives one of: lengths at draft lengths, as the bundled files have them; acceptance by position
given the ones before; rates by position over all drafts, as vLLM logs them; or vLLM's two counters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from planner.documents import Document, only_keys, read_toml, string
from planner.hardware.acceptance import AcceptanceData, Curve, OwnCurve

METHODS = ("n-gram", "suffix", "eagle", "eagle3", "mtp", "dspark", "draft-model", "sparse-kv")
#: the ways to say a curve, and what goes with each
FORMS = ("acceptance_length", "acceptance", "acceptance_per_position", "accepted_tokens_per_position")
SAID = ("method", "model", "task", "source", "dataset", "temperature", "gpu", "kind", "thinking", "date")
MOST = 64  # positions

Path_ = tuple[str | int, ...]


def with_own(data: AcceptanceData, files: Sequence[Path]) -> AcceptanceData:
    """The data with the curves of the user's ``files`` on top, [tokens]; later files win.

    InputError for a file that cannot be read, an unknown key or method, or a curve that cannot be.
    Source: the user.
    """
    found = [curve for file in files for curve in _curves(read_toml(file), data)]
    return replace(data, own=(*data.own, *found)) if found else data


def _curves(document: Document, data: AcceptanceData) -> list[OwnCurve]:
    only_keys(document, document.data, (), ("schema", "curve"))
    entries = document.data.get("curve")
    if not isinstance(entries, list) or not entries:
        raise document.error(("curve",), "holds no curve" if "curve" in document.data else "is missing",
                             "one [[curve]] or more")  # fmt: skip
    curves = [_own(document, entry, ("curve", i), data) for i, entry in enumerate(entries)]
    first: dict[tuple[str, str, str], int] = {}
    for i, curve in enumerate(curves):
        same = first.setdefault((curve.method, curve.model.lower(), curve.task), i)
        if same != i:
            raise document.error(
                ("curve", i), f"is of the same method, model and task as curve[{same}]", "one curve for each"
            )
    return curves


def _own(document: Document, entry: Any, path: Path_, data: AcceptanceData) -> OwnCurve:
    table = only_keys(document, entry, path, (*SAID, *FORMS, "draft_tokens", "drafts"))
    if "method" not in table:
        raise document.error((*path, "method"), "is missing", "one of " + ", ".join(METHODS))
    method = string(document, table, path, "method", choices=METHODS)
    task = string(document, table, path, "task", default="", choices=data.task_factor)
    model = string(document, table, path, "model", default="")
    said = string(document, table, path, "source", default="")
    source = f"{document.name}: {said}" if said else document.name
    tokens, lengths = _lengths(document, table, path)
    return OwnCurve(method, Curve(tokens, lengths, "measured", source), model, task)


def _lengths(document: Document, table: Any, path: Path_) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Draft lengths and the acceptance length at each, [tokens], from whichever form is given."""
    given = [form for form in FORMS if form in table]
    if len(given) != 1:
        problem = f"gives {' and '.join(given)}" if given else "gives no acceptance"
        raise document.error(path, problem, "one of " + ", ".join(FORMS))
    form = given[0]
    for key, goes_with in (("draft_tokens", "acceptance_length"), ("drafts", "accepted_tokens_per_position")):
        if (key in table) != (form == goes_with):
            raise document.error((*path, key), *(("is missing", f"it beside {goes_with}") if form == goes_with else (
                f"goes with {goes_with}, not with {form}",)))  # fmt: skip
    values = _numbers(document, table, (*path, form))
    if form == "acceptance_length":
        return _measured(document, table, path, values)
    if form == "accepted_tokens_per_position":
        drafts = table["drafts"]
        if isinstance(drafts, bool) or not isinstance(drafts, int | float) or not 0 < drafts < 1e18:
            raise document.error((*path, "drafts"), f"is {drafts!r}", "how often was drafted, more than zero")
        values = [v / drafts for v in values]
    for i, value in enumerate(values):
        if not 0 <= value <= 1:
            raise document.error((*path, form, i), f"is a share of {value:g}", "a share of 0 to 1")
    if form == "acceptance":
        values = list(np.cumprod(values))
    elif any(later > earlier * (1 + 1e-9) for earlier, later in pairwise(values)):
        raise document.error((*path, form), "rises with the position",
                             "shares of all drafts, none above the one before; shares given the ones before are "
                             "`acceptance`")  # fmt: skip
    return tuple(float(k) for k in range(1, len(values) + 1)), tuple(float(x) for x in 1 + np.cumsum(values))


def _measured(
    document: Document, table: Any, path: Path_, lengths: list[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    tokens = _numbers(document, table, (*path, "draft_tokens"))
    if len(tokens) != len(lengths):
        problem = f"has {len(lengths)} numbers beside {len(tokens)} in draft_tokens"
        raise document.error((*path, "acceptance_length"), problem, "as many")
    if any(later <= earlier for earlier, later in pairwise([0.0, *tokens])):
        raise document.error((*path, "draft_tokens"), "doesn't rise from 1", "rising draft lengths")
    for i, k in enumerate(tokens):
        if k != int(k) or k > MOST:
            raise document.error((*path, "draft_tokens", i), f"is {k:g}", f"whole draft lengths of 1 to {MOST}")
    for i, (k, length) in enumerate(zip(tokens, lengths, strict=True)):
        if not 1 <= length <= k + 1:
            raise document.error((*path, "acceptance_length", i), f"is {length:g} at {k:g} draft tokens",
                                 f"1 to {k + 1:g} tokens per step, the bonus token included")  # fmt: skip
    return tuple(tokens), tuple(lengths)


def _numbers(document: Document, table: Any, path: Path_) -> list[float]:
    value = table[path[-1]]
    if not isinstance(value, list) or not 0 < len(value) <= MOST:
        raise document.error(path, f"is {value!r}", f"a list of 1 to {MOST} numbers")
    for i, one in enumerate(value):
        if isinstance(one, bool) or not isinstance(one, int | float) or not np.isfinite(one):
            raise document.error((*path, i), f"is {one!r}", "a number")
    return [float(one) for one in value]
