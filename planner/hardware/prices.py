"""Prices per accelerator-hour: rows of provider, term and date, and the rule that picks one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.documents import Document, number, only_keys, string, words
from planner.errors import InputError, nearest

#: a provider's list, somebody's cost model, or an unsourced default
KINDS = ("list", "model", "default")
TERMS = ("on-demand", "spot", "reserved", "owning TCO", "3yr rental", "default", "user")


@dataclass(frozen=True)
class Price:
    """One row: [$/h] of one accelerator, whose, under which term and as of when."""

    accelerator: str
    usd_per_gpu_hour: float
    provider: str
    term: str
    as_of: str
    source: str
    instance: str = ""
    region: str = ""
    gpus: int = 1
    kind: str = "list"
    note: str = ""

    @property
    def label(self) -> str:
        """Provider, instance, term and date in one line. Source: the row."""
        what = f"{self.provider} {self.instance}".strip()
        return f"{what}, {self.term}, {self.as_of}"


def parse_prices(document: Document) -> list[Price]:
    """The rows of one provider's file, [$/h]; InputError for any mistake. Source: in each row."""
    data = document.data
    only_keys(document, data, (), ("schema", "provider", "kind", "prices"))
    provider = words(document, data, (), "provider")
    kind = string(document, data, (), "kind", default="list", choices=KINDS)
    listed = data.get("prices", [])
    if not isinstance(listed, list) or not listed:
        raise document.error(("prices",), "has no rows", "[[prices]] tables")
    rows = [_row(document, entry, i, provider, kind) for i, entry in enumerate(listed)]
    first: dict[tuple[object, ...], int] = {}
    for i, row in enumerate(rows):
        same = first.setdefault((row.accelerator, row.instance, row.gpus, row.term, row.region), i)
        if same != i:
            raise document.error(
                ("prices", i), f"prices {row.accelerator} again, after prices[{same}]",
                "one price for each instance, term and region",
            )  # fmt: skip
    return rows


def _row(document: Document, entry: Any, i: int, provider: str, kind: str) -> Price:
    path = ("prices", i)
    only_keys(
        document, entry, path,
        ("accelerator", "instance", "gpus", "usd_per_gpu_hour", "term", "region", "as_of", "source", "note"),
    )  # fmt: skip
    return Price(
        string(document, entry, path, "accelerator"),
        number(document, entry, path, "usd_per_gpu_hour", upper=1000),
        provider,
        string(document, entry, path, "term", default="on-demand", choices=TERMS),
        words(document, entry, path, "as_of"),
        words(document, entry, path, "source"),
        string(document, entry, path, "instance", default=""),
        string(document, entry, path, "region", default=""),
        _whole(document, entry, path, "gpus"),
        kind,
        string(document, entry, path, "note", default=""),
    )


def _whole(document: Document, entry: Mapping[str, Any], path: tuple[str | int, ...], key: str) -> int:
    value = number(document, entry, path, key, default=1)
    if value != int(value):
        raise document.error((*path, key), f"is {value:g}", "a whole number")
    return int(value)


@dataclass(frozen=True)
class PriceBook:
    """All rows known, in the order they were read."""

    rows: tuple[Price, ...]

    def of(self, accelerator: str) -> tuple[Price, ...]:
        """Rows of one accelerator, cheapest first, [$/h]. Source: the rows."""
        mine = [r for r in self.rows if r.accelerator == accelerator]
        return tuple(sorted(mine, key=lambda r: (r.usd_per_gpu_hour, r.provider, r.instance)))

    def price(self, accelerator: str, providers: Sequence[str] = (), term: str = "on-demand") -> Price | None:
        """The row a plan uses, [$/h]: the lower median under ``term``, one price per provider.

        ``providers`` restricts whose. Terms are never mixed: rental and ownership models are used
        only when asked for by name. None when nobody offers the part so. Source: the row chosen.
        """
        wanted = [p.lower() for p in providers]
        best: dict[str, Price] = {}
        for row in self.of(accelerator):
            if row.term == term and (not wanted or row.provider.lower() in wanted):
                best.setdefault(row.provider, row)
        ranked = sorted(best.values(), key=lambda r: r.usd_per_gpu_hour)
        return ranked[(len(ranked) - 1) // 2] if ranked else None

    def check_providers(self, providers: Sequence[str]) -> None:
        """Raise InputError for a provider no row names, with the nearest one that exists."""
        known = {r.provider.lower(): r.provider for r in self.rows}
        for name in providers:
            if name.lower() not in known:
                raise InputError(
                    f"no prices from {name!r}",
                    key="hardware.providers",
                    expected="one of " + ", ".join(sorted(known.values())),
                    suggestion=nearest(name, known.values()),
                )


def user_price(accelerator: str, usd: float) -> Price:
    """A price the user gave, [$/h]. Source: the user."""
    return Price(accelerator, usd, "user", "user", "today", "--price or the workload file", kind="list")


def parse_price_options(options: Sequence[str]) -> Mapping[str, float]:
    """``name=usd`` settings as a mapping to [$/h]; InputError when malformed or not positive.

    >>> parse_price_options(["h100-sxm=2.49"])
    {'h100-sxm': 2.49}
    """
    found: dict[str, float] = {}
    for option in options:
        name, _, value = option.partition("=")
        try:
            usd = float(value)
        except ValueError:
            usd = -1.0
        if not name or not 0 < usd < 10_000:
            raise InputError(
                f"{option!r} is not a price", key="--price", expected="name=usd-per-hour, as h100-sxm=2.49"
            )
        found[name.strip()] = usd
    return found
