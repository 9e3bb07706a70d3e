"""Tiers that hold KV evicted from device memory, read from ``hardware_db/offload.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.documents import Document, number, only_keys, read_toml, string
from planner.errors import InputError, nearest

KINDS = ("datasheet", "measured", "derived", "assumed")
UNITS = {"GB/s": 1e9, "TB/s": 1e12, "MB/s": 1e6, "B/s": 1.0}


@dataclass(frozen=True)
class OffloadTier:
    """One tier: read ``bandwidth`` per accelerator [B/s], with kind, source and date of the figure."""

    name: str
    bandwidth: float
    kind: str
    source: str
    date: str


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
    fields = only_keys(document, table, (name,), ("bandwidth",))
    if "bandwidth" not in fields:
        raise document.error((name, "bandwidth"), "is missing", "{ value, unit, kind, source, date }")
    path = (name, "bandwidth")
    fact = only_keys(document, fields["bandwidth"], path, ("value", "unit", "kind", "source", "date"))
    unit = string(document, fact, path, "unit", choices=UNITS)
    return OffloadTier(
        name,
        number(document, fact, path, "value") * UNITS[unit],
        string(document, fact, path, "kind", choices=KINDS),
        string(document, fact, path, "source"),
        string(document, fact, path, "date"),
    )


def offload_tier(tiers: Mapping[str, OffloadTier], name: str) -> OffloadTier:
    """One tier by name; InputError with the nearest name. Source: :func:`load_offload`."""
    if name not in tiers:
        raise InputError(
            f"unknown offload tier {name!r}",
            expected="one of " + ", ".join(tiers),
            suggestion=nearest(name, tiers),
        )
    return tiers[name]
