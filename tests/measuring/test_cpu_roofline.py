"""The recorded comparison of a transformer on one thread with the planner's step, and what the guide says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import commented_csv
from bench.cpu_roofline import BATCHES, CEILINGS, CONTEXTS, FLOOR, PROMPTS, read, summary

GUIDE = Path(__file__).resolve().parent.parent.parent / "docs" / "guides" / "measure.md"


def test_every_point_is_there() -> None:
    points = [(p.kind, p.batch, p.context) for p in read()]
    wanted = {("decode", b, s) for b in BATCHES for s in CONTEXTS} | {("prefill", 1, s) for s in PROMPTS}
    assert set(points) == wanted
    assert len(points) == len(wanted)


def test_no_point_is_faster_than_its_bound() -> None:
    for p in read():
        assert p.seconds >= FLOOR * p.bound, p
        assert p.seconds >= FLOOR * p.bound_numpy, p
        assert p.predicted >= p.bound * 0.999, p


def test_ceilings_are_recorded() -> None:
    rows = commented_csv.rows(CEILINGS)
    assert {r["kernels"] for r in rows} == {"torch", "numpy"}
    assert all(float(r["best"]) > 0 and int(r["repetitions"]) >= 3 for r in rows)


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_the_guide_says_what_the_file_says(kind: str) -> None:
    found = summary([p for p in read() if p.kind == kind])
    row = re.search(rf"^\| {kind} \|(.*)\|$", GUIDE.read_text(encoding="utf-8"), re.M)
    assert row is not None
    said = [cell.strip() for cell in row.group(1).split("|")]
    keys = ("mape", "bias", "rank", "lowest", "mape_numpy", "rank_numpy", "lowest_numpy")
    shown = {"mape": "{:.0%}", "bias": "{:+.0%}", "rank": "{:.3f}", "lowest": "{:.2f}"}
    assert said[1:] == [shown[k.removesuffix("_numpy")].format(found[k]) for k in keys]
