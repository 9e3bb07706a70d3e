"""Planning constants that belong to no chip or engine, read from ``hardware_db/assumptions.toml``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import tomli

from planner.errors import InputError


@dataclass(frozen=True)
class Assumptions:
    """Factors the formulae need; each has its source and kind in the file.

    ``expert_imbalance`` hottest expert rank over the mean [1]; ``attention_skew`` slowest attention
    rank over the mean [1]; ``draft_independence`` share of draft tokens that route on their own [1];
    ``kv_tail`` standard deviations of KV headroom [1]; ``utilisation_limit`` highest planned share of
    the stable rate [1]; ``hours_per_month`` [h].
    """

    expert_imbalance: float
    attention_skew: float
    draft_independence: float
    kv_tail: float
    utilisation_limit: float
    hours_per_month: float


@lru_cache(maxsize=8)
def load_assumptions(root: Path) -> Assumptions:
    """The constants of ``root/assumptions.toml``; InputError when one is missing or not a number.

    Source: each entry names its own.
    """
    path = root / "assumptions.toml"
    data = tomli.loads(path.read_text(encoding="utf-8"))
    values: dict[str, float] = {}
    for field in fields(Assumptions):
        entry = data.get(field.name, {})
        if not isinstance(entry, dict) or not isinstance(entry.get("value"), int | float):
            raise InputError("missing or not a number", file=str(path), key=field.name, expected="{ value = … }")
        values[field.name] = float(entry["value"])
    return Assumptions(**values)
