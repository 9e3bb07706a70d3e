"""How long a step takes, in a form that can be summed over many steps at once.

Between events the batch is fixed and every context grows at a constant rate, so a step time that is
piecewise linear in sums over the batch is an arithmetic series. A limit ``w`` adds the sum of
``min(context, w)`` to those sums: windows, top-k selections and compressed entries are made of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from planner.errors import InputError


class StepTime(ABC):
    """Time of a step of continuous batching: decoding sequences, and chunks of prompts.

    ``limits``: finite context limits [tokens] whose sums the form needs, increasing. ``totals`` passed
    to :meth:`decode` are the summed context, then the sums of ``min(context, w)`` for each limit.
    """

    limits: tuple[float, ...] = ()

    @abstractmethod
    def decode(self, batch: int, totals: Sequence[float], growths: Sequence[float]) -> tuple[float, float, float]:
        """Seconds of the next step, how much longer each further one is, and for how many steps that holds.

        ``batch`` [sequences]; ``totals`` [tokens] and their ``growths`` [tokens] per step. Returns
        [s], [s] and [1]. Source: see the class.
        """

    @abstractmethod
    def prefill(self, batch: int, chunks: Sequence[tuple[int, int]]) -> float:
        """Extra seconds when chunks of prompts join a step of ``batch`` sequences, [s].

        A chunk is its tokens and those of its prompt before it, [tokens]. Source: see the class.
        """

    @abstractmethod
    def prefill_run(self, batch: int, chunks: Sequence[tuple[int, int]], steps: int) -> float:
        """:meth:`prefill` over ``steps`` steps, in each the next chunk of every prompt, all as long, [s].

        Source: see the class.
        """

    @abstractmethod
    def scaled(self, factor: float) -> StepTime:
        """The same step, ``factor`` [1] times as long: for how figures depend on its error.

        Times in [s]. Source: definition.
        """


@dataclass(frozen=True)
class LinearStepTime(StepTime):
    """Time of a step, [s]: ``c0 + c1*B + c2*S + c3*P + c4*P*(K + P/2)``.

    B sequences decoding, S their summed context [tokens], P prefilled tokens of a chunk and K the
    context already prefilled of its prompt [tokens]; the last two terms add over chunks.

    Source: the additive form of SpecDecode-Bench, arXiv 2601.11580, with causal prefill attention.
    """

    c0: float
    c1: float
    c2: float
    c3: float = 0.0
    c4: float = 0.0

    def decode(self, batch: int, totals: Sequence[float], growths: Sequence[float]) -> tuple[float, float, float]:
        """``c0 + c1*B + c2*S``, growing by c2 times the batch's tokens, [s]. Source: the class."""
        return self.c0 + self.c1 * batch + self.c2 * totals[0], self.c2 * growths[0], math.inf

    def prefill(self, batch: int, chunks: Sequence[tuple[int, int]]) -> float:
        """``c3*P + c4*P*(K + P/2)`` over the chunks, [s]. Source: the class."""
        seconds = 0.0
        for tokens, behind in chunks:
            seconds += tokens * (self.c3 + self.c4 * (behind + tokens / 2))
        return seconds

    def prefill_run(self, batch: int, chunks: Sequence[tuple[int, int]], steps: int) -> float:
        """The arithmetic series of equal chunks, [s]. Source: the class.

        >>> step = LinearStepTime(0, 0, 0, 1e-5, 1e-9)
        >>> one_by_one = sum(step.prefill(1, [(100, k)]) for k in (0, 100, 200))
        >>> abs(step.prefill_run(1, [(100, 0)], 3) - one_by_one) < 1e-15
        True
        """
        return self.prefill(batch, [(tokens * steps, behind) for tokens, behind in chunks])

    def scaled(self, factor: float) -> LinearStepTime:
        """Every constant times ``factor``, [s]. Source: definition."""
        return LinearStepTime(*(factor * c for c in (self.c0, self.c1, self.c2, self.c3, self.c4)))


#: coefficients of a linear form: a constant per sequence [s], then [s/token] of the whole context's
#: sum and of each limit's
Branch = tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """A function of one number as values on an increasing grid that starts at 0; linear between and beyond."""

    grid: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, x: float) -> float:
        """Value at ``x``, in the unit of the values [s]. Source: linear interpolation.

        >>> Table((0.0, 2.0, 4.0), (0.0, 1.0, 5.0)).at(3.0)
        3.0
        """
        grid, values = self.grid, self.values
        i = min(bisect_right(grid, x), len(grid) - 1)
        left = grid[i - 1]
        return values[i - 1] + (values[i] - values[i - 1]) * (x - left) / (grid[i] - left)

    def scaled(self, factor: float) -> Table:
        """Values times ``factor``, in their unit [s]. Source: definition."""
        return Table(self.grid, tuple(factor * v for v in self.values))


