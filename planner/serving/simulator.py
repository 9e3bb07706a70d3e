"""One replica in discrete events: continuous batching, chunked prefill, KV blocks, preemption.

Time does not advance step by step: between events a batch decodes undisturbed, its step time is
linear in the summed context, and any number of steps is one arithmetic series. An event is a
completion, an arrival that finds nobody waiting, a prefill chunk, or the cache running full.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from planner.errors import InputError


@dataclass(frozen=True)
class LinearStepTime:
    """Time of a step, [s]: ``c0 + c1*B + c2*S + c3*P + c4*P*(K + P/2)``.

    B sequences decoding, S their summed context [tokens], P prefilled tokens of a chunk and K the
    context already prefilled of its prompt [tokens]; the last two terms add over chunks.
    """

    c0: float
    c1: float
    c2: float
    c3: float = 0.0
    c4: float = 0.0


@dataclass(frozen=True)
class RequestRecord:
    """What happened to one request; times in [s] from the start, lengths in [tokens]."""

    arrival_s: float
    first_token_s: float
    completion_s: float
    input_tokens: int
    output_tokens: int
    preemptions: int = 0

    @property
    def ttft_s(self) -> float:
        """Arrival to first token, [s]. Source: definition."""
        return self.first_token_s - self.arrival_s

    @property
    def time_per_output_token_s(self) -> float:
        """(end - first token)/(output tokens - 1), [s]; 0 for one token. Source: definition."""
        return (self.completion_s - self.first_token_s) / max(1, self.output_tokens - 1)


def simulate(
    requests: Iterable[Any],
    step_time: LinearStepTime,
    *,
    token_budget: int,
    max_sequences: int,
    kv_tokens: int | None = None,
    block_tokens: int = 16,
) -> list[RequestRecord]:
    """Run requests through one replica; one record each, in the order given, [s] and [tokens].

    A step serves every decoding sequence and gives the rest of ``token_budget`` [tokens] to prompts,
    first come first served, at most ``max_sequences`` at once. A prompt is admitted when its blocks
    of ``block_tokens`` fit into ``kv_tokens`` [tokens]; when growing sequences find no block, the
    newest is preempted, recomputed later from the head of the queue, and that step admits nobody.

    Requests are mappings or objects with arrival_s, input_tokens, output_tokens, and optionally
    cached_tokens, the part of the input a prefix cache holds: not prefilled, but read and stored.
    Raises InputError
    for malformed ones and for one that can never fit.

    Source: continuous batching, Yu et al., "Orca", OSDI 2022; chunked prefill, arXiv 2403.02310;
    running a stretch of equal steps as one event, Patel et al., "Splitwise" simulator.

    >>> one = simulate([{"arrival_s": 0.0, "input_tokens": 100, "output_tokens": 3}],
    ...                LinearStepTime(0.01, 0.0, 0.0, 1e-4), token_budget=2048, max_sequences=8)
    >>> one[0].first_token_s, one[0].completion_s
    (0.02, 0.04)
    """
    arrivals, inputs, outputs, cached = _read(requests)
    capacity = _blocks(kv_tokens, block_tokens) if kv_tokens is not None else math.inf
    _check(inputs, outputs, capacity, block_tokens, token_budget, max_sequences)
    replica = _Replica(
        cached, arrivals, inputs, outputs, step_time, token_budget, max_sequences, capacity, block_tokens
    )
    replica.run()
    return [
        RequestRecord(arrivals[i], replica.first[i], replica.end[i], inputs[i], outputs[i], replica.preempted[i])
        for i in range(len(arrivals))
    ]


def _blocks(tokens: int, block: int) -> int:
    return tokens // block


def _read(requests: Iterable[Any]) -> tuple[list[float], list[int], list[int], list[int]]:
    arrivals: list[float] = []
    inputs: list[int] = []
    outputs: list[int] = []
    cached: list[int] = []
    for index, request in enumerate(requests):
        try:
            if isinstance(request, Mapping):
                a, i, o = request["arrival_s"], request["input_tokens"], request["output_tokens"]
                c = request.get("cached_tokens", 0)
            else:
                a, i, o = request.arrival_s, request.input_tokens, request.output_tokens
                c = getattr(request, "cached_tokens", 0)
            arrivals.append(float(a))
            inputs.append(int(i))
            outputs.append(int(o))
            cached.append(max(0, min(int(c), int(i) - 1)))
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"request {index} is malformed ({error})", expected="arrival_s, input_tokens, output_tokens"
            ) from None
        if not (math.isfinite(arrivals[-1]) and arrivals[-1] >= 0 and inputs[-1] >= 1 and outputs[-1] >= 1):
            raise InputError(f"request {index} has impossible values", expected="times from 0, lengths from 1")
    return arrivals, inputs, outputs, cached


def _check(inputs: list[int], outputs: list[int], capacity: float, block: int, budget: int, sequences: int) -> None:
    if budget < sequences:
        raise InputError(f"token_budget {budget} is below max_sequences {sequences}")
    for i, (length, output) in enumerate(zip(inputs, outputs, strict=True)):
        if -(-(length + output) // block) > capacity:
            raise InputError(f"request {i} of {length} + {output} tokens never fits the cache")


class _Replica:
    """State of the run; all counters exact integers, the clock a float."""

    def __init__(
        self,
        cached: list[int],
        arrivals: list[float],
        inputs: list[int],
        outputs: list[int],
        step_time: LinearStepTime,
        budget: int,
        slots: int,
        capacity: float,
        block: int,
    ) -> None:
        n = len(arrivals)
        self.arrivals, self.inputs, self.outputs = arrivals, inputs, outputs
        self.step_time, self.budget, self.slots = step_time, budget, slots
        self.block, self.free = block, capacity
        self.order = sorted(range(n), key=lambda i: (arrivals[i], i))
        self.next = 0
        self.clock, self.step = 0.0, 0
        self.waiting: deque[int] = deque()
        self.chunked: list[int] = []  # prompts being prefilled, oldest first
        self.cached_prefix = cached
        self.done = cached[:]  # prefilled tokens of a prompt, those of the prefix cache included
        self.target = inputs[:]  # tokens to prefill: the prompt, after preemption the whole context
        self.made = [0] * n  # output tokens when it last joined the decoding batch
        self.joined = [-1] * n  # step at which it joined, -1 when not decoding
        self.ends: list[tuple[int, int, int]] = []  # (step of completion, request, step joined)
        self.batch, self.context = 0, 0
        self.phases = [0] * block  # decoding sequences by (cached tokens - step) mod block
        self.admitted: list[int] = []
        self.first, self.end, self.preempted = [0.0] * n, [0.0] * n, [0] * n
        self.left = n

    # -- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Until every request has completed."""
        while self.left:
            self._arrive()
            if not (self.batch or self.chunked or self.waiting):
                self.clock = self.arrivals[self.order[self.next]]
                continue
            preempting = self.batch > 0 and self._make_room()
            if not self.chunked and (preempting or not self._admissible()) and self.batch:
                self._decode_many(1 if preempting else None)
            else:
                self._mixed_step(admit=not preempting)

    def _arrive(self) -> None:
        while self.next < len(self.order) and self.arrivals[self.order[self.next]] <= self.clock:
            self.waiting.append(self.order[self.next])
            self.next += 1

    def _admissible(self) -> bool:
        if not self.waiting or self.batch + len(self.chunked) >= self.slots:
            return False
        return -(-self.target[self.waiting[0]] // self.block) <= self.free - self._growth(1)

    # -- cache blocks ----------------------------------------------------------------------------

    def _growth(self, steps: int) -> int:
        """Blocks the decoding batch takes over the next ``steps`` steps."""
        whole, rest = divmod(steps, self.block)
        grown = whole * self.batch
        for j in range(rest):
            grown += self.phases[(-(self.step + j)) % self.block]
        return grown

    def _steps_until_full(self, limit: int) -> int:
        """Most steps, up to ``limit``, whose growth fits into the free blocks."""
        if math.isinf(self.free):
            return limit
        whole = int(self.free // self.batch)
        if whole >= -(-limit // self.block):
            return limit
        steps = whole * self.block
        room = self.free - whole * self.batch
        while steps < limit:
            taken = self.phases[(-(self.step + steps)) % self.block]
            if taken > room:
                break
            room -= taken
            steps += 1
        return min(steps, limit)

    def _make_room(self) -> bool:
        """Preempt the newest until the batch can grow one step; whether anyone was."""
        any_left = False
        while self.batch and self._growth(1) > self.free:
            victim = self.admitted.pop()
            if self.joined[victim] < 0 and victim not in self.chunked:
                continue
            self._preempt(victim)
            any_left = True
        return any_left

    def _cached(self, i: int) -> int:
        return self.target[i] + self.step - self.joined[i]

    def _preempt(self, i: int) -> None:
        if self.joined[i] >= 0:
            cached = self._cached(i)
            self._leave(i, cached)
            self.made[i] += self.step - self.joined[i]
            self.joined[i] = -1
            # the last token was made but not yet cached: it is prefilled again with the rest
            self.target[i] = self.inputs[i] + self.made[i]
        else:
            self.free += -(-self.target[i] // self.block)
            self.chunked.remove(i)
        self.done[i] = self.cached_prefix[i]
        self.preempted[i] += 1
        self.waiting.appendleft(i)

    def _leave(self, i: int, cached: int) -> None:
        self.batch -= 1
        self.context -= cached
        self.free += -(-cached // self.block)
        self.phases[(cached - self.step) % self.block] -= 1

    # -- advancing -------------------------------------------------------------------------------

    def _decode_many(self, most: int | None) -> None:
        """As many undisturbed decode steps as there are, in one go."""
        t = self.step_time
        while self.joined[self.ends[0][1]] != self.ends[0][2]:
            heapq.heappop(self.ends)
        limit = self.ends[0][0] - self.step
        if most is not None:
            limit = min(limit, most)
        limit = self._steps_until_full(limit)
        base, slope = t.c0 + t.c1 * self.batch + t.c2 * self.context, t.c2 * self.batch
        if not self.waiting and self.next < len(self.order):
            limit = min(limit, _steps_until(self.arrivals[self.order[self.next]] - self.clock, base, slope, limit))
        self.free -= self._growth(limit)
        self.clock += limit * base + slope * limit * (limit - 1) / 2
        self.context += self.batch * limit
        self.step += limit
        self._complete()

    def _mixed_step(self, admit: bool) -> None:
        """One step with prefill chunks; admits from the queue while budget, slots and blocks last."""
        t = self.step_time
        budget = self.budget - self.batch
        seconds = t.c0 + t.c1 * self.batch + t.c2 * self.context
        self.free -= self._growth(1)
        finished = []
        position = 0
        while budget > 0:
            if position == len(self.chunked) and not (admit and self._admit()):
                break
            i = self.chunked[position]
            take = min(budget, self.target[i] - self.done[i])
            seconds += t.c3 * take + t.c4 * take * (self.done[i] + take / 2)
            self.done[i] += take
            budget -= take
            if self.done[i] == self.target[i]:
                finished.append(i)
            position += 1
        self.clock += seconds
        self.context += self.batch
        self.step += 1
        self._complete()
        for i in finished:
            self.chunked.remove(i)
            self._join(i)

    def _admit(self) -> bool:
        if not self.waiting or self.batch + len(self.chunked) >= self.slots:
            return False
        needed = -(-self.target[self.waiting[0]] // self.block)
        if needed > self.free:
            return False
        i = self.waiting.popleft()
        self.free -= needed
        self.chunked.append(i)
        self.admitted.append(i)
        return True

    def _join(self, i: int) -> None:
        """A prompt is done: its next token is out, and it decodes from the next step."""
        self.made[i] += 1
        if self.made[i] == 1:
            self.first[i] = self.clock
        cached = self.target[i]
        if self.made[i] == self.outputs[i]:
            self.end[i] = self.clock
            self.free += -(-cached // self.block)
            self.left -= 1
            return
        self.joined[i] = self.step
        self.batch += 1
        self.context += cached
        self.phases[(cached - self.step) % self.block] += 1
        heapq.heappush(self.ends, (self.step + self.outputs[i] - self.made[i], i, self.step))

    def _complete(self) -> None:
        """Take out those whose last token this step made."""
        ends, joined = self.ends, self.joined
        while ends and ends[0][0] <= self.step:
            _, i, since = heapq.heappop(ends)
            if joined[i] != since:
                continue  # preempted meanwhile
            self._leave(i, self._cached(i))
            joined[i] = -1
            self.end[i] = self.clock
            self.left -= 1


def _steps_until(wait: float, base: float, slope: float, limit: int) -> int:
    """Fewest steps whose time reaches ``wait`` [s], for step times base, base + slope, …; 1..limit."""
    if wait <= 0:
        return 1
    if slope > 0:
        half = base - slope / 2
        guess = (math.sqrt(half * half + 2 * slope * wait) - half) / slope
    else:
        guess = wait / base if base > 0 else limit
    k = max(1, min(limit, math.ceil(guess) - 1))
    while k < limit and k * base + slope * k * (k - 1) / 2 < wait:
        k += 1
    return k
