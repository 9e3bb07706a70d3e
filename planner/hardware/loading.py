"""From an accelerator's TOML file to :class:`Accelerator`; every mistake is one InputError."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from planner.documents import Document, number, only_keys, string
from planner.errors import nearest
from planner.hardware.accelerator import Accelerator, AllReduce, Defaults, Efficiency, Fact
from planner.models.formats import FORMATS

SCHEMA_VERSION = 1
REDUCERS = ("vllm", "sglang", "trtllm", "nccl", "generic")
KINDS = ("datasheet", "measured", "derived")
UNITS = {
    "GB": 1e9, "MB": 1e6, "KB": 1e3, "TB": 1e12, "GiB": 2.0**30, "MiB": 2.0**20, "B": 1.0,
    "GB/s": 1e9, "TB/s": 1e12, "PB/s": 1e15, "MB/s": 1e6, "B/s": 1.0,
    "TFLOP/s": 1e12, "PFLOP/s": 1e15, "GFLOP/s": 1e9, "FLOP/s": 1.0,
    "W": 1.0, "kW": 1e3, "accelerators": 1.0,
}  # fmt: skip
#: section -> key -> units it may be given in
SCHEMA: dict[str, dict[str, tuple[str, ...]]] = {
    "memory": {
        "capacity": ("GB", "GiB", "MB", "MiB", "TB"),
        "usable": ("MiB", "GiB", "GB", "B"),
        "bandwidth": ("GB/s", "TB/s", "PB/s"),
        "on_chip": ("MB", "MiB", "GB", "KB"),
    },
    "compute": dict.fromkeys(("fp32", "tf32", "bf16", "fp8", "fp6", "fp4", "int8"), ("TFLOP/s", "PFLOP/s", "GFLOP/s")),
    "interconnect": {
        "domain": ("accelerators",),
        "scale_up": ("GB/s", "TB/s"),
        "per_pair": ("GB/s",),
        "scale_out": ("GB/s",),
    },
    "power": {"tdp": ("W", "kW")},
}
TEXTS = {"memory": ("type",), "interconnect": ("link", "pcie")}
TOP = (
    "schema", "name", "vendor", "architecture", "released", "status", "availability", "confidence",
    "aliases", "note", "memory", "compute", "interconnect", "power", "achieved", "sources",
)  # fmt: skip
OPERATORS = (
    "matmul", "experts", "decode_attention", "prefill_attention", "latent_attention",
    "sparse_attention", "indexer", "block_sparse_attention", "block_indexer",
    "compressed_indexer",
)  # fmt: skip
EFFICIENCY_KEYS = (
    "compute", "memory", "latency_us", "half_tokens", "activation", "residual", "points", "kind", "source", "note",
)  # fmt: skip


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LARGEST = 1e9  # of any fact in the unit it is given in


def parse_accelerator(document: Document, defaults: Defaults) -> Accelerator:
    """The accelerator a document describes; InputError with key and line for any mistake.

    Values come out in SI: [B], [B/s], [FLOP/s], [W], [s]. Source: the document's own.
    """
    data = document.data
    only_keys(document, data, (), TOP)
    name = string(document, data, (), "name")
    if not _NAME.fullmatch(name):
        raise document.error(("name",), f"is {name!r}", "letters, digits, dots and dashes, as h100-sxm")
    facts: dict[str, Fact] = {}
    for section, keys in SCHEMA.items():
        table = data.get(section, {})
        only_keys(document, table, (section,), [*keys, *TEXTS.get(section, ())])
        for key, units in keys.items():
            if key in table:
                facts[f"{section}.{key}"] = _fact(document, table, section, key, units)
    aliases = data.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(a, str) for a in aliases):
        raise document.error(("aliases",), f"is {aliases!r}", "a list of names")
    achieved, reduces = _achieved(document)
    if data.get("schema", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise document.error(("schema",), f"is {data['schema']!r}", f"{SCHEMA_VERSION}, the one this version reads")
    released = data.get("released")
    if released is not None and (not isinstance(released, int) or not 1990 <= released <= 2100):
        raise document.error(("released",), f"is {released!r}", "a year, as 2024")
    return Accelerator(
        name=name,
        vendor=string(document, data, (), "vendor"),
        architecture=string(document, data, (), "architecture", default=""),
        status=string(document, data, (), "status", default="available",
                      choices=("available", "announced")),
        facts=facts,
        achieved=achieved,
        all_reduces=reduces,
        defaults=defaults,
        released=released,
        aliases=tuple(aliases),
        link=string(document, data.get("interconnect", {}), ("interconnect",), "link", default=""),
        pcie=string(document, data.get("interconnect", {}), ("interconnect",), "pcie", default=""),
        memory_type=string(document, data.get("memory", {}), ("memory",), "type", default=""),
        confidence=string(document, data, (), "confidence", default=""),
        note=string(document, data, (), "note", default=""),
        sources=_sources(document),
        file=document.name,
    )  # fmt: skip


def _fact(document: Document, table: Mapping[str, Any], section: str, key: str, units: tuple[str, ...]) -> Fact:
    path = (section, key)
    entry = table[key]
    if not isinstance(entry, dict):
        raise document.error(path, f"is {entry!r}", "{ value = …, unit = …, kind = …, source = … }")
    only_keys(document, entry, path, ("value", "unit", "kind", "source", "note", "date"))
    unit = string(document, entry, path, "unit")
    if unit not in units:
        raise document.error((*path, "unit"), f"is {unit!r}", "one of " + ", ".join(units), nearest(unit, units))
    value = number(document, entry, path, "value", upper=LARGEST) * UNITS[unit]
    if unit == "accelerators" and value != int(value):
        raise document.error((*path, "value"), f"is {value:g}", "a whole number")
    kind = string(document, entry, path, "kind", choices=KINDS)
    source = string(document, entry, path, "source")
    return Fact(value, unit, kind, source, string(document, entry, path, "note", default=""))


def _sources(document: Document) -> tuple[tuple[str, str, str], ...]:
    listed = document.data.get("sources", [])
    if not isinstance(listed, list):
        raise document.error(("sources",), "is not an array of tables", "[[sources]]")
    found = []
    for i, entry in enumerate(listed):
        path = ("sources", i)
        only_keys(document, entry, path, ("key", "citation", "retrieved"))
        found.append(
            (
                string(document, entry, path, "key"),
                string(document, entry, path, "citation"),
                _date(document, entry, path),
            )
        )
    return tuple(found)


def _date(document: Document, entry: Mapping[str, Any], path: tuple[str | int, ...]) -> str:
    text = string(document, entry, path, "retrieved")
    if not re.match(r"(19|20)\d\d(-|$)", text):
        raise document.error((*path, "retrieved"), f"is {text!r}", "a date, as 2026-08-21")
    return text


def parse_efficiency(document: Document, table: Any, path: tuple[str, ...]) -> Efficiency:
    """One efficiency table: shares in (0, 1], latency in microseconds; InputError otherwise.

    Comes out as [1], [1], [s]; 0 where the table leaves a share to the default. Source: its own.
    """
    only_keys(document, table, path, EFFICIENCY_KEYS)

    def share(key: str) -> float:
        return number(document, table, path, key, upper=1.0) if key in table else 0.0

    latency = -1.0
    if "latency_us" in table:
        latency = number(document, table, path, "latency_us", positive=False) * 1e-6
    residual = None
    if "residual" in table:
        residual = number(document, table, path, "residual", positive=False)
    return Efficiency(
        share("compute"),
        share("memory"),
        latency,
        number(document, table, path, "half_tokens", positive=False, default=0.0),
        number(document, table, path, "activation", positive=False) if "activation" in table else -1.0,
        residual,
        string(document, table, path, "kind", choices=KINDS),
        string(document, table, path, "source"),
    )


def _achieved(
    document: Document,
) -> tuple[dict[str, dict[str, dict[str, Efficiency]]], dict[str, dict[int, AllReduce]]]:
    table = document.data.get("achieved", {})
    only_keys(document, table, ("achieved",), (*OPERATORS, "all_reduce"))
    found: dict[str, dict[str, dict[str, Efficiency]]] = {}
    for operator in OPERATORS:
        formats = table.get(operator, {})
        only_keys(document, formats, ("achieved", operator), formats)
        for fmt, engines in formats.items():
            path: tuple[str, ...] = ("achieved", operator, fmt)
            if fmt not in FORMATS:
                raise document.error(path, "unknown format", "one of " + ", ".join(FORMATS), nearest(fmt, FORMATS))
            only_keys(document, engines, path, ("vllm", "sglang", "trtllm", "generic"))
            for engine, entry in engines.items():
                parsed = parse_efficiency(document, entry, (*path, engine))
                found.setdefault(operator, {}).setdefault(fmt, {})[engine] = parsed
    return found, _all_reduces(document, table.get("all_reduce", {}))


def _all_reduces(document: Document, table: Any) -> dict[str, dict[int, AllReduce]]:
    found: dict[str, dict[int, AllReduce]] = {}
    if not isinstance(table, dict):
        raise document.error(("achieved", "all_reduce"), f"is {table!r}", "a table per engine")
    for engine, sizes in table.items():
        path: tuple[str, ...] = ("achieved", "all_reduce", engine)
        if engine not in REDUCERS:
            raise document.error(path, "unknown library", "one of " + ", ".join(REDUCERS), nearest(engine, REDUCERS))
        if not isinstance(sizes, dict):
            raise document.error(path, f"is {sizes!r}", "a table per group size")
        for ranks, entry in sizes.items():
            here = (*path, ranks)
            if not (ranks.isascii() and ranks.isdigit() and int(ranks) >= 2):
                raise document.error(here, "is not a group size", "a number of ranks, as 8")
            keys = ("latency_us", "bandwidth_gbs", "residual", "points", "kind", "source")
            only_keys(document, entry, here, keys)
            residual = number(document, entry, here, "residual", positive=False, default=0.0)
            found.setdefault(engine, {})[int(ranks)] = AllReduce(
                number(document, entry, here, "latency_us") * 1e-6,
                number(document, entry, here, "bandwidth_gbs") * 1e9,
                string(document, entry, here, "kind", choices=KINDS),
                string(document, entry, here, "source"),
                residual or None,
            )
    return found


def parse_defaults(document: Document) -> Defaults:
    """The fallback efficiencies and link constants; InputError for any mistake. Source: in it."""
    data = document.data
    only_keys(document, data, (), ("schema", "achieved", "vendor", "all_reduce", "all_to_all"))

    def operators(table: Any, path: tuple[str, ...]) -> dict[str, dict[str, Efficiency]]:
        return {
            operator: {fmt: parse_efficiency(document, entry, (*path, operator, fmt)) for fmt, entry in formats.items()}
            for operator, formats in table.items()
        }

    vendors = {vendor: operators(table, ("vendor", vendor)) for vendor, table in data.get("vendor", {}).items()}
    return Defaults(
        operators(data.get("achieved", {}), ("achieved",)),
        vendors,
        data["all_reduce"],
        data["all_to_all"],
    )