ZERO = Table((0.0, 1.0), (0.0, 0.0))


@dataclass(frozen=True)
class PromptAttention:
    """Attention of a chunk: ``latency`` [s], and seconds per token by tokens behind and chunk length.

    ``behind`` and ``chunk`` [tokens] are the grid, ``table`` [s/token] by both; bilinear between.
    """

    behind: tuple[float, ...]
    chunk: tuple[float, ...]
    table: tuple[tuple[float, ...], ...]
    latency: float = 0.0

    def seconds(self, tokens: float, behind: float) -> float:
        """A chunk of ``tokens`` after ``behind`` [tokens], [s]. Source: bilinear interpolation."""
        i = min(max(1, bisect_right(self.behind, behind)), len(self.behind) - 1)
        j = min(max(1, bisect_right(self.chunk, tokens)), len(self.chunk) - 1)
        u = (behind - self.behind[i - 1]) / (self.behind[i] - self.behind[i - 1])
        v = (tokens - self.chunk[j - 1]) / (self.chunk[j] - self.chunk[j - 1])
        low, high = self.table[i - 1], self.table[i]
        near = low[j - 1] + (low[j] - low[j - 1]) * v
        far = high[j - 1] + (high[j] - high[j - 1]) * v
        return self.latency + tokens * (near + (far - near) * u)

    def series(self, tokens: int, behind: int, steps: int) -> float:
        """Sum of :meth:`seconds` over ``steps`` successive chunks of ``tokens`` [tokens], [s].

        An arithmetic series between any two points of the grid. Source: the class.

        >>> some = PromptAttention((0.0, 512.0, 4096.0), (0.0, 256.0), ((1e-6, 1e-6), (2e-6, 2e-6), (9e-6, 9e-6)))
        >>> one_by_one = sum(some.seconds(100, 50 + 100 * k) for k in range(60))
        >>> abs(some.series(100, 50, 60) - one_by_one) < 1e-12
        True
        """
        grid, last, left, total = self.behind, len(self.behind) - 1, steps, 0.0
        j = min(max(1, bisect_right(self.chunk, tokens)), len(self.chunk) - 1)
        v = (tokens - self.chunk[j - 1]) / (self.chunk[j] - self.chunk[j - 1])
        while left:
            i = min(max(1, bisect_right(grid, behind)), last)
            inside = left if i == last else min(left, math.ceil((grid[i] - behind) / tokens))
            low, high = self.table[i - 1], self.table[i]
            near = low[j - 1] + (low[j] - low[j - 1]) * v
            far = high[j - 1] + (high[j] - high[j - 1]) * v
            middle = behind + (inside - 1) * tokens / 2
            total += inside * (near + (far - near) * (middle - grid[i - 1]) / (grid[i] - grid[i - 1]))
            behind += inside * tokens
            left -= inside
        return steps * self.latency + tokens * total

    def scaled(self, factor: float) -> PromptAttention:
        """Times ``factor``, [s]. Source: definition."""
        table = tuple(tuple(factor * v for v in row) for row in self.table)
        return PromptAttention(self.behind, self.chunk, table, factor * self.latency)


