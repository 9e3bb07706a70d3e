"""Human units at the edges: parsing ``"40ms"`` and printing seconds, bytes and money."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from planner.errors import nearest

DURATIONS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "second": 1.0,
    "seconds": 1.0, "min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0,
    "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
BYTES = {
    "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2.0**10, "MiB": 2.0**20,
    "GiB": 2.0**30, "TiB": 2.0**40,
}  # fmt: skip
#: as vLLM reads them: a small k is a thousand, a capital K 1024
TOKENS = {"": 1.0, "k": 1e3, "K": 1024.0, "m": 1e6, "M": 2.0**20, "tokens": 1.0}
_QUANTITY = re.compile(r"^\s*([0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*([A-Za-zµ/]*)\s*$")


class UnitError(ValueError):
    """Text that is no quantity; ``expected`` and ``suggestion`` say what would be."""

    def __init__(self, problem: str, expected: str, suggestion: str | None = None) -> None:
        super().__init__(problem)
        self.expected = expected
        self.suggestion = suggestion


def _parse(
    value: object, units: Mapping[str, float], bare: float | None, expected: str, least: float, most: float
) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UnitError(f"is {value!r}", expected)
    if isinstance(value, int | float):
        if bare is None:
            raise UnitError(f"is {value!r}, without a unit", expected)
        number, scale = float(value), bare
    else:
        match = _QUANTITY.match(value)
        if not match:
            raise UnitError(f"is {value!r}", expected)
        number, unit = float(match.group(1).replace("_", "")), match.group(2)
        if unit not in units:
            if unit == "" and bare is not None:
                return _inside(number * bare, value, least, most)
            close = nearest(unit, units)
            shown = f"{match.group(1)} {close}" if close else None
            raise UnitError(f"is {value!r}: unknown unit {unit!r}", expected, shown)
        scale = units[unit]
    if not math.isfinite(number):
        raise UnitError(f"is {value!r}", expected)
    return _inside(number * scale, value, least, most)


def _inside(size: float, value: object, least: float, most: float) -> float:
    """``size`` if its magnitude is one the planner can compute with; zero and signs are the caller's."""
    if size and not least <= abs(size) <= most:
        raise UnitError(f"is {value!r}", f"{least:g} to {most:g}")
    return size


def parse_duration(value: object) -> float:
    """Seconds from ``"40ms"``, ``"2s"``, ``"1.5 min"`` or a bare number of seconds, [s].

    UnitError with the nearest unit otherwise.

    >>> parse_duration("40ms"), parse_duration("1.5 min"), parse_duration(2)
    (0.04, 90.0, 2.0)
    """
    return _parse(value, DURATIONS, 1.0, 'a duration as "40ms" or "2s"', 1e-9, 1e10)


def parse_bytes(value: object) -> float:
    """Bytes from ``"80 GB"`` (10^9) or ``"80GiB"`` (2^30), [B]; UnitError otherwise.

    >>> parse_bytes("80 GB"), parse_bytes("1 GiB")
    (80000000000.0, 1073741824.0)
    """
    return _parse(value, BYTES, 1.0, 'a size as "80 GB" or "80GiB"', 1.0, 1e18)


def parse_tokens(value: object) -> float:
    """Tokens from a number or ``"32k"`` (32 000) or ``"32K"`` (32 768), [tokens].

    >>> parse_tokens("32k"), parse_tokens("32K"), parse_tokens(12_000)
    (32000.0, 32768.0, 12000.0)
    """
    return _parse(value, TOKENS, 1.0, 'a number of tokens, as 12000 or "12k"', 1e-3, 1e12)


def format_duration(seconds: float) -> str:
    """Seconds for a person, three significant digits.

    >>> format_duration(0.0123), format_duration(2.5), format_duration(180)
    ('12.3 ms', '2.5 s', '3 min')
    """
    if not math.isfinite(seconds):
        return "never"
    for limit, unit, scale in ((1e-3, "us", 1e6), (1.0, "ms", 1e3), (120.0, "s", 1.0)):
        if seconds < limit:
            return f"{_digits(seconds * scale)} {unit}"
    return f"{_digits(seconds / 60)} min" if seconds < 7200 else f"{_digits(seconds / 3600)} h"


def format_bytes(size: float) -> str:
    """Bytes for a person, powers of ten.

    >>> format_bytes(80e9), format_bytes(131072)
    ('80 GB', '131 KB')
    """
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if abs(size) >= limit:
            return f"{_digits(size / limit)} {unit}"
    return f"{_digits(size)} B"


def format_count(value: float) -> str:
    """A count for a person.

    >>> format_count(671.03e9), format_count(12_500)
    ('671 B', '12.5 k')
    """
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{_digits(value / limit)} {unit}"
    return _digits(value)


def format_money(usd: float) -> str:
    """Dollars for a person.

    >>> format_money(1234.5), format_money(0.0456)
    ('$1,234', '$0.0456')
    """
    if abs(usd) >= 100:
        return f"${usd:,.0f}"
    return f"${usd:.2f}" if abs(usd) >= 1 else f"${usd:.3g}"


def _digits(value: float) -> str:
    text = f"{value:.3g}"
    if "e" in text:
        text = f"{value:.0f}"
    return text
