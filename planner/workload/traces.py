"""Recorded traffic: readers of the public trace formats and of benchmark tools' per-request results."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.errors import InputError

Vector = npt.NDArray[np.float64]
SIZE_LIMIT = 512_000_000  # bytes; a million rows are some forty megabytes
MOONCAKE_BLOCK = 512  # tokens one hash stands for


@dataclass(frozen=True)
class Trace:
    """Requests in order of arrival: (n,) arrays, ``arrival`` [s] from the first, lengths [tokens].

    ``cached``: input tokens an endless prefix cache would have held, from block hashes, or None.
    ``timed``: whether arrivals are real. ``dropped``: rows without a usable request, counted.
    """

    name: str
    format: str
    arrival: Vector
    input: Vector
    output: Vector
    cached: Vector | None = None
    timed: bool = True
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.arrival)


@dataclass
class _Rows:
    arrival: list[float]
    input: list[float]
    output: list[float]
    cached: list[float]
    dropped: int = 0


def read_trace(path: str | Path) -> Trace:
    """A trace from a file, its format told by content, ``.gz`` unpacked; [s] and [tokens].

    Azure 2023/2024 CSV, BurstGPT CSV, Mooncake JSONL (hash_ids), vLLM ``bench serve --save-detailed``,
    GuideLLM JSON, AIPerf profile_export.jsonl. Raises InputError: file, line, what was expected.

    Source: Azure/AzurePublicDataset, HPMLL/BurstGPT, kvcache-ai/Mooncake FAST25-release, vLLM 0.32,
    GuideLLM 0.8, AIPerf 0.13.
    """
    file, name = Path(path), str(path)
    text = _text(file, name)
    kind, read = _sniff(text, name)
    rows = read(text, name)
    if not rows.input:
        raise InputError("has no usable requests", file=name)
    return _sorted(name, kind, rows)


def _text(file: Path, name: str) -> str:
    if not file.is_file():
        raise InputError("no such file", file=name)
    if file.stat().st_size > SIZE_LIMIT:
        raise InputError(f"is {file.stat().st_size / 1e6:.0f} MB", file=name, expected="at most 512 MB")
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, EOFError):
        raise InputError("cannot be read or unpacked", file=name) from None
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", file=name) from None


def _sniff(text: str, name: str) -> tuple[str, Callable[[str, str], _Rows]]:
    start = text.lstrip()[:4096]
    if not start:
        raise InputError("is empty", file=name)
    first = start.split("\n", 1)[0]
    if "ContextTokens" in first and "GeneratedTokens" in first:
        return "azure", _azure
    if "Request tokens" in first and "Response tokens" in first:
        return "burstgpt", _burstgpt
    if start[0] == "{":
        if '"hash_ids"' in first or '"input_length"' in first:
            return "mooncake", _mooncake
        if '"request_start_ns"' in first:
            return "aiperf", _aiperf
        if '"input_lens"' in text[:200_000] or '"output_lens"' in text:
            return "vllm-bench", _vllm_bench
        if '"benchmarks"' in text:
            return "guidellm", _guidellm
    raise InputError(
        "is no trace known", file=name, line=1,
        expected="Azure or BurstGPT CSV, Mooncake JSONL, or results of vllm bench, GuideLLM or AIPerf",
    )  # fmt: skip


def _sorted(name: str, kind: str, rows: _Rows) -> Trace:
    arrival = np.array(rows.arrival, dtype=float)
    timed = bool(len(arrival))
    if not timed:
        arrival = np.arange(len(rows.input), dtype=float)
    order = np.argsort(arrival, kind="stable")
    arrival = arrival[order] - arrival[order[0]]
    cached = np.array(rows.cached)[order] if rows.cached else None
    return Trace(
        name, kind, arrival, np.array(rows.input)[order], np.array(rows.output)[order], cached, timed, rows.dropped
    )


def _add(rows: _Rows, arrival: float | None, tokens: float, output: float) -> bool:
    """Keep a request with at least one token in and out; count the others."""
    if not (tokens >= 1 and output >= 1 and np.isfinite(tokens) and np.isfinite(output)):
        rows.dropped += 1
        return False
    if arrival is not None:
        rows.arrival.append(arrival)
    rows.input.append(tokens)
    rows.output.append(output)
    return True


def _table(text: str, name: str, columns: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV as the wanted columns, with their line numbers."""
    reader = csv.reader(io.StringIO(text))
    header = [h.strip() for h in next(reader)]
    index = []
    for column in columns:
        if column not in header:
            raise InputError(f"has no column {column!r}", file=name, line=1, expected=", ".join(header))
        index.append(header.index(column))
    most = max(index)
    try:
        for line, row in enumerate(reader, 2):
            if not row:
                continue
            if len(row) <= most:
                raise InputError("row is cut short", file=name, line=line, expected=f"{len(header)} columns")
            yield line, [row[i] for i in index]
    except csv.Error as error:
        raise InputError(f"is not a CSV file ({error})", file=name) from None