@dataclass(frozen=True)
class PiecewiseStepTime(StepTime):
    """A roofline step: a table over batch, and operators that are maxima of linear forms in contexts.

    ``base`` [s] by batch, from 0, at contexts of no length; to it every one of ``terms`` adds what its
    largest branch is above that. ``ranks`` attention ranks in parallel share the sequences: sums are
    divided by ``min(ranks, batch)``, and a prompt is prefilled by one of them. ``matmul`` [s] of the tokens
    of one rank, ``experts`` [s] of the tokens of a stage's ``data`` ranks together; a decoding sequence
    is ``queries`` of them. ``prompt``: attention of a chunk. ``mixed`` [s] more of a step with prompts.

    Source: the operators of :mod:`planner.cost`, of which this is another form.
    """

    base: tuple[float, ...]
    terms: tuple[tuple[Branch, ...], ...] = ()
    limits: tuple[float, ...] = ()
    ranks: int = 1
    data: int = 1
    queries: int = 1
    matmul: Table = ZERO
    experts: Table = ZERO
    prompt: PromptAttention | None = None
    mixed: float = 0.0
    _known: dict[tuple[int, int, int], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def _by_kind(self) -> tuple[Branch, tuple[tuple[Branch, ...], ...]]:
        """Coefficients of the terms with one branch, added up, and the terms with several."""
        single = [term[0][1:] for term in self.terms if len(term) == 1]
        plain = tuple(sum(column) for column in zip(*single, strict=True)) or (0.0,) * (1 + len(self.limits))
        return plain, tuple(term for term in self.terms if len(term) > 1)

    def decode(self, batch: int, totals: Sequence[float], growths: Sequence[float]) -> tuple[float, float, float]:
        """Base plus every term's largest branch [s], its growth [s], and the steps it stays the largest.

        Source: the class.
        """
        if batch >= len(self.base):
            raise InputError(f"a batch of {batch} exceeds the step time's {len(self.base) - 1}")
        seconds, slope, holds = self.base[batch], 0.0, math.inf
        if not batch:
            return seconds, 0.0, holds
        share = 1.0 / min(self.ranks, batch)
        plain, forked = self._by_kind
        for coefficient, total, growth in zip(plain, totals, growths, strict=True):
            seconds += coefficient * total * share
            slope += coefficient * growth * share
        for term in forked:
            best, rise, start, others = -math.inf, 0.0, 0.0, []
            for branch in term:
                value, grown = branch[0] * batch, 0.0
                start = max(start, value)
                for coefficient, total, growth in zip(branch[1:], totals, growths, strict=True):
                    value += coefficient * total
                    grown += coefficient * growth
                others.append((value, grown))
                if value > best or (value == best and grown > rise):
                    best, rise = value, grown
            for value, grown in others:
                if grown > rise:
                    holds = min(holds, max(1.0, math.ceil((best - value) / (grown - rise) + 1e-9)))
            seconds += (best - start) * share
            slope += rise * share
        return seconds, slope, holds

    def prefill(self, batch: int, chunks: Sequence[tuple[int, int]]) -> float:
        """Matmuls of the longer step less those of its decodes, and attention, of the busiest rank, [s].

        A prompt is prefilled by one rank while the others wait for it; together they are never faster
        than an even split. Source: the class.
        """
        seconds = self._matmuls(batch, chunks)
        if self.prompt is not None:
            seconds += self._busiest([self.prompt.seconds(t, k) for t, k in chunks])
        return seconds

    def _matmuls(self, batch: int, chunks: Sequence[tuple[int, int]]) -> float:
        total, longest = sum(t for t, _ in chunks), max(t for t, _ in chunks)
        known = self._known.get((batch, total, longest))
        if known is not None:
            return known
        rank = max(batch / self.ranks, 1.0) * self.queries if batch else 0.0
        stage = rank * self.data
        matmul, experts = self.matmul.at, self.experts.at
        busiest = max(longest, total / self.ranks)
        seconds = self.mixed + matmul(rank + busiest) - matmul(rank)
        seconds += experts(stage + max(busiest, total * self.data / self.ranks)) - experts(stage)
        if len(self._known) > 4096:
            self._known.clear()
        self._known[batch, total, longest] = seconds
        return seconds

    def _busiest(self, each: Sequence[float]) -> float:
        return max(max(each), sum(each) / self.ranks)

    def prefill_run(self, batch: int, chunks: Sequence[tuple[int, int]], steps: int) -> float:
        """Chunk after chunk, [s]. Source: the class."""
        seconds = steps * self._matmuls(batch, chunks)
        if self.prompt is None:
            return seconds
        if self.ranks == 1 or len(chunks) == 1:
            return seconds + sum(self.prompt.series(t, k, steps) for t, k in chunks)
        each = self.prompt.seconds
        return seconds + sum(self._busiest([each(t, k + step * t) for t, k in chunks]) for step in range(steps))

    def scaled(self, factor: float) -> PiecewiseStepTime:
        """Every time in it times ``factor``, [s]. Source: definition."""
        return replace(
            self,
            base=tuple(factor * v for v in self.base),
            terms=tuple(tuple(tuple(factor * c for c in branch) for branch in term) for term in self.terms),
            matmul=self.matmul.scaled(factor),
            experts=self.experts.scaled(factor),
            prompt=self.prompt.scaled(factor) if self.prompt else None,
            mixed=factor * self.mixed,
        )
