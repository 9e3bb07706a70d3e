"""Recorded traffic: what a trace holds, and which reader a file needs, told by its content."""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.errors import InputError, nearest

Vector = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
LOOK = 65_536  # bytes the format is told by
DOCUMENT_LIMIT = 512_000_000  # bytes of a file that has to be held as a whole
KNOWN = (
    "Azure or BurstGPT CSV, Mooncake JSONL, a ServeGen folder, or results of vllm bench, GuideLLM, AIPerf "
    "or inference-perf"
)


@dataclass(frozen=True)
class BlockHashes:
    """Hashes of the prompt blocks of each request, by request: equal ids are equal prefixes.

    ``ids`` of all requests in one array and ``offsets`` (n+1,) where each request's begin: a million
    prompts of twenty-five blocks are 200 MB.

    >>> hashes = BlockHashes(np.array([0, 1, 0, 1, 2]), np.array([0, 2, 5]))
    >>> hashes[1].tolist(), len(hashes)
    ([0, 1, 2], 2)
    """

    ids: Integers
    offsets: Integers

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, request: int) -> Integers:
        at = request + len(self) if request < 0 else request
        if not 0 <= at < len(self):
            raise IndexError(request)
        return self.ids[self.offsets[at] : self.offsets[at + 1]]

    @property
    def counts(self) -> Integers:
        """Blocks of each request, (n,), [1]. Source: definition."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Integers:
        """Which request each of ``ids`` belongs to, [1]. Source: definition."""
        return np.repeat(np.arange(len(self)), self.counts)

    def take(self, order: Integers) -> BlockHashes:
        """The hashes of requests ``order``, in that order."""
        counts = self.counts[order]
        offsets = np.concatenate(([0], np.cumsum(counts)))
        starts = np.repeat(self.offsets[:-1][order] - offsets[:-1], counts)
        return BlockHashes(self.ids[starts + np.arange(offsets[-1])], offsets)

    def leading_hits(self) -> Integers:
        """Leading blocks of each request that an earlier one had, in an endless cache, (n,), [1].

        Source: prefix caching looks a prompt's blocks up from the front until the first miss.
        """
        _, first, place = np.unique(self.ids, return_index=True, return_inverse=True)
        owner = self.owners
        new = owner[first][place] == owner
        misses = np.append(np.flatnonzero(new), len(self.ids))
        miss = misses[np.searchsorted(misses, self.offsets[:-1])]
        return np.minimum(miss, self.offsets[1:]) - self.offsets[:-1]


@dataclass(frozen=True)
class Trace:
    """Requests in order of arrival: (n,) arrays, ``arrival`` [s] from the first, lengths [tokens].

    ``cached``: input tokens an endless prefix cache would have held, or None when unknown. ``timed``:
    whether arrivals are real. ``dropped``: rows without a usable request, counted. ``paired``: whether
    input and output of a row belong to one request; not so for lengths rebuilt from percentiles.
    ``rate`` [1/s], ``peak`` (busiest window over mean, [1]) and ``concurrency`` [1] as the file states
    them. ``hashes`` of blocks of ``hash_block_tokens``, where the file has them. ``kinds`` (n,) index
    into ``kind_names``, such as a log type. ``requests`` the rows stand for, where that is not their
    number. ``notes`` what a reader had to assume.
    """

    name: str
    format: str
    arrival: Vector
    input: Vector
    output: Vector
    cached: Vector | None = None
    timed: bool = True
    dropped: int = 0
    paired: bool = True
    rate: float | None = None
    peak: float | None = None
    concurrency: float | None = None
    hashes: BlockHashes | None = None
    hash_block_tokens: int | None = None
    kinds: Integers | None = None
    kind_names: tuple[str, ...] = ()
    requests: int | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrival)


@dataclass
class Rows:
    """What a reader found, in the order of the file: [s], [tokens]; ``arrival`` None without times."""

    arrival: Vector | None
    input: Vector
    output: Vector
    cached: Vector | None = None
    hashes: BlockHashes | None = None
    kinds: Integers | None = None
    stated: dict[str, Any] = field(default_factory=dict)
    dropped: int = 0


@dataclass
class Source:
    """An opened trace: its ``stream`` of bytes, gzip unpacked, and its ``start`` as text."""

    name: str
    stream: Any
    start: str
    file: Any = None

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self.file is not None:
            self.stream.close()
            self.file.close()

    def text(self) -> str:
        """The whole file as text; InputError when it is too large or not UTF-8."""
        try:
            raw = self.stream.read(DOCUMENT_LIMIT + 1)
            if len(raw) > DOCUMENT_LIMIT:
                raise InputError("is larger than 512 MB", file=self.name, expected="a smaller file")
            return raw.decode("utf-8-sig")
        except (OSError, EOFError, zlib.error):
            raise InputError("cannot be read or unpacked", file=self.name) from None
        except UnicodeDecodeError:
            raise InputError("is not UTF-8 text", file=self.name) from None

    def blocks(self, size: int) -> Iterable[tuple[int, list[str]]]:
        """Lines in blocks of about ``size`` bytes, with the number of each block's first line."""
        line = 1
        try:
            while raw := self.stream.readlines(size):
                try:
                    text = b"".join(raw).decode("utf-8-sig" if line == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    at = line + b"".join(raw)[: error.start].count(b"\n")
                    raise InputError("is not UTF-8 text", file=self.name, line=at) from None
                yield line, text.split("\n")[: len(raw)]
                line += len(raw)
        except (OSError, EOFError, zlib.error):
            raise InputError("cannot be read or unpacked", file=self.name) from None


Reader = tuple[str, tuple[str, ...], Callable[[Source], Rows]]


def read_trace(path: str | Path) -> Trace:
    """A trace from a file, ``-`` for standard input, or a ServeGen folder; [s] and [tokens].

    The format is told by content, gzip unpacked. Azure 2023/2024 CSV, BurstGPT CSV, Mooncake JSONL
    (hash_ids), ServeGen clients, and results of ``vllm bench serve``, GuideLLM, AIPerf and
    inference-perf, per request where they are, else percentiles. Raises InputError: file, line, what
    was expected.

    Source: Azure/AzurePublicDataset, HPMLL/BurstGPT, kvcache-ai/Mooncake FAST25-release,
    alibaba/ServeGen, vLLM 0.32, GuideLLM 0.8, AIPerf 0.13, kubernetes-sigs/inference-perf.
    """
    from planner.workload.servegen import is_servegen, read_servegen

    if is_servegen(Path(path)):
        return read_servegen(Path(path))
    source = open_source(path)
    try:
        kind, read = _reader(source)
        rows = read(source)
    finally:
        source.close()
    return finish(source.name, kind, rows)


def open_source(path: str | Path) -> Source:
    """An opened file or standard input; InputError when it is missing, a folder, binary or empty."""
    file, opened = Path(path), None
    if str(path) == "-":
        piped: Any = sys.stdin.buffer
        if not isinstance(piped, io.BufferedReader):  # a stand-in for it
            piped = io.BufferedReader(io.BytesIO(piped.read()))
        name, stream = "<stdin>", _unpacked(piped)
    else:
        name = str(path)
        if file.is_dir():
            raise InputError("is a folder without chunk-*-trace.csv", file=name, expected="a file, or ServeGen clients")
        try:
            opened = file.open("rb", buffering=LOOK)
            stream = _unpacked(opened)
            if file.suffix == ".gz" and stream is opened:
                raise EOFError
        except FileNotFoundError:
            folder = file.parent if file.parent.is_dir() else None
            close = nearest(file.name, [p.name for p in folder.iterdir()]) if folder else None
            raise InputError("no such file", file=name, suggestion=close) from None
        except (OSError, EOFError):
            if opened is not None:
                opened.close()
            raise InputError("cannot be read or unpacked", file=name) from None
    source = Source(name, stream, "", opened)
    try:
        raw = stream.peek(LOOK)[:LOOK]
    except (OSError, EOFError, zlib.error):
        source.close()
        raise InputError("cannot be read or unpacked", file=name) from None
    source.start = raw.decode("utf-8-sig", errors="replace").lstrip()
    if not source.start:
        source.close()
        raise InputError("is empty", file=name)
    return source


def _unpacked(stream: Any) -> Any:
    """A buffered stream, by way of gzip when it begins as gzip does."""
    if stream.peek(2)[:2] != b"\x1f\x8b":
        return stream
    import gzip

    unpacked: Any = gzip.GzipFile(fileobj=stream)
    return io.BufferedReader(unpacked, LOOK)


def _reader(source: Source) -> tuple[str, Callable[[Source], Rows]]:
    from planner.workload import benchmark_results, trace_records, trace_tables

    first = source.start.split("\n", 1)[0]
    tables: tuple[Reader, ...] = (*trace_tables.READERS, *benchmark_results.TABLE_READERS)
    for kind, words, read in tables:
        if all(word in first for word in words):
            return kind, read
    if source.start[0] == "{":
        for kind, words, read in trace_records.READERS:
            if all(f'"{word}"' in first for word in words):
                return kind, read
    if source.start[0] in "{[":
        return "", benchmark_results.read_document
    if "\ufffd" in first:
        raise InputError("is not UTF-8 text", file=source.name, line=1)
    raise InputError("is no trace known", file=source.name, line=1, expected=KNOWN)


def usable(rows: Rows) -> Rows:
    """The rows with at least one token in and out; the others counted as dropped."""
    with np.errstate(invalid="ignore"):
        keep = (rows.input >= 1) & (rows.output >= 1) & np.isfinite(rows.input) & np.isfinite(rows.output)
    if keep.all():
        return rows
    order = np.flatnonzero(keep)

    def taken(values: Any) -> Any:
        return None if values is None else values[order]

    return Rows(
        taken(rows.arrival), rows.input[order], rows.output[order], taken(rows.cached),
        rows.hashes.take(order) if rows.hashes else None, taken(rows.kinds), rows.stated,
        rows.dropped + int((~keep).sum()),
    )  # fmt: skip


def finish(name: str, kind: str, rows: Rows) -> Trace:
    """A trace from a reader's rows: unusable ones out, sorted by arrival, hits from hashes."""
    rows = usable(rows)
    if not len(rows.input):
        raise InputError("has no usable requests", file=name)
    timed = rows.arrival is not None
    arrival = np.arange(len(rows.input), dtype=float) if rows.arrival is None else rows.arrival
    hashes, cached, kinds, order = rows.hashes, rows.cached, rows.kinds, None
    if np.any(np.diff(arrival) < 0):
        order = np.argsort(arrival, kind="stable")
    inputs, outputs = rows.input, rows.output
    if order is not None:
        arrival, inputs, outputs = arrival[order], inputs[order], outputs[order]
        cached = None if cached is None else cached[order]
        kinds = None if kinds is None else kinds[order]
        hashes = hashes.take(order) if hashes else None
    stated = dict(rows.stated)
    kind = stated.pop("format", kind)
    if hashes is not None:
        cached = np.minimum(hashes.leading_hits() * float(stated["hash_block_tokens"]), inputs - 1)
    return Trace(
        name, kind, arrival - arrival[0], inputs, outputs, cached, timed, rows.dropped,
        hashes=hashes, kinds=kinds, **stated,
    )  # fmt: skip
