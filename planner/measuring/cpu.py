"""Microbenchmarks of the processor with NumPy: reads, matmuls, calls, attention of decode and of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.measuring import blas
from planner.measuring.figures import Figure, Host, Kind, Task
from planner.measuring.host import CACHE_UNKNOWN
from planner.measuring.timing import Stopwatch

Matrix = npt.NDArray[Any]
VALUE = 0.01  # of every element: no zero pages, no denormals
ROWS = 128  # queries of a prompt that attend together


@dataclass(frozen=True)
class Sizes:
    """Sizes of the benchmarks: arrays ``stream`` [B], squares and weight matrices [elements], [tokens].

    ``attention``: pairs of sequences and context; the last is the short one whose time is fixed. ``prompts``: a short
    and a long one, [tokens].
    """

    stream: int
    square: int = 1536
    side: int = 4096
    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 256)
    attention: tuple[tuple[int, int], ...] = ((8, 4096), (1, 32768), (1, 64))
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    prompts: tuple[int, ...] = (256, 1024)


def sizes_for(host: Host, quick: bool) -> Sizes:
    """Sizes that leave the cache: four times the last level, an eighth of memory at most, [B]."""
    stream = max(256 * 2**20, 4 * int(host.cache_bytes or CACHE_UNKNOWN))
    stream = min(stream, int((host.memory_bytes or 8e9) / 8))
    if quick:
        return Sizes(stream, 1024, rows=(1, 4, 16, 64), attention=((8, 4096), (1, 64)))
    return Sizes(stream)


class Workers:
    """The same call on as many threads as are measured, each with data of its own."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def each(self, call: Callable[[int], Any]) -> list[Any]:
        """``call(i)`` of every thread i, together; what they return."""
        if self.pool is None:
            return [call(0)]
        return list(self.pool.map(call, range(self.threads)))

    def filled(self, shape: Sequence[int], dtype: Any) -> list[Matrix]:
        """One array a thread, its pages first touched by that thread."""
        return self.each(lambda _: np.full(shape, VALUE, dtype))

    def close(self) -> None:
        """Let the threads go."""
        if self.pool is not None:
            self.pool.shutdown()


@contextmanager
def cpu_tasks(host: Host, sizes: Sizes) -> Iterator[list[Task]]:
    """What to measure on the processor, on ``host.threads`` threads.

    The matrix library runs on one thread in each of them: its own threads meet at a barrier in every call.
    """
    workers = Workers(host.threads)
    try:
        with blas.one_thread():
            yield [
                Task("memory reads, maximum", partial(_maximum, workers=workers, sizes=sizes)),
                Task("memory reads, dot product", partial(_dot, workers=workers, sizes=sizes)),
                Task("memory reads, matrix times vector", partial(_rows, workers=workers, sizes=sizes, kind="read")),
                *(
                    Task(f"{fmt} matmul", partial(_square, workers=workers, sizes=sizes, fmt=fmt))
                    for fmt in ("fp32", "fp64")
                ),
                *(
                    Task(f"fp32 matmul of {m} tokens", partial(_rows, workers=workers, sizes=sizes, tokens=m))
                    for m in sizes.rows
                ),
                Task("time of a tiny matmul", _call),
                *(
                    Task(
                        f"decode attention {b} x {s}",
                        partial(_attention, workers=workers, sizes=sizes, batch=b, context=s),
                    )
                    for b, s in sizes.attention
                ),
                *(
                    Task(f"prefill attention {n}", partial(_prompt, workers=workers, sizes=sizes, tokens=n))
                    for n in sizes.prompts
                ),
            ]
    finally:
        workers.close()


