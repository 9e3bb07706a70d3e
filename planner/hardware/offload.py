"""Tiers that hold KV evicted from device memory, read from ``hardware_db/offload.toml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from planner.documents import Document, number, only_keys, read_toml, string
from planner.errors import InputError, nearest
from planner.hardware.accelerator import Accelerator

KINDS = ("datasheet", "measured", "derived", "assumed")
UNITS = {"GB/s": 1e9, "TB/s": 1e12, "MB/s": 1e6, "B/s": 1.0}
SIZES = {"TB": 1e12, "GB": 1e9, "B": 1.0}
#: lanes the host bandwidths are of
LANES = 16


@dataclass(frozen=True)
class OffloadTier:
    """One tier: read ``bandwidth`` per accelerator [B/s], with kind, source and date of the figure.

    ``capacity`` a usual server has of it per accelerator [B], 0 when not known, and its source.
    """

    name: str
    bandwidth: float
    kind: str
    source: str
    date: str
    capacity: float = 0.0
    capacity_source: str = ""


def load_offload(root: Path) -> Mapping[str, OffloadTier]:
    """The tiers of ``root/offload.toml`` by name; InputError with key and line for any mistake.

    Source: each entry names its own.
    """
    return parse_offload(read_toml(root / "offload.toml"))


def parse_offload(document: Document) -> Mapping[str, OffloadTier]:
    """The tiers a document describes, bandwidths in [B/s]; InputError with key and line for any mistake."""
    tiers = {}
    for name, table in document.data.items():
        if name == "schema":
            continue
        tiers[name] = _tier(document, name, table)
    if not tiers:
        raise document.error((), "has no tier", "[name] with a bandwidth")
    return tiers


def _tier(document: Document, name: str, table: Any) -> OffloadTier:
    fields = only_keys(document, table, (name,), ("bandwidth", "capacity"))
    if "bandwidth" not in fields:
        raise document.error((name, "bandwidth"), "is missing", "{ value, unit, kind, source, date }")
    value, fact = _fact(document, fields, (name, "bandwidth"), UNITS)
    size, of_size = _fact(document, fields, (name, "capacity"), SIZES) if "capacity" in fields else (0.0, {})
    return OffloadTier(name, value, fact["kind"], fact["source"], fact["date"], size, of_size.get("source", ""))


def _fact(
    document: Document, fields: Any, path: tuple[str, str], units: Mapping[str, float]
) -> tuple[float, dict[str, str]]:
    fact = only_keys(document, fields[path[1]], path, ("value", "unit", "kind", "source", "date"))
    unit = string(document, fact, path, "unit", choices=units)
    texts = {
        "kind": string(document, fact, path, "kind", choices=KINDS),
        "source": string(document, fact, path, "source"),
        "date": string(document, fact, path, "date"),
    }
    return number(document, fact, path, "value") * units[unit], texts


def tiers_behind(chip: Accelerator, tiers: Mapping[str, OffloadTier]) -> tuple[OffloadTier, ...]:
    """Host memory, then NVMe, as ``chip`` reaches them by its PCIe generation or NVLink-C2C, fastest first.

    None where nobody knows the path. Fewer than 16 lanes have their share of the bandwidth. Source: the
    chip's ``interconnect.pcie`` and ``link``, and the tiers.
    """
    found = re.match(r"([45])\.0(?:.*x(\d+))?", chip.pcie)
    if found is None:
        return ()
    generation, lanes = found.group(1), int(found.group(2) or LANES)
    coherent = "C2C" in chip.pcie or "C2C" in chip.link
    host = tiers.get("host-c2c" if coherent else f"host-pcie{generation}")
    if host is not None and not coherent and lanes < LANES:
        host = replace(host, bandwidth=host.bandwidth * lanes / LANES)
    drive = tiers.get(f"nvme-pcie{generation}")
    return tuple(tier for tier in (host, drive) if tier is not None)


def offload_tier(tiers: Mapping[str, OffloadTier], name: str) -> OffloadTier:
    """One tier by name; InputError with the nearest name. Source: :func:`load_offload`."""
    if name not in tiers:
        raise InputError(
            f"unknown offload tier {name!r}",
            expected="one of " + ", ".join(tiers),
            suggestion=nearest(name, tiers),
        )
    return tiers[name]
