"""Inference engines as data: memory rules, overheads, scheduling defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planner.documents import Document, number, only_keys, string

LARGE = 70 * 2**30  # bytes of device memory from which vLLM raises its defaults
HUGE = 160 * 2**30
NUMBERS = {
    "memory": ("fraction", "block_tokens", "graphs", "collectives", "reserve", "activation_factor",
               "activation_tp1", "activation_tp2", "activation_tp4"),
    "overhead": ("step", "layer", "prefill_layer", "sequence", "request", "verified_token"),
    "schedule": ("max_sequences_large", "max_sequences_small", "batched_tokens_huge",
                 "batched_tokens_large", "batched_tokens_small"),
}  # fmt: skip
#: what an engine's file may leave out: nothing is added for it
ABSENT = ("overhead.layer", "overhead.prefill_layer")


#: what is true or false
FLAGS = {"schedule": ("mixed_steps",)}


@dataclass(frozen=True)
class Engine:
    """One engine's defaults; ``values`` by ``section.key`` in SI.

    ``mixed_steps``: whether a step that prefills prompts also decodes. ``family``: whose kernels it runs; a
    generation of an engine has another's. ``until``: last version a generation stands for, "" for the newest.
    """

    name: str
    version: str
    title: str
    memory_semantics: str
    hybrid_kv_manager: bool
    mixed_steps: bool
    values: Mapping[str, float]
    sources: Mapping[str, str]
    family: str = ""
    until: str = ""

    def covers(self, version: str) -> bool:
        """Whether a version belongs to this generation, by its first two numbers; the newest covers any.

        Source: definition.
        """
        return not self.until or (0, 0) < _version(version) <= _version(self.until)

    @property
    def label(self) -> str:
        """Name and version, as plans print it. Source: the file."""
        return f"{self.title} {self.version}".replace(" -", "")

    @property
    def memory_fraction(self) -> float:
        """Share of memory the engine takes, [1]. Source: the file."""
        return self.values["memory.fraction"]

    @property
    def step_overhead_s(self) -> float:
        """Host time per step, [s]. Source: the file."""
        return self.values["overhead.step"]

    @property
    def layer_overhead_s(self) -> float:
        """Small kernels of a layer in every step, [s]. Source: the file."""
        return self.values["overhead.layer"]

    @property
    def prefill_layer_overhead_s(self) -> float:
        """More of them in a step with prompts, which runs without a captured graph, [s]. Source: the file."""
        return self.values["overhead.prefill_layer"]

    @property
    def per_sequence_overhead_s(self) -> float:
        """Host time per sequence and step, [s]. Source: the file."""
        return self.values["overhead.sequence"]

    @property
    def request_overhead_s(self) -> float:
        """Time from arrival to the queue, [s]. Source: the file."""
        return self.values["overhead.request"]

    @property
    def speculation_token_overhead_s(self) -> float:
        """Sampling and rejection per verified token, [s]. Source: the file."""
        return self.values["overhead.verified_token"]

    @property
    def block_tokens(self) -> int:
        """Tokens per page of the cache, [tokens]. Source: the file."""
        return int(self.values["memory.block_tokens"])

    @property
    def graph_bytes(self) -> float:
        """Captured graphs and the fixed reserve, [B]. Source: the file."""
        return self.values["memory.graphs"] + self.values["memory.reserve"]

    def collective_bytes(self, ranks: int) -> float:
        """Communication buffers of ``ranks`` accelerators, [B]: none for one. Source: the file."""
        return self.values["memory.collectives"] if ranks > 1 else 0.0

    def activation_bytes(self, tokens: float, width: float, tensor_parallel: int) -> float:
        """Peak activations of a step of ``tokens`` [tokens], ``width`` [elements], [B].

        ``factor * tokens * width * c(tp)``. Source: ai-dynamo/aiconfigurator base_backend.py.
        """
        size = 1 if tensor_parallel < 2 else 2 if tensor_parallel < 4 else 4
        c = self.values[f"memory.activation_tp{size}"]
        return self.values["memory.activation_factor"] * tokens * width * c

    def max_num_seqs(self, memory_bytes: float) -> int:
        """Default most sequences on an accelerator of ``memory_bytes`` [B], [sequences]."""
        size = "large" if memory_bytes >= LARGE else "small"
        return int(self.values[f"schedule.max_sequences_{size}"])

    def max_batched_tokens(self, memory_bytes: float) -> int:
        """Default token budget of a step for ``memory_bytes`` [B], [tokens]. Source: the file."""
        size = "huge" if memory_bytes >= HUGE else "large" if memory_bytes >= LARGE else "small"
        return int(self.values[f"schedule.batched_tokens_{size}"])


def parse_engine(document: Document) -> Engine:
    """The engine a document describes, in SI; InputError for any mistake. Source: in it."""
    data = document.data
    only_keys(document, data, (), ("schema", "name", "label", "version", "family", "until", *NUMBERS))
    values: dict[str, float] = {}
    sources: dict[str, str] = {}
    for section, keys in NUMBERS.items():
        table = data.get(section, {})
        extra = ("semantics", "hybrid_kv_manager") if section == "memory" else FLAGS.get(section, ())
        only_keys(document, table, (section,), (*keys, *extra))
        for key in keys:
            if f"{section}.{key}" in ABSENT and key not in table:
                values[f"{section}.{key}"] = 0.0
                continue
            entry = _entry(document, table, section, key)
            values[f"{section}.{key}"] = number(document, entry, (section, key), "value", positive=False)
            sources[f"{section}.{key}"] = string(document, entry, (section, key), "source")
    memory = data["memory"]
    hybrid = _flag(document, memory, "memory", "hybrid_kv_manager")
    mixed = "mixed_steps" not in data["schedule"] or _flag(document, data["schedule"], "schedule", "mixed_steps")
    return Engine(
        string(document, data, (), "name"),
        string(document, data, (), "version", default=""),
        string(document, data, (), "label", default=data["name"]),
        string(document, memory, ("memory",), "semantics", choices=("total", "free")),
        hybrid,
        mixed,
        values,
        sources,
        string(document, data, (), "family", default=data["name"]),
        string(document, data, (), "until", default=""),
    )


def _version(text: str) -> tuple[int, int]:
    numbers = [int(part) for part in re.findall(r"\d+", text)[:2]]
    return (numbers[0], numbers[1] if len(numbers) > 1 else 0) if numbers else (0, 0)


def _flag(document: Document, table: Mapping[str, Any], section: str, key: str) -> bool:
    found = _entry(document, table, section, key).get("value")
    if not isinstance(found, bool):
        raise document.error((section, key), f"is {found!r}", "true or false")
    return found


def _entry(document: Document, table: Mapping[str, Any], section: str, key: str) -> dict[str, Any]:
    entry = table.get(key)
    if not isinstance(entry, dict):
        raise document.error((section, key), "is missing", "{ value = …, unit = …, source = … }")
    return entry
