"""The decoding batch of a replica: sums over its contexts, and when the next of them changes course."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence


class DecodeBatch:
    """Sequences that decode together, one step at a time or many at once.

    ``totals`` [tokens] are the summed context and, for every limit, the sum of ``min(context, limit)``;
    ``growths`` [tokens] what a step adds to each. Sequences are known by number; each has a start
    (its context when it joined), a pace [tokens/step] and a step at which it ends.

    Source: the aggregates a piecewise linear step time needs; sums of k steps in closed form.
    """

    def __init__(self, limits: Sequence[float], block: int, fractional: bool) -> None:
        self.limits = tuple(limits)
        self.block = block
        self.fractional = fractional  # paces other than one: blocks are counted in parts
        self.size, self.step = 0, 0
        self.totals: list[float] = [0] * (1 + len(self.limits))
        self.growths: list[float] = [0] * (1 + len(self.limits))
        self.decoded = 0.0  # tokens of sequences that have left
        self._joined: dict[int, tuple[int, int, float]] = {}  # request -> step joined, start, pace
        self._ends: list[tuple[int, int, int]] = []  # (step of the last token, request, step joined)
        self._crossings: list[tuple[int, int, int, int]] = []  # (step, request, step joined, limit)
        self._phases = [0] * block  # sequences by (context - step) mod block

    def __contains__(self, i: int) -> bool:
        return i in self._joined

    def join(self, i: int, start: int, pace: float, steps: int) -> None:
        """A sequence of context ``start`` [tokens] decodes from now for ``steps`` steps."""
        now = self.step
        self._joined[i] = (now, start, pace)
        heapq.heappush(self._ends, (now + steps, i, now))
        self.size += 1
        self.totals[0] += start
        self.growths[0] += pace
        for j, limit in enumerate(self.limits, 1):
            if start < limit:
                self.totals[j] += start
                self.growths[j] += pace
                heapq.heappush(self._crossings, (now + math.ceil((limit - start) / pace), i, now, j))
            else:
                self.totals[j] += limit
        if not self.fractional:
            self._phases[(start - now) % self.block] += 1

    def leave(self, i: int) -> tuple[int, int, float]:
        """Take a sequence out: its start [tokens], steps since and tokens made. Source: none needed."""
        since, start, pace = self._joined.pop(i)
        steps = self.step - since
        made = steps * pace
        context = start + made
        self.size -= 1
        self.totals[0] -= context
        self.growths[0] -= pace
        for j, limit in enumerate(self.limits, 1):
            if start < limit and steps < math.ceil((limit - start) / pace):
                self.totals[j] -= context
                self.growths[j] -= pace
            else:
                self.totals[j] -= limit
        if not self.fractional:
            self._phases[(start - since) % self.block] -= 1
        self.decoded += made
        if not self.size:  # no drift of rounding survives an empty batch
            self.totals = [0] * len(self.totals)
            self.growths = [0] * len(self.growths)
        return start, steps, made

    def steps_undisturbed(self) -> int:
        """Steps until a sequence ends or reaches a limit, [1]; at least one. Source: the class."""
        ends, joined = self._ends, self._joined
        while ends[0][1] not in joined or joined[ends[0][1]][0] != ends[0][2]:
            heapq.heappop(ends)  # preempted meanwhile
        found = ends[0][0]
        crossings = self._crossings
        while crossings:
            step, i, since, _ = crossings[0]
            if i in joined and joined[i][0] == since:
                found = min(found, step)
                break
            heapq.heappop(crossings)
        return found - self.step

    def advance(self, steps: int) -> list[int]:
        """Let ``steps`` steps pass, no more than undisturbed; requests that have made their last token."""
        totals, growths = self.totals, self.growths
        totals[0] += growths[0] * steps
        for j in range(1, len(totals)):
            totals[j] += growths[j] * steps
        self.step += steps
        joined, crossings = self._joined, self._crossings
        while crossings and crossings[0][0] <= self.step:
            _, i, since, j = heapq.heappop(crossings)
            if i in joined and joined[i][0] == since:
                _, start, pace = joined[i]
                totals[j] -= start + (self.step - since) * pace - self.limits[j - 1]
                growths[j] -= pace
        ends, over = self._ends, []
        while ends and ends[0][0] <= self.step:
            _, i, since = heapq.heappop(ends)
            if i in joined and joined[i][0] == since:
                over.append(i)
        return over

    def blocks_grown(self, steps: int) -> float:
        """Cache blocks the batch takes over the next ``steps`` steps, [blocks]. Source: the class.

        >>> batch = DecodeBatch((), 16, False)
        >>> batch.join(0, 30, 1, 100)
        >>> batch.blocks_grown(2), batch.blocks_grown(3), batch.blocks_grown(19)
        (0, 1, 2)
        """
        block, phases = self.block, self._phases
        if self.fractional:
            return steps * self.growths[0] / block
        # sequences whose phase is -step take a block first, then those at -step - 1, and so on around
        first = -self.step % block
        if steps == 1:
            return phases[first]
        whole, rest = divmod(steps, block)
        last = first - rest
        if last >= -1:
            return whole * self.size + sum(phases[last + 1 : first + 1])
        return whole * self.size + sum(phases[: first + 1]) + sum(phases[block + last + 1 :])

    def steps_that_fit(self, free: float, limit: int) -> int:
        """Most steps, up to ``limit``, whose growth fits into ``free`` [blocks], [1]. Source: the class."""
        if math.isinf(free):
            return limit
        if self.fractional:
            return max(1, min(limit, int(free * self.block / self.growths[0] + 1e-9)))
        whole = int(free // self.size)
        if whole >= -(-limit // self.block):
            return limit
        steps = whole * self.block
        room = free - whole * self.size
        while steps < limit:
            taken = self._phases[(-(self.step + steps)) % self.block]
            if taken > room:
                break
            room -= taken
            steps += 1
        return min(steps, limit)
