"""What moving a KV cache between replicas costs besides its bytes, read from ``hardware_db/transfer.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from planner.documents import Document, number, only_keys, read_toml, string

KINDS = ("measured", "derived", "assumed")
UNITS = {"efficiency": {"1": 1.0, "%": 0.01}, "latency": {"s": 1.0, "ms": 1e-3, "us": 1e-6}}


@dataclass(frozen=True)
class KvTransfer:
    """``efficiency`` share of the links' bandwidth a transfer reaches [1], ``latency_s`` of each besides [s].

    ``sources``: where each is from, by name.
    """

    efficiency: float
    latency_s: float
    sources: tuple[tuple[str, str], ...] = ()


@lru_cache(maxsize=8)
def load_transfer(root: Path) -> KvTransfer:
    """The constants of ``root/transfer.toml``; InputError with key and line for any mistake.

    Source: each entry names its own.
    """
    return parse_transfer(read_toml(root / "transfer.toml"))


def parse_transfer(document: Document) -> KvTransfer:
    """The constants a document holds, [1] and [s]; InputError with key and line for any mistake."""
    only_keys(document, document.data, (), ("schema", *UNITS))
    found = {name: _constant(document, name) for name in UNITS}
    efficiency, latency = found["efficiency"][0], found["latency"][0]
    if not 0 < efficiency <= 1:
        raise document.error(("efficiency", "value"), f"is {efficiency:g}", "above 0, at most 1")
    return KvTransfer(efficiency, latency, tuple((name, source) for name, (_, source) in found.items()))


def _constant(document: Document, name: str) -> tuple[float, str]:
    if name not in document.data:
        raise document.error((name,), "is missing", "{ value, unit, kind, source, date }")
    fact: Any = only_keys(document, document.data[name], (name,), ("value", "unit", "kind", "source", "date"))
    units = UNITS[name]
    unit = string(document, fact, (name,), "unit", choices=units)
    string(document, fact, (name,), "kind", choices=KINDS)
    string(document, fact, (name,), "date")
    value = number(document, fact, (name,), "value") * units[unit]
    return value, string(document, fact, (name,), "source")
