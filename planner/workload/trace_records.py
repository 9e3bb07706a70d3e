"""Traces as JSON lines: Mooncake and Bailian with block hashes, AIPerf records."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from planner.errors import InputError
from planner.workload.traces import BlockHashes, Rows, Source

BLOCK = 16_000_000  # bytes of lines held at once
MOONCAKE_BLOCK = 512  # tokens one hash stands for
BAILIAN_BLOCK = 16
MILLISECONDS, NANOSECONDS = 1e-3, 1e-9


def records(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON object of every line, with its number; InputError for anything else."""
    for first, lines in source.blocks(BLOCK):
        for line, raw in enumerate(lines, first):
            if not raw.strip():
                continue
            try:
                entry = json.loads(raw)
            except (json.JSONDecodeError, RecursionError):
                entry = None
            if not isinstance(entry, dict):
                raise InputError("is not a JSON object", file=source.name, line=line)
            yield line, entry


def read_mooncake(source: Source) -> Rows:
    """Mooncake: timestamp [ms], lengths, and hashes of 512-token blocks. Bailian: [s] and 16 tokens.

    Source: kvcache-ai/Mooncake FAST25-release; alibaba-edu/qwen-bailian-usagetraces-anon.
    """
    bailian = '"chat_id"' in source.start.split("\n", 1)[0]
    scale = 1.0 if bailian else MILLISECONDS
    numbers, blocks, counts = array("d"), _Ids(), array("q")
    for line, entry in records(source):
        try:
            stamp, tokens, output = (float(entry[k]) for k in ("timestamp", "input_length", "output_length"))
            hashes = entry.get("hash_ids") or ()
            if not isinstance(hashes, list | tuple) or not -1e18 < stamp < 1e18:
                raise TypeError("hash_ids is no list" if -1e18 < stamp < 1e18 else "timestamp is not finite")
            blocks.add(hashes)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"is malformed ({_said(error)})", file=source.name, line=line,
                expected="timestamp, input_length, output_length",
            ) from None  # fmt: skip
        counts.append(len(hashes))
        numbers.extend((stamp * scale, tokens, output))
    table = np.array(numbers).reshape(-1, 3)
    hashed = BlockHashes(blocks.ids(), np.concatenate(([0], np.cumsum(np.array(counts, dtype=np.int64)))))
    rows = Rows(table[:, 0], table[:, 1], table[:, 2])
    if len(hashed.ids):
        rows.hashes = hashed
        rows.stated["hash_block_tokens"] = BAILIAN_BLOCK if bailian else MOONCAKE_BLOCK
    return rows


class _Ids:
    """Hash ids as they come: whole numbers kept as they are, all of them numbered once one is not."""

    def __init__(self) -> None:
        self.kept = array("q")
        self.numbers: dict[Any, int] | None = None

    def add(self, hashes: Any) -> None:
        before = len(self.kept)
        if self.numbers is None:
            try:
                self.kept.extend(hashes)
                return
            except (TypeError, OverflowError):
                del self.kept[before:]
                self.numbers = {}
                self.kept = array("q", [self._number(value) for value in self.kept])
        self.kept.extend([self._number(value) for value in hashes])

    def _number(self, value: Any) -> int:
        assert self.numbers is not None
        if not isinstance(value, int | float | str):
            raise TypeError(f"hash_ids holds {str(value)[:20]!r}")
        return self.numbers.setdefault(value, len(self.numbers))

    def ids(self) -> Any:
        return np.array(self.kept, dtype=np.int64)


def read_aiperf(source: Source) -> Rows:
    """AIPerf profile_export.jsonl: one record per request, failed ones counted, warm-up left out.

    Source: AIPerf 0.13.
    """
    numbers, dropped = array("d"), 0
    for line, entry in records(source):
        try:
            metadata, metrics = entry["metadata"], entry.get("metrics") or {}
            if metadata.get("benchmark_phase", "profiling") != "profiling":
                continue
            if entry.get("error") or metadata.get("was_cancelled"):
                dropped += 1
                continue
            numbers.extend((
                float(metadata["request_start_ns"]) * NANOSECONDS,
                float(metrics["input_sequence_length"]["value"]), float(metrics["output_sequence_length"]["value"]),
            ))  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"is malformed ({_said(error)})", file=source.name, line=line, expected="an AIPerf record"
            ) from None
    table = np.array(numbers).reshape(-1, 3)
    return Rows(table[:, 0], table[:, 1], table[:, 2], dropped=dropped)


def _said(error: Exception) -> str:
    return f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)


READERS = (
    ("mooncake", ("input_length", "output_length"), read_mooncake),
    ("aiperf", ("request_start_ns",), read_aiperf),
)
