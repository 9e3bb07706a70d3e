"""A closed loop over two pools: prompts in one, answers in the other, every stream in one of them at a time."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
_QUEUED, _PREFILLED, _ARRIVED, _ENDED = range(4)


@dataclass(frozen=True)
class PrefillWorkers:
    """``count`` workers of ``ranks`` [1] that take prompts beside one another, several each in a step.

    ``seconds``: of a step whose busiest rank has so many prompts of mean length, by number from 0 [s].
    """

    count: int
    ranks: int
    seconds: tuple[float, ...]

    @property
    def capacity(self) -> int:
        """Prompts of one step, [1]. Source: definition."""
        return self.ranks * (len(self.seconds) - 1)

    def together(self, prompts: float) -> float:
        """Time until ``prompts`` [1] that wait together are done, [s]: a step, or as many as they fill.

        Source: prompts dealt out evenly to the ranks.

        >>> four = PrefillWorkers(1, 4, (0.0, 0.1, 0.15))
        >>> four.together(5), four.together(16)
        (0.15, 0.3)
        """
        if prompts >= self.capacity:
            return prompts / self.capacity * self.seconds[-1]
        return self.seconds[math.ceil(prompts / self.ranks)]


@dataclass(frozen=True)
class DecodeWorkers:
    """``count`` workers of up to ``slots`` [1] sequences; ``seconds`` (slots + 1,) of a step by their number [s].

    ``admission`` [1]: steps that pass before a request that found a slot is in the batch.
    """

    count: int
    slots: int
    seconds: Vector
    admission: float = 0.0


@dataclass(frozen=True)
class PooledRun:
    """When every request was ``sent``, its ``first`` token out and its last (``end``), (n,) [s] in order of sending."""

    sent: Vector
    first: Vector
    end: Vector


class _Decoder:
    """One decode worker: its batch shares every step, so each sequence ends at a number of steps known as it joins."""

    def __init__(self, workers: DecodeWorkers, each: float) -> None:
        self.seconds: list[float] = workers.seconds.tolist()
        self.each = each
        self.admission = workers.admission
        self.room = max(1, int(workers.slots / each + 1e-9))
        self.line: deque[int] = deque()
        self.ends: list[tuple[float, int]] = []  # heap of (steps at the end, request)
        self.steps, self.time, self.pace = 0.0, 0.0, self._pace(0)
        self.due = math.inf  # of the next end, as it is in the queue of events

    def _pace(self, size: int) -> float:
        return self.seconds[min(round(size * self.each), len(self.seconds) - 1)]

    def advance(self, time: float) -> None:
        self.steps += (time - self.time) / self.pace
        self.time = time

    def join(self, i: int, steps: float) -> float:
        """A request decodes once it is admitted, from the next step on; when that one will be over."""
        self.pace = self._pace(len(self.ends) + 1)
        waited = self.admission + 0.5  # requests come anywhere in a step
        heapq.heappush(self.ends, (self.steps + waited + steps, i))
        return self.time + (waited + 1) * self.pace

    def leave(self) -> int:
        i = heapq.heappop(self.ends)[1]
        self.pace = self._pace(len(self.ends))
        return i

    def next_end(self) -> float:
        self.due = self.time + max(0.0, self.ends[0][0] - self.steps) * self.pace if self.ends else math.inf
        return self.due


def run_pools(
    prefill: PrefillWorkers,
    decode: DecodeWorkers,
    *,
    steps: Sequence[float],
    work: Sequence[float],
    streams: int,
    each: float = 1.0,
    before_s: float = 0.0,
    between_s: float = 0.0,
) -> PooledRun:
    """``streams`` that all start at once, each sending its next request when the last one ends, [s].

    ``steps`` (n,) [1] decode steps of each request with the first token's, ``work`` (n,) [1] its prompt over the
    mean one; a request stands for ``each`` [1] sent together. ``before_s`` [s] until the prompt is in line,
    ``between_s`` [s] from its last step until its cache has arrived. Prompts go to the workers in turn and wait
    there; a worker takes all that fit into a step. Decodes too go to the workers in turn, wait for a slot and to be
    admitted; the first token is out after their first step, as the stream is that worker's.

    Source: request path of NVIDIA Dynamo and of SGLang's disaggregation; a step shared by its batch.
    """
    count = len(steps)
    sent, first, end = (np.zeros(count) for _ in range(3))
    lines: list[deque[int]] = [deque() for _ in range(prefill.count)]
    serving = [False] * prefill.count
    workers = [_Decoder(decode, each) for _ in range(decode.count)]
    taken = max(1, int(prefill.capacity / each + 1e-9))
    events: list[tuple[float, int, int, int]] = []  # time, order, what, request or worker
    order = iter(range(1 << 62))

    def push(time: float, kind: int, who: int) -> None:
        heapq.heappush(events, (time, next(order), kind, who))

    def serve(w: int, time: float) -> None:
        line = lines[w]
        if serving[w] or not line:
            return
        some = [line.popleft() for _ in range(min(taken, len(line)))]
        serving[w] = True
        done = time + sum(work[i] for i in some) / len(some) * prefill.together(len(some) * each)
        push(done, _PREFILLED, w)
        for i in some:
            push(done + between_s, _ARRIVED, i)

    upcoming = min(streams, count)
    for i in range(upcoming):
        push(before_s, _QUEUED, i)
    turn = following = 0
    while events:
        time, _, kind, who = heapq.heappop(events)
        if kind == _QUEUED:
            lines[turn].append(who)
            turn = (turn + 1) % prefill.count
            push(time, _PREFILLED, -1 - (turn - 1) % prefill.count)  # after all that arrive now
            continue
        if kind == _PREFILLED:
            if who >= 0:
                serving[who] = False
            serve(who if who >= 0 else -1 - who, time)
            continue
        w = who
        if kind == _ARRIVED:
            w, following = following, (following + 1) % decode.count
        worker = workers[w]
        if kind == _ENDED and worker.due != time:
            continue  # the batch has changed since
        worker.advance(time)
        if kind == _ARRIVED:
            worker.line.append(who)
        else:
            end[worker.leave()] = time
            if upcoming < count:
                sent[upcoming] = time
                push(time + before_s, _QUEUED, upcoming)
                upcoming += 1
        while worker.line and len(worker.ends) < worker.room:
            i = worker.line.popleft()
            first[i] = worker.join(i, steps[i])
        due = worker.next_end()
        if due < math.inf:
            push(due, _ENDED, w)
    return PooledRun(sent, first, end)
