"""Is the database plausible? Sources, ranges, and vendors' sparse figures passed off as dense."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from planner.errors import InputError
from planner.hardware.accelerator import Accelerator
from planner.hardware.acceptance import load_acceptance
from planner.hardware.database import Database
from planner.hardware.intervals import FILES as INTERVALS
from planner.hardware.intervals import load_intervals
from planner.hardware.offload import load_offload
from planner.hardware.transfer import load_transfer

#: bf16 FLOP per byte of memory traffic of parts people serve with
RIDGE = (20.0, 700.0)
PRICE = (0.05, 40.0)  # $ per accelerator-hour of a list price
#: narrower formats double the dense rate, at most; more smells of structured sparsity
STEPS = (
    ("bf16", "fp8", 2.2), ("fp8", "fp4", 4.2), ("bf16", "int8", 2.2), ("fp8", "fp6", 2.2), ("bf16", "fp6", 4.4),
    ("bf16", "fp4", 8.4),
)  # fmt: skip
#: [B/s] of memory one can plan with, [W] of one accelerator, all-reduce bus over link bandwidth (NVLS beats 1)
BANDWIDTH = (50e9, 60e12)
POWER = (5.0, 30e3)
BUS_SHARE = 1.6
#: an overlay's peak over the bundled one of the same part that smells of structured sparsity
DOUBLED = (1.9, 2.1)
#: dense compute per byte of bandwidth varies less than this inside one architecture
SIBLING_SPREAD = 1.6


@dataclass(frozen=True)
class Problem:
    """One finding: file, key, what is wrong, and whether it is an error or a warning."""

    file: str
    key: str
    message: str
    severity: str = "error"


def check_database(database: Database) -> list[Problem]:
    """All problems of the database: unreadable files, missing sources, implausible figures.

    Figures compared in SI: [FLOP/s], [B/s], [FLOP/B], [$/h]. Source of the rules: the datasheets.
    """
    try:
        chips = database.accelerators
        prices = database.prices.rows
        # read too, so that a mistake in them is found here
        _ = (database.engines, database.defaults, database.assumptions, database.power)
        _ = (load_acceptance(), load_offload(database.root))
        _ = (load_transfer(database.root), *(load_intervals(database.root, name) for name in INTERVALS))
    except InputError as error:
        return [Problem(error.file or "", error.key or "", str(error))]
    problems: list[Problem] = []
    for chip in chips.values():
        problems += _sources(chip)
        problems += _peaks(chip)
        problems += _ranges(chip)
        problems += _reduces(chip)
        problems += _doubled(chip, database)
        problems += _incomplete(chip, database)
    problems += _siblings(list(chips.values()))
    problems += _names(list(chips.values()))
    for price in prices:
        if price.accelerator not in chips:
            problems.append(Problem("prices", price.accelerator, f"{price.provider} prices an unknown accelerator"))
        if price.kind == "list" and not PRICE[0] <= price.usd_per_gpu_hour <= PRICE[1]:
            problems.append(
                Problem(
                    "prices",
                    price.accelerator,
                    f"${price.usd_per_gpu_hour:g} per hour from {price.provider} is implausible",
                )
            )
        if _in_future(price.as_of):
            problems.append(Problem("prices", price.accelerator, f"as of {price.as_of}, in the future"))
    return problems


def _sources(chip: Accelerator) -> Iterator[Problem]:
    keys = {key for key, _, _ in chip.sources}
    for path, fact in chip.facts.items():
        if fact.source not in keys:
            yield Problem(chip.file, path, f"source {fact.source!r} is not listed in [[sources]]")
    for operator, formats in chip.achieved.items():
        for fmt, engines in formats.items():
            for engine, e in engines.items():
                path = f"achieved.{operator}.{fmt}.{engine}"
                if e.source not in keys:
                    yield Problem(chip.file, path, f"source {e.source!r} is not listed in [[sources]]")
    for engine, sizes in chip.all_reduces.items():
        for ranks, reduce in sizes.items():
            if reduce.source not in keys:
                path = f"achieved.all_reduce.{engine}.{ranks}"
                yield Problem(chip.file, path, f"source {reduce.source!r} is not listed in [[sources]]")
    for key, citation, retrieved in chip.sources:
        if not citation.strip():
            yield Problem(chip.file, f"sources.{key}", "has no citation")
        if _in_future(retrieved):
            yield Problem(chip.file, f"sources.{key}", f"retrieved {retrieved}, in the future")


def _in_future(text: str) -> bool:
    match = re.match(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", text)
    if not match:
        return False
    year, month, day = (int(part) if part else 1 for part in match.groups())
    try:
        return datetime.date(year, month, day) > datetime.date.today()
    except ValueError:  # "2025-26": a span of years, not a date
        return year > datetime.date.today().year


def _peaks(chip: Accelerator) -> Iterator[Problem]:
    for wide, narrow, most in STEPS:
        a, b = chip.peak(wide), chip.peak(narrow)
        if (wide, narrow) == ("bf16", "fp4") and chip.peak("fp8"):
            continue  # held against fp8 instead
        if a and b and b / a > most and not _explained(chip, narrow):
            yield Problem(
                chip.file, f"compute.{narrow}",
                f"{b / a:.1f} times {wide}: a sparse peak given as dense?",
            )  # fmt: skip
    tensor, vector = chip.peak("tf32"), chip.peak("bf16")
    if tensor and vector and vector / tensor > 2.2 and not _explained(chip, "bf16"):
        yield Problem(chip.file, "compute.bf16", f"{vector / tensor:.1f} times tf32: a sparse peak given as dense?")


def _explained(chip: Accelerator, compute_format: str) -> bool:
    """Whether the fact's own note says that the figure is dense, and why."""
    fact = chip.fact(f"compute.{compute_format}")
    return fact is not None and fact.note.startswith("dense:")


