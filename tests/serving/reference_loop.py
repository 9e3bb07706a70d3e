"""The same replica, one step at a time and with everything recounted: the oracle of the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from planner.serving.step_time import LinearStepTime, PiecewiseStepTime, StepTime


@dataclass
class Sequence:
    index: int
    arrival: float
    input: int
    output: int
    priority: int = 0
    known: int = 0  # input tokens given as cached
    prefix: tuple[Any, ...] = ()
    target: int = 0
    done: int = 0
    made: float = 0
    start: int = 0
    context: float = 0
    steps: int = 0  # decode steps since it joined
    need: int | None = None  # decode steps left when it joined, drawn with speculation
    pace: float = 1
    decoding: bool = False
    held: list[Any] = field(default_factory=list)
    first: float = 0.0
    end: float = 0.0
    preemptions: int = 0


def step_seconds(step: StepTime, contexts: list[float], chunks: list[tuple[int, int]]) -> float:
    """A step of decoding sequences and (tokens, behind) chunks, from scratch."""
    batch = len(contexts)
    if isinstance(step, LinearStepTime):
        seconds = step.c0 + step.c1 * batch + step.c2 * sum(contexts)
        return seconds + sum(step.c3 * t + step.c4 * t * (k + t / 2) for t, k in chunks)
    assert isinstance(step, PiecewiseStepTime)
    seconds = step.base[batch]
    share = 1 / min(step.ranks, max(1, batch))
    for term in step.terms:
        values, empty = [], []
        for branch in term:
            value = branch[0] * batch + branch[1] * sum(contexts)
            for coefficient, limit in zip(branch[2:], step.limits, strict=True):
                value += coefficient * sum(min(c, limit) for c in contexts)
            values.append(value)
            empty.append(branch[0] * batch)
        seconds += (max(values) - max(empty)) * share
    return seconds + (step.prefill(batch, chunks) if chunks else 0.0)


class ReferenceCache:
    """Hashes with their number of users, and idle ones in a list, least recently used first."""

    def __init__(self) -> None:
        self.users: dict[Any, int] = {}
        self.idle: list[Any] = []

    def hits(self, names: tuple[Any, ...], most: int) -> list[Any]:
        found = []
        for name in names[:most]:
            if name not in self.users and name not in self.idle:
                break
            found.append(name)
        return found


def run_step_by_step(
    requests: list[dict[str, Any]],
    step_time: StepTime,
    *,
    token_budget: int,
    max_sequences: int,
    kv_tokens: int | None = None,
    block_tokens: int = 16,
    max_chunk_tokens: int | None = None,
    prefix_block_tokens: int = 512,
    sequence_tokens: int = 1,
    steps: list[int] | None = None,
    concurrency: int | None = None,
    think_time_s: float = 0.0,
    prefilled: bool = False,
    mixed: bool = True,
) -> tuple[list[Sequence], int]:
    every = [
        Sequence(i, float(r["arrival_s"]), int(r["input_tokens"]), int(r["output_tokens"]), int(r.get("priority", 0)),
                 max(0, min(int(r.get("cached_tokens", 0)), int(r["input_tokens"]) - 1)), tuple(r.get("prefix", ())),
                 int(r["input_tokens"]))
        for i, r in enumerate(requests)
    ]  # fmt: skip
    if steps is not None:
        for s, n in zip(every, steps, strict=True):
            s.need = n
    capacity = kv_tokens // block_tokens if kv_tokens is not None else 10**15
    slots = max(1, min(max_sequences, token_budget // sequence_tokens))
    most_of_one = max_chunk_tokens or token_budget
    cache, unit = ReferenceCache(), prefix_block_tokens // block_tokens
    waiting: list[Sequence] = []
    running: list[Sequence] = []  # in order of admission
    clock, left, taken = 0.0, len(every), 0

    def blocks(s: Sequence) -> float:
        if not s.decoding:
            whole: float = -(-s.target // block_tokens)
        elif s.need is not None:
            whole = -(-s.start // block_tokens) + s.steps * s.pace / block_tokens
        else:
            whole = -(-int(s.context) // block_tokens)
        return whole - len(s.held) * unit

    def used() -> float:
        return sum(blocks(s) for s in running) + len(cache.users) * unit

    def growth() -> float:
        decoding = [s for s in running if s.decoding]
        if steps is not None:
            return sum(s.pace for s in decoding) / block_tokens
        return sum(s.context % block_tokens == 0 for s in decoding)

    def shrink(set_aside: float = 0.0) -> None:
        while cache.idle and len(cache.idle) * unit > capacity - used() - set_aside + 1e-9:
            cache.idle.pop(0)

    def release(s: Sequence) -> None:
        for name in reversed(s.held):
            cache.users[name] -= 1
            if not cache.users[name]:
                del cache.users[name]
                cache.idle.append(name)
        s.held = []

    def wanted(s: Sequence) -> tuple[float, list[Any]]:
        hits = cache.hits(s.prefix, (s.target - 1) // prefix_block_tokens)
        return -(-s.target // block_tokens) - sum(name in cache.users for name in hits) * unit, hits

    def admit(s: Sequence, hits: list[Any]) -> None:
        waiting.remove(s)
        running.append(s)
        s.done = s.target if prefilled and not s.preemptions else s.known
        if s.prefix:
            s.done = max(s.done, len(hits) * prefix_block_tokens)
        for name in hits:
            if name in cache.idle:
                cache.idle.remove(name)
            cache.users[name] = cache.users.get(name, 0) + 1
        s.held = hits

    def fill(s: Sequence, tokens: int) -> None:
        s.done += tokens
        for name in s.prefix[len(s.held) : min(s.done, s.input) // prefix_block_tokens]:
            if name in cache.users or name in cache.idle:
                break
            cache.users[name] = 1
            s.held.append(name)

    def finish(s: Sequence) -> None:
        nonlocal left
        s.end = clock
        running.remove(s)
        release(s)
        left -= 1
        if concurrency is not None and held_back:
            following = held_back.pop(0)
            following.arrival = clock + think_time_s
            coming.append(following)
            coming.sort(key=lambda x: (x.arrival, x.index))

    def join(s: Sequence) -> None:
        s.made += 1
        if s.made == 1:
            s.first = clock
        rest = s.output - int(s.made)
        if rest == 0:
            finish(s)
            return
        s.decoding, s.start, s.context, s.steps, s.pace = True, s.target, s.target, 0, 1
        if s.need is not None:
            s.need = max(1, min(s.need, rest))
            s.pace = rest / s.need

    def preempt(s: Sequence) -> None:
        running.remove(s)
        if s.decoding:
            s.made += int(s.steps * s.pace + 1e-9)
            if s.need is not None:
                s.need -= s.steps
            s.target = s.input + int(s.made)
        release(s)
        s.done, s.decoding = 0, False
        s.preemptions += 1
        waiting.append(s)

    if concurrency is None:
        coming, held_back = sorted(every, key=lambda s: (s.arrival, s.index)), []
    else:
        coming, held_back = every[:concurrency], every[concurrency:]
        for s in coming:
            s.arrival = 0.0
    while left:
        while coming and coming[0].arrival <= clock:
            waiting.append(coming.pop(0))
        waiting.sort(key=lambda s: (s.priority, s.arrival, s.index))
        if not running and not waiting:
            clock = coming[0].arrival
            continue
        preempted = False
        while any(s.decoding for s in running) and used() + growth() > capacity + 1e-9:
            preempt(max(enumerate(running), key=lambda at: (at[1].priority, at[0]))[1])
            preempted = True
        waiting.sort(key=lambda s: (s.priority, s.arrival, s.index))
        if prefilled and not preempted:
            while waiting and not waiting[0].preemptions and len(running) < slots:
                s = waiting[0]
                need, hits = wanted(s)
                # beside those in service it must have room for its own first step
                if steps is not None:
                    first_step = (s.output - 1) / max(1, s.need or 0) / block_tokens
                else:
                    first_step = float(s.target % block_tokens == 0)
                if used() + growth() + need + first_step > capacity:
                    break
                admit(s, hits)
                join(s)
        decoding = [s for s in running if s.decoding]
        grown = growth()
        shrink(grown)
        budget = token_budget - (len(decoding) * sequence_tokens if mixed else 0)
        prompts = [s for s in running if not s.decoding]
        chunks: list[tuple[int, int]] = []
        position = 0
        while budget > 0:
            if position == len(prompts):
                if preempted or not waiting or len(running) >= slots:
                    break
                need, hits = wanted(waiting[0])
                if used() + grown + need > capacity:
                    break
                prompts.append(waiting[0])
                admit(waiting[0], hits)
                shrink(grown)
            s = prompts[position]
            take = min(budget, s.target - s.done, most_of_one)
            if take:
                chunks.append((take, s.done))
            fill(s, take)
            budget -= take
            position += 1
        if chunks and not mixed:
            decoding = []
        clock += step_seconds(step_time, [s.context for s in decoding], chunks)
        taken += 1
        for s in decoding:
            s.steps += 1
            s.context = s.start + s.steps * s.pace
        shrink()
        for s in sorted(decoding, key=lambda s: s.index):
            if s.steps == (s.need if s.need is not None else s.output - s.made):
                finish(s)
        for s in prompts:
            if s.done == s.target and not s.decoding:
                join(s)
    return every, taken