def _maximum(watch: Stopwatch, workers: Workers, sizes: Sizes) -> Figure:
    parts = workers.filled((sizes.stream // 4 // workers.threads,), np.float32)
    moved = float(sum(p.nbytes for p in parts))
    sample = watch.time(lambda: workers.each(lambda i: parts[i].max()))
    return Figure("read", "memory reads, maximum", f"maximum of {moved / 2**20:.0f} MiB of fp32", sample,
                  bytes=moved)  # fmt: skip


def _dot(watch: Stopwatch, workers: Workers, sizes: Sizes) -> Figure:
    n = sizes.stream // 8 // workers.threads
    left, right = workers.filled((n,), np.float32), workers.filled((n,), np.float32)
    moved = float(2 * sum(p.nbytes for p in left))
    sample = watch.time(lambda: workers.each(lambda i: left[i] @ right[i]))
    return Figure("read", "memory reads, dot product", f"dot product of two fp32 arrays, {moved / 2**20:.0f} MiB",
                  sample, flops=moved / 4, bytes=moved)  # fmt: skip


def _square(watch: Stopwatch, workers: Workers, sizes: Sizes, fmt: str) -> Figure:
    n, dtype = sizes.square, np.float32 if fmt == "fp32" else np.float64
    right = np.full((n, n), VALUE, dtype)
    left = workers.filled((max(n // workers.threads, 1), n), dtype)
    flops = 2.0 * n * n * sum(p.shape[0] for p in left)
    sample = watch.time(lambda: workers.each(lambda i: left[i] @ right))
    return Figure("matmul", f"{fmt} matmul", f"{fmt} matmul of {n} x {n} x {n}", sample, fmt, flops,
                  3.0 * right.nbytes)  # fmt: skip


def _rows(watch: Stopwatch, workers: Workers, sizes: Sizes, tokens: int = 1, kind: Kind = "rows") -> Figure:
    """Weights times a few columns of tokens, by turns with copies that together leave the cache."""
    outputs = max(sizes.side // workers.threads, 1)
    one = 4 * outputs * workers.threads * sizes.side
    copies = [workers.filled((outputs, sizes.side), np.float32) for _ in range(max(2, -(-sizes.stream // one)))]
    columns = np.full((sizes.side, tokens) if tokens > 1 else (sizes.side,), VALUE, np.float32)
    turns = cycle(copies)

    def call() -> None:
        weights = next(turns)
        workers.each(lambda i: weights[i] @ columns)

    flops = 2.0 * outputs * workers.threads * sizes.side * tokens
    moved = one + 4.0 * tokens * (sizes.side + outputs * workers.threads)
    label = "memory reads, matrix times vector" if kind == "read" else f"fp32 matmul of {tokens} tokens"
    method = f"fp32 matmul of {tokens} tokens by {sizes.side} x {sizes.side} weights that are not in cache"
    return Figure(kind, label, method, watch.time(call), "" if kind == "read" else "fp32", flops, moved, tokens)


def _call(watch: Stopwatch) -> Figure:
    a = np.full((8, 8), VALUE, np.float32)
    return Figure("call", "time of a tiny matmul", "call of an fp32 matmul of 8 x 8 x 8", watch.time(lambda: a @ a),
                  "fp32", 2.0 * 8**3, 3.0 * a.nbytes, 1)  # fmt: skip


def _attention(watch: Stopwatch, workers: Workers, sizes: Sizes, batch: int, context: int) -> Figure:
    """Grouped queries against keys and values: scores, softmax, weighted sum; KV heads spread over threads."""
    g, d, group = sizes.kv_heads, sizes.head_dim, sizes.heads // sizes.kv_heads
    heads = batch * g
    shares = [len(part) for part in np.array_split(np.arange(heads), workers.threads)]
    keys = workers.each(lambda i: np.full((shares[i], context, d), VALUE, np.float32))
    values = workers.each(lambda i: np.full((shares[i], context, d), VALUE, np.float32))
    queries = workers.each(lambda i: np.full((shares[i], d, group), VALUE, np.float32))

    def part(i: int) -> Matrix:
        return np.asarray(_softmax(np.ascontiguousarray((keys[i] @ queries[i]).swapaxes(1, 2))) @ values[i])

    moved = 2.0 * 4 * heads * context * d
    label = f"decode attention {batch} x {context}"
    method = f"decode attention, {sizes.heads}/{g} heads of {d}, {batch} sequences of {context} tokens, fp32"
    return Figure("decode", label, method, watch.time(lambda: workers.each(part)), "fp32",
                  4.0 * heads * group * context * d, moved, batch * context)  # fmt: skip


def _prompt(watch: Stopwatch, workers: Workers, sizes: Sizes, tokens: int) -> Figure:
    """Causal attention of a prompt, some rows of queries at a time against the keys so far; heads over threads."""
    shares = [len(part) for part in np.array_split(np.arange(sizes.heads), workers.threads)]
    queries, keys, values = (
        workers.each(lambda i: np.full((shares[i], tokens, sizes.head_dim), VALUE, np.float32)) for _ in range(3)
    )
    later = np.where(np.arange(tokens)[:, None] < np.arange(tokens), np.float32(-1e9), np.float32(0))

    def part(i: int) -> None:
        for head in range(shares[i]):
            for start in range(0, tokens, ROWS):
                stop = min(start + ROWS, tokens)
                scores = queries[i][head, start:stop] @ keys[i][head, :stop].T
                scores += later[start:stop, :stop]
                _softmax(scores) @ values[i][head, :stop]

    flops = 4.0 * sizes.heads * sizes.head_dim * tokens * (tokens + 1) / 2
    method = f"causal attention of a prompt of {tokens} tokens, {sizes.heads} heads of {sizes.head_dim}, fp32"
    moved = 3.0 * 4 * sizes.heads * tokens * sizes.head_dim
    return Figure("prefill", f"prefill attention {tokens}", method, watch.time(lambda: workers.each(part)), "fp32",
                  flops, moved, tokens)  # fmt: skip


def _softmax(scores: Matrix) -> Matrix:
    """Of the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores
