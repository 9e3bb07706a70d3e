"""One replica in discrete events: continuous batching, chunked prefill, KV blocks, preemption.

Time does not advance step by step: between events a batch decodes undisturbed, its step time is
piecewise linear in sums over contexts, and any number of steps is one arithmetic series. An event is
a completion, an arrival that finds nobody waiting, a run of prefill chunks, the cache running full,
a context reaching a limit (window, top-k), or a roofline branch giving way to another.
"""

from __future__ import annotations

import heapq
import math
from array import array
from bisect import insort
from collections.abc import Callable, Iterable

from planner.serving.decode_batch import DecodeBatch
from planner.serving.engine_limits import EngineLimits
from planner.serving.prefix_cache import PrefixCache
from planner.serving.progress import Progress
from planner.serving.step_series import chunk_steps, steps_until
from planner.serving.step_time import StepTime

#: called with a request and its completion time [s]; gives requests to admit and their arrival times [s]
Follow = Callable[[int, float], Iterable[tuple[float, int]]]


class Replica:
    """State of one replica. Step counts are exact; the clock is a float, [s].

    Source: continuous batching, Yu et al., "Orca", OSDI 2022; chunked prefill, arXiv 2403.02310;
    running a stretch of equal steps as one event, the simulator of Patel et al., "Splitwise".
    """

    def __init__(
        self,
        progress: Progress,
        step_time: StepTime,
        limits: EngineLimits,
        follow: Follow | None = None,
        index: int = 0,
    ) -> None:
        self.progress, self.step_time, self.follow, self.index = progress, step_time, follow, index
        self.slots = max(1, min(limits.max_sequences, limits.token_budget // limits.sequence_tokens))
        self.budget, self.each, self.mixed = limits.token_budget, limits.sequence_tokens, limits.mixed
        self.most_of_one = limits.max_chunk_tokens or limits.token_budget
        self.block = limits.block_tokens
        bounded = limits.kv_tokens is not None
        self.free: float = limits.kv_tokens // self.block if limits.kv_tokens is not None else math.inf
        self.unit = limits.prefix_block_tokens
        self.cache = PrefixCache(self.unit // self.block) if progress.requests.prefix is not None else None
        self.coming = array("i")  # requests in order of arrival; those before ``next`` have arrived
        self.next = 0
        self.soon = math.inf  # arrival of the next one
        self.waiting: list[tuple[int, float, int]] = []  # heap of (priority, arrival, request)
        self.chunked: list[int] = []  # prompts being prefilled, oldest first
        self.active: dict[int, None] = {}  # admitted requests, oldest first
        self.batch = DecodeBatch(step_time.limits, self.block, progress.need is not None or not bounded)
        self.clock = 0.0
        self.busy = 0.0  # seconds in steps
        self.prefilled = 0  # tokens
        self.ended = 0  # requests that completed at the end of the last step

    # -- the loop --------------------------------------------------------------------------------

    def submit(self, arrival: float, i: int) -> None:
        """A request that will arrive at ``arrival`` [s], not before now."""
        times, coming = self.progress.arrival, self.coming
        self.progress.replica[i] = self.index
        times[i] = arrival
        if not coming or arrival >= times[coming[-1]]:
            coming.append(i)
        else:
            insort(coming, i, lo=self.next, key=lambda j: (times[j], j))
        self.soon = min(self.soon, arrival)

    def in_system(self, now: float) -> int:
        """Requests that were submitted and not complete at ``now`` [s], in the last step or later, [1].

        Source: definition.
        """
        ended = self.ended if self.clock > now else 0
        return len(self.coming) - self.next + len(self.waiting) + len(self.active) + ended

    def next_completion(self) -> float:
        """A time no request completes before, inside the last step until one may, [s]; infinite when idle.

        Source: steps grow with contexts, so the present stretch of decode steps is never shorter.
        """
        if self.idle:
            return math.inf
        batch = self.batch
        clock = self.clock if self.active or self.waiting else max(self.clock, self.soon)
        base, slope, _ = self._decode(not self.mixed)
        if self.chunked or not batch.size or self.next < len(self.coming) or self._admissible():
            return clock + base / 2
        whole = max(1, batch.steps_that_fit(self.free, batch.steps_undisturbed())) - 1
        return clock + whole * base + slope * whole * (whole - 1) / 2 + base / 2

    @property
    def idle(self) -> bool:
        """Whether nothing is in service and nothing is to come."""
        return not (self.active or self.waiting or self.next < len(self.coming))

    def advance(self, until: float = math.inf, once: bool = False) -> None:
        """Run until the clock has reached ``until`` [s], to the end of that step, or nothing is left.

        ``once``: at most one event.
        """
        while True:
            while self.soon <= self.clock:
                self._line_up(self.coming[self.next])
                self.next += 1
                left = self.next < len(self.coming)
                self.soon = self.progress.arrival[self.coming[self.next]] if left else math.inf
            if not (self.active or self.waiting):
                if self.soon == math.inf or self.soon > until:
                    return
                self.clock = self.soon
                continue
            if self.clock >= until:
                return
            preempting = self._make_room()
            if self.progress.prefilled and not preempting:
                self._admit_prefilled()
            if not self.chunked and (preempting or not self._admissible()) and self.batch.size:
                self._decode_many(1 if preempting else None, until)
            elif preempting or not self._run_of_chunks(until):
                self._mixed_step(admit=not preempting)
            if once:
                return

    def _line_up(self, i: int) -> None:
        """Into the waiting line: by priority, then by arrival, a preempted one at its old place."""
        levels = self.progress.requests.priority
        heapq.heappush(self.waiting, (levels[i] if levels else 0, self.progress.arrival[i], i))

    # -- cache blocks ----------------------------------------------------------------------------

    def _take(self, blocks: float) -> None:
        self.free -= blocks
        if self.cache is not None:
            self.cache.shrink(self.free)

    def _give_back(self, i: int, blocks: float) -> None:
        """Free the blocks of a request; its prefix stays as idle ones."""
        self.free += blocks
        prefix = self.progress.requests.prefix
        if self.cache is not None and prefix is not None:
            held = self.progress.held[i]
            idle = self.cache.release(prefix[i][:held])
            self.free -= (held - idle) * self.cache.blocks
            self.progress.held[i] = 0

    def _make_room(self) -> bool:
        """Preempt the newest until the batch can grow one step; whether anyone was."""
        if self.free >= self.batch.growths[0]:  # no sequence takes more than a block a token
            return False
        any_left = False
        while self.batch.size and self.batch.blocks_grown(1) > self.free + 1e-9:
            self._preempt(self._victim())
            any_left = True
        return any_left

    def _victim(self) -> int:
        """The newest admitted of the least important."""
        levels = self.progress.requests.priority
        if levels is None:
            return next(reversed(self.active))
        return max(enumerate(self.active), key=lambda at: (levels[at[1]], at[0]))[1]

    def _preempt(self, i: int) -> None:
        p = self.progress
        if i in self.batch:
            steps, made = self._leave(i)
            p.made[i] += int(made + 1e-9)
            if p.need is not None:
                p.need[i] -= steps
            # the last token was made but not yet cached: it is prefilled again with the rest
            p.target[i] = p.requests.input[i] + p.made[i]
        else:
            self._give_back(i, -(-p.target[i] // self.block))
            self.chunked.remove(i)
        del self.active[i]
        p.preempted[i] += 1
        self._line_up(i)

    def _leave(self, i: int) -> tuple[int, float]:
        """Take a sequence out of the batch: its decode steps and the tokens they made."""
        start, steps, made = self.batch.leave(i)
        if self.batch.fractional:
            self._give_back(i, -(-start // self.block) + made / self.block)
        else:
            self._give_back(i, -(-(start + steps) // self.block))
        return steps, made

    # -- admission -------------------------------------------------------------------------------

    def _wanted(self, i: int) -> float:
        """Free blocks the request takes when it is admitted: all but those in use by others."""
        p = self.progress
        blocks: float = -(-p.target[i] // self.block)
        if self.cache is not None and p.requests.prefix is not None:
            p.hits[i], waking = self.cache.match(p.requests.prefix[i], (p.target[i] - 1) // self.unit)
            blocks -= (p.hits[i] - waking) * self.cache.blocks
        return blocks

    def _admissible(self, beside: float = 0.0) -> bool:
        if not self.waiting or len(self.active) >= self.slots:
            return False
        if self.free == math.inf:
            return True
        return self._wanted(self.waiting[0][2]) + beside <= self.free - self.batch.blocks_grown(1)

    def _admit(self) -> int | None:
        """The head of the line if there is a slot and room for it."""
        if not self.waiting or len(self.active) >= self.slots:
            return None
        i = self.waiting[0][2]
        wanted = self._wanted(i)
        if wanted > self.free:
            return None
        heapq.heappop(self.waiting)
        p = self.progress
        p.done[i] = p.target[i] if p.prefilled and not p.preempted[i] else p.requests.cached[i]
        if self.cache is not None and p.requests.prefix is not None:
            p.held[i] = p.hits[i]
            self.cache.acquire(p.requests.prefix[i][: p.hits[i]])
            p.done[i] = max(p.done[i], p.hits[i] * self.unit)
        self._take(wanted)
        self.active[i] = None
        return i

    def _admit_prefilled(self) -> None:
        """Requests whose cache was transferred join the batch at once; preempted ones prefill again."""
        p = self.progress
        while self.waiting and not p.preempted[self.waiting[0][2]]:
            i = self.waiting[0][2]
            if not self._admissible(self._first_growth(i)):
                return
            self._admit()
            self._join(i)

    def _first_growth(self, i: int) -> float:
        """Blocks the first decode step of a request takes."""
        p = self.progress
        if p.need is None:
            return float(p.target[i] % self.block == 0)
        return (p.requests.output[i] - 1) / max(1, p.need[i]) / self.block

    # -- advancing -------------------------------------------------------------------------------

    def _decode(self, alone: bool = False) -> tuple[float, float, float]:
        """Time [s] of the decodes beside prompts, its growth, and the steps it holds; of none if ``alone``."""
        batch, none = self.batch, (0.0,) * len(self.batch.totals)
        return self.step_time.decode(*((0, none, none) if alone else (batch.size, batch.totals, batch.growths)))

    def _decode_many(self, most: int | None, until: float) -> None:
        """As many undisturbed decode steps as there are, in one go."""
        batch = self.batch
        limit = batch.steps_undisturbed()
        if most is not None and most < limit:
            limit = most
        if self.free != math.inf:
            limit = batch.steps_that_fit(self.free, limit)
        base, slope, holds = self._decode()
        if holds < limit:
            limit = int(holds)
        # nobody overtakes a line that stands, unless by priority
        if self.soon < until and (not self.waiting or self.progress.requests.priority):
            until = self.soon
        if limit > 1 and until != math.inf:
            limit = steps_until(until - self.clock, base, slope, limit)
        self._pass(limit, limit * base + slope * limit * (limit - 1) / 2)

    def _pass(self, steps: int, seconds: float) -> None:
        """Let the batch decode for ``steps`` steps that take ``seconds``, and end what ends there."""
        if self.free != math.inf:
            self._take(self.batch.blocks_grown(steps))
        self.clock += seconds
        self.busy += seconds
        self.ended = 0
        for i in self.batch.advance(steps):
            self._leave(i)
            self._end(i)

    def _run_of_chunks(self, until: float) -> bool:
        """Steps that prefill whole chunks of the same prompts, in one go; whether there were any.

        Nobody else can be admitted meanwhile: the budget is used up, or nobody is there that fits.
        """
        p, batch = self.progress, self.batch
        if not self.chunked or p.prefilled:
            return False
        beside = batch.size if self.mixed else 0
        budget, limit = self.budget - beside * self.each, 1 << 62
        takes: list[tuple[int, int]] = []
        chunks: list[tuple[int, int]] = []
        for i in self.chunked:
            take = min(budget, self.most_of_one)
            if not take:
                break
            limit = min(limit, (p.target[i] - p.done[i] - 1) // take)
            if limit < 2:
                return False
            budget -= take
            takes.append((i, take))
            chunks.append((take, p.done[i]))
        if self.cache is not None and (len(chunks) > 1 or (budget and self.waiting)):
            return False  # blocks that one fills may be found by another
        if budget:
            if self._admissible():
                return False
            if not self.waiting or p.requests.priority:
                until = min(until, self.soon)
        if beside:
            limit = batch.steps_that_fit(self.free, min(limit, batch.steps_undisturbed()))
        base, slope, holds = self._decode(not self.mixed)
        limit = int(min(limit, holds))
        limit, seconds = chunk_steps(self.step_time, beside, chunks, until - self.clock, base, slope, limit)
        if limit < 2:
            return False
        for i, take in takes:
            self._fill(i, take * limit)
        self._pass(limit if self.mixed else 0, seconds)
        return True

    def _mixed_step(self, admit: bool) -> None:
        """One step with prefill chunks; admits from the queue while budget, slots and blocks last."""
        p, step_time, batch = self.progress, self.step_time, self.batch
        beside = batch.size if self.mixed else 0
        budget = self.budget - beside * self.each
        # room for the batch to grow is set aside before anyone is admitted
        grown = batch.blocks_grown(1) if self.free != math.inf else 0.0
        self._take(grown)
        finished: list[int] = []
        chunks: list[tuple[int, int]] = []
        position = 0
        while budget > 0:
            if position == len(self.chunked):
                i = self._admit() if admit else None
                if i is None:
                    break
                self.chunked.append(i)
            else:
                i = self.chunked[position]
            left = p.target[i] - p.done[i]
            take = min(budget, left, self.most_of_one)
            if take:
                chunks.append((take, p.done[i]))
                self._fill(i, take)
                budget -= take
            if take == left:
                finished.append(i)
            position += 1
        alone = bool(chunks) and not self.mixed
        seconds = self._decode(alone)[0]
        if chunks:
            seconds += step_time.prefill(beside, chunks)
        self.free += grown
        self._pass(0 if alone else 1, seconds)
        for i in finished:
            self.chunked.remove(i)
            self._join(i)

    def _fill(self, i: int, tokens: int) -> None:
        """Prefill ``tokens`` of a prompt; whole blocks of its prefix can be found by others."""
        p = self.progress
        p.done[i] += tokens
        self.prefilled += tokens
        if self.cache is not None and p.requests.prefix is not None:
            prefix = p.requests.prefix[i]
            most = min(len(prefix), min(p.done[i], p.requests.input[i]) // self.unit)
            while p.held[i] < most and self.cache.insert(prefix[p.held[i]]):
                p.held[i] += 1

    def _join(self, i: int) -> None:
        """A prompt is done: its next token is out, and it decodes from the next step."""
        p = self.progress
        p.made[i] += 1
        if p.made[i] == 1:
            p.first[i] = self.clock
        left = p.requests.output[i] - p.made[i]
        if left <= 0:
            self._give_back(i, -(-p.target[i] // self.block))
            self._end(i)
        elif p.need is None:
            self.batch.join(i, p.target[i], 1, left)
        else:
            steps = p.need[i] = max(1, min(p.need[i], left))
            self.batch.join(i, p.target[i], left / steps, steps)

    def _end(self, i: int) -> None:
        del self.active[i]
        self.ended += 1
        self.progress.end[i] = self.clock
        if self.follow is not None:
            for arrival, j in self.follow(i, self.clock):
                self.submit(arrival, j)
