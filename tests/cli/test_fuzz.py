"""Mutated example workloads end in a plan, no plan or one line about the input; never in a bug."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.cli.run import run as run_cli
from planner.workload.examples import example_text, examples

WORKLOADS = {name: tomli.loads(example_text(name)) for name in examples()}
ODD = st.sampled_from([
    None, True, False, 0, 1, -1, 3, 1e-300, 1e-9, 0.5, 1.5, 1e9, 1e300, 2**62, 10**30, -0.0, float("nan"), float("inf"),
    "", " ", "x", "12", "40ms", "2 sceonds", "native", "h100-smx", "a\nb", "\x1b[31m", "é" * 500, "x" * 5000,
    [], [0], [[]], ["x"], [1e300], {}, {"p50": 10}, {"p50": 10, "p95": 5}, {"mean": 1e12}, {"mean": 1, "cv": 20},
])  # fmt: skip
SCALES = st.sampled_from([-1.0, 0.0, 1e-12, 1e-6, 1e-3, 0.1, 0.5, 1.5, 2.0, 10.0, 100.0, 1e3, 1e6])
KINDS = ["delete", "retype", "rename", "capital", "extra"] + 6 * ["scale"]


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key path of a document, tables and entries of lists included."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*here, key)
        yield from paths(entry, (*here, key))


def at(data: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for key in path:
        data = data[key]
    return data


def mutate(data: Any, path: tuple[Any, ...], kind: str, odd: Any, scale: float) -> None:
    """Delete, retype, rename, misplace or scale the value at ``path``."""
    *parents, last = path
    for key in parents:
        data = data[key]
    old = data[last]
    if kind == "scale" and isinstance(old, int | float) and not isinstance(old, bool):
        data[last] = int(old * scale) if isinstance(old, int) and abs(old * scale) < 1e18 else old * scale
    elif kind == "delete":
        del data[last]
    elif kind == "rename" and isinstance(data, dict):
        data[last[:-1] or "X"] = data.pop(last)
    elif kind == "capital" and isinstance(data, dict):
        data[last.title()] = data.pop(last)
    elif kind == "extra" and isinstance(data, dict):
        data["extra"] = odd
    else:
        data[last] = odd


def toml(value: Any) -> str:
    """A value as inline TOML; None becomes an empty text."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(value or "", ensure_ascii=True)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_examples_never_end_in_a_bug(data: st.DataObject) -> None:
    workload = copy.deepcopy(WORKLOADS[data.draw(st.sampled_from(sorted(WORKLOADS)))])
    for _ in range(data.draw(st.integers(1, 2))):
        known = list(paths(workload))
        if known:
            kind = data.draw(st.sampled_from(KINDS))
            if kind == "scale":
                known = [p for p in known if type(at(workload, p)) in (int, float)] or known
            mutate(workload, data.draw(st.sampled_from(known)), kind, copy.deepcopy(data.draw(ODD)), data.draw(SCALES))
    text = "".join(f"{json.dumps(k)} = {toml(v)}\n" for k, v in workload.items())
    out, err = io.StringIO(), io.StringIO()
    arguments = ["planner", "recommend", "-", "--gpus", "h200-sxm", "--top", "0", "--format", "json"]
    code: Any = 0
    with (
        mock.patch.object(sys, "argv", arguments),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            run_cli()
        except SystemExit as stop:
            code = stop.code or 0
    said = err.getvalue()
    assert code in (0, 2, 3), f"{text}\n{said}"
    assert "internal error" not in said
    if code == 0:
        assert said == ""
    else:
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert said.endswith("\n")
        assert len(said) < 1500
    assert bool(out.getvalue()) is (code != 2)
