"""What was measured, and on what: figures with their repetitions, the host they belong to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from planner.errors import PlannerError
from planner.measuring.timing import Sample, Stopwatch

#: read: bytes streamed; matmul: a large square one; rows: few tokens through a weight matrix; call: one
#: tiny operator; graph: one inside a captured graph; decode, prefill: attention
Kind = Literal["read", "matmul", "rows", "call", "graph", "decode", "prefill"]
UNITS = {
    "read": "B/s", "matmul": "FLOP/s", "rows": "FLOP/s", "call": "s", "graph": "s", "decode": "B/s",
    "prefill": "FLOP/s",
}  # fmt: skip
NOISY = 0.10  # spread between repetitions above which a figure is called noisy


class Unsupported(PlannerError):
    """The device or its library has no such operator; the figure is left out and said so."""


@dataclass(frozen=True)
class Host:
    """The device measured: names, memory and last-level cache [B], threads, and the library that ran."""

    name: str
    vendor: str
    architecture: str
    memory_bytes: float | None
    cache_bytes: float | None
    threads: int
    software: str
    device: str = "cpu"
    memory_from: str = "the operating system"


@dataclass(frozen=True)
class Figure:
    """One operator timed: ``flops`` [FLOP] and ``bytes`` [B] of a call, and its seconds.

    ``fmt`` is the number format, "" where it doesn't matter; ``tokens``: rows of a skinny matmul, context
    of an attention, [tokens]; ``method`` says what ran.
    """

    kind: Kind
    label: str
    method: str
    sample: Sample
    fmt: str = ""
    flops: float = 0.0
    bytes: float = 0.0
    tokens: int = 0

    @property
    def unit(self) -> str:
        """Unit of the rate: B/s, FLOP/s, or s for a fixed time."""
        return UNITS[self.kind]

    def _of(self, seconds: float) -> float:
        if self.unit == "s":
            return seconds
        return (self.bytes if self.unit == "B/s" else self.flops) / seconds

    @property
    def best(self) -> float:
        """Rate of the shortest repetition, or its time, [B/s], [FLOP/s] or [s]: the ceiling.

        >>> Figure("read", "x", "sum", Sample((2.0, 4.0, 4.0)), bytes=8.0).best
        4.0
        """
        return self._of(self.sample.best)

    @property
    def typical(self) -> float:
        """Rate of the median repetition, or its time, [B/s], [FLOP/s] or [s]."""
        return self._of(self.sample.median)

    @property
    def noisy(self) -> bool:
        """Whether repetitions spread more than 10 %."""
        return self.sample.spread > NOISY


@dataclass(frozen=True)
class Task:
    """A figure to measure: what progress calls it, and how."""

    label: str
    run: Callable[[Stopwatch], Figure]


@dataclass(frozen=True)
class Measurement:
    """All figures of one device, of one ``date`` (ISO); ``left_out`` says what it could not do."""

    host: Host
    date: str
    figures: tuple[Figure, ...]
    left_out: tuple[str, ...] = ()

    def of(self, kind: Kind, fmt: str | None = None) -> tuple[Figure, ...]:
        """Figures of a kind, in a format if given."""
        return tuple(f for f in self.figures if f.kind == kind and (fmt is None or f.fmt == fmt))

    @property
    def noisy(self) -> tuple[Figure, ...]:
        """Figures whose repetitions spread more than 10 %, the worst first."""
        return tuple(sorted((f for f in self.figures if f.noisy), key=lambda f: -f.sample.spread))