def _ranges(chip: Accelerator) -> Iterator[Problem]:
    ridge = chip.ridge_point("bf16")
    if ridge is not None and chip.memory_bytes > 4e9 and not RIDGE[0] <= ridge <= RIDGE[1]:
        yield Problem(
            chip.file, "compute.bf16",
            f"ridge point of {ridge:.0f} FLOP/B is outside {RIDGE[0]:g} to {RIDGE[1]:g}: unit, or a sparse peak?",
        )  # fmt: skip
    usable, label = chip.fact("memory.usable"), chip.fact("memory.capacity")
    if usable and label and not 0.85 <= usable.value / label.value <= 1.1:
        yield Problem(chip.file, "memory.usable", f"{usable.value / label.value:.2f} of the label's capacity")

    for path, value, (least, most), unit in (
        ("memory.bandwidth", chip.bandwidth if chip.memory_bytes > 4e9 else 0.0, BANDWIDTH, "B/s"),
        ("power.tdp", chip.tdp_w, POWER, "W"),
    ):
        if value and not least <= value <= most:
            yield Problem(chip.file, path, f"{value:.3g} {unit} is outside {least:.3g} to {most:.3g}: the unit?")


def _reduces(chip: Accelerator) -> Iterator[Problem]:
    """All-reduce constants faster than the links they run over."""
    for engine, sizes in chip.all_reduces.items():
        for ranks, reduce in sizes.items():
            bus = reduce.bandwidth * 2 * (ranks - 1) / ranks
            if bus > BUS_SHARE * chip.scale_up_bandwidth:
                yield Problem(
                    chip.file, f"achieved.all_reduce.{engine}.{ranks}",
                    f"moves {bus / 1e9:.0f} GB/s, its links {chip.scale_up_bandwidth / 1e9:.0f}: bits or bytes?",
                )  # fmt: skip


def _incomplete(chip: Accelerator, database: Database) -> Iterator[Problem]:
    """A part of the user's own that no plan can use; the bundled ones of the kind are known."""
    if chip.missing and not Path(chip.file).is_relative_to(database.root):
        yield Problem(chip.file, "memory", f"no plan can use the part: it lacks {chip.missing}", "warning")


def _doubled(chip: Accelerator, database: Database) -> Iterator[Problem]:
    """An overlay's peak that is twice the bundled figure of the part it replaces."""
    bundled = database.bundled(chip.name)
    if bundled is None or bundled.file == chip.file:
        return
    for path in chip.facts:
        before, after = bundled.fact(path), chip.fact(path)
        if not path.startswith("compute.") or before is None or after is None:
            continue
        if DOUBLED[0] <= after.value / before.value <= DOUBLED[1] and not _explained(chip, path.split(".")[1]):
            yield Problem(
                chip.file, path,
                f"twice the bundled {before.value / 1e12:g} TFLOP/s of {chip.name}: a sparse peak given as dense?",
            )  # fmt: skip


def _siblings(chips: list[Accelerator]) -> Iterator[Problem]:
    """A peak far above every other part of the same architecture, per unit of its other peaks."""
    families: dict[str, list[Accelerator]] = {}
    for chip in chips:
        families.setdefault(re.sub(r".*\(|\).*", "", chip.architecture), []).append(chip)
    for family in families.values():
        for wide, narrow in (("fp32", "bf16"), ("fp32", "fp8"), ("tf32", "bf16")):
            ratios = {c.name: c.peak(narrow) / c.peak(wide) for c in family if c.peak(wide) and c.peak(narrow)}  # type: ignore[operator]
            if len(ratios) < 3:
                continue
            middle = median(ratios.values())
            for chip in family:
                high = ratios.get(chip.name, 0) > SIBLING_SPREAD * middle
                if high and not _explained(chip, narrow):
                    yield Problem(
                        chip.file, f"compute.{narrow}",
                        f"{ratios[chip.name] / middle:.1f} times its siblings' ratio to {wide}: "
                        "a sparse peak given as dense?",
                        "warning",
                    )  # fmt: skip


def _names(chips: list[Accelerator]) -> Iterator[Problem]:
    owner: dict[str, str] = {}
    for chip in chips:
        for name in {chip.name, *chip.aliases}:
            other = owner.setdefault(name.lower(), chip.name)
            if other != chip.name:
                yield Problem(chip.file, "aliases", f"{name!r} also names {other}")