def _number(value: str, name: str, line: int, key: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(f"is {value!r}", file=name, line=line, key=key, expected="a number") from None


def _azure(text: str, name: str) -> _Rows:
    rows = _Rows([], [], [], [])
    for line, (stamp, context, generated) in _table(text, name, ("TIMESTAMP", "ContextTokens", "GeneratedTokens")):
        try:
            moment = datetime.datetime.fromisoformat(stamp.strip())
        except ValueError:
            raise InputError(
                f"is {stamp!r}", file=name, line=line, key="TIMESTAMP", expected="a date and time"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        _add(
            rows, moment.timestamp(), _number(context, name, line, "ContextTokens"),
            _number(generated, name, line, "GeneratedTokens"),
        )  # fmt: skip
    return rows


def _burstgpt(text: str, name: str) -> _Rows:
    rows = _Rows([], [], [], [])
    for line, (stamp, request, response) in _table(text, name, ("Timestamp", "Request tokens", "Response tokens")):
        _add(
            rows, _number(stamp, name, line, "Timestamp"), _number(request, name, line, "Request tokens"),
            _number(response, name, line, "Response tokens"),
        )  # fmt: skip
    return rows


def _lines(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, raw in enumerate(text.split("\n"), 1):
        if not raw.strip():
            continue
        try:
            entry = json.loads(raw)
        except json.JSONDecodeError:
            raise InputError("is not a JSON object", file=name, line=line) from None
        if not isinstance(entry, dict):
            raise InputError("is not a JSON object", file=name, line=line)
        yield line, entry


def _mooncake(text: str, name: str) -> _Rows:
    """Timestamps in milliseconds; equal hashes are a shared block of 512 tokens."""
    rows = _Rows([], [], [], [])
    seen: set[Any] = set()
    for line, entry in _lines(text, name):
        try:
            stamp, tokens, output = (float(entry[k]) for k in ("timestamp", "input_length", "output_length"))
            hashes = list(entry.get("hash_ids") or ())
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"is malformed ({error})", file=name, line=line, expected="timestamp, input_length, output_length"
            ) from None
        hits = 0
        for block in hashes:
            if block not in seen:
                break
            hits += 1
        seen.update(hashes)
        if _add(rows, stamp / 1000.0, tokens, output):
            rows.cached.append(float(min(hits * MOONCAKE_BLOCK, tokens - 1)))
    return rows


def _aiperf(text: str, name: str) -> _Rows:
    rows = _Rows([], [], [], [])
    for line, entry in _lines(text, name):
        try:
            metrics = entry["metrics"]
            start = float(entry["metadata"]["request_start_ns"]) * 1e-9
            tokens = float(metrics["input_sequence_length"]["value"])
            output = float(metrics["output_sequence_length"]["value"])
        except (KeyError, TypeError, ValueError):
            if entry.get("error"):
                rows.dropped += 1
                continue
            raise InputError("is malformed", file=name, line=line, expected="an AIPerf record") from None
        _add(rows, start, tokens, output)
    return rows


def _document(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError("is not valid JSON", file=name, line=getattr(error, "lineno", None)) from None


def _vllm_bench(text: str, name: str) -> _Rows:
    data = _document(text, name)
    rows = _Rows([], [], [], [])
    try:
        inputs, outputs = data["input_lens"], data["output_lens"]
        starts = data.get("start_times") or []
        if len(starts) != len(inputs):
            starts = [None] * len(inputs)
        for start, tokens, output in zip(starts, inputs, outputs, strict=True):
            _add(rows, start, float(tokens), float(output))
    except (KeyError, TypeError, ValueError):
        raise InputError("is malformed", file=name, expected="results of vllm bench serve --save-detailed") from None
    return rows


def _guidellm(text: str, name: str) -> _Rows:
    data = _document(text, name)
    rows = _Rows([], [], [], [])
    try:
        for benchmark in data["benchmarks"]:
            for request in benchmark["requests"]["successful"]:
                tokens = request.get("prompt_tokens") or 0
                _add(rows, float(request["request_start_time"]), float(tokens), float(request["output_tokens"] or 0))
    except (KeyError, TypeError, ValueError):
        raise InputError("is malformed", file=name, expected="GuideLLM benchmarks with requests") from None
    return rows
