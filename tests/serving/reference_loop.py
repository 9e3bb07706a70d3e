"""The same replica, one step at a time and with everything recounted: the oracle of the tests."""

from __future__ import annotations

from dataclasses import dataclass

from planner.serving import LinearStepTime


@dataclass
class Sequence:
    index: int
    arrival: float
    input: int
    output: int
    target: int = 0
    done: int = 0
    made: int = 0
    cached: int = 0
    decoding: bool = False
    first: float = 0.0
    end: float = 0.0
    preemptions: int = 0
    prefix: int = 0


def run_step_by_step(
    requests: list[dict[str, float]],
    step_time: LinearStepTime,
    *,
    token_budget: int,
    max_sequences: int,
    kv_tokens: int | None = None,
    block_tokens: int = 16,
) -> tuple[list[Sequence], int]:
    every = [
        Sequence(i, float(r["arrival_s"]), int(r["input_tokens"]), int(r["output_tokens"]), int(r["input_tokens"]))
        for i, r in enumerate(requests)
    ]
    for s, r in zip(every, requests, strict=True):
        s.prefix = s.done = max(0, min(int(r.get("cached_tokens", 0)), s.input - 1))
    capacity = kv_tokens // block_tokens if kv_tokens is not None else 10**15

    def blocks(s: Sequence) -> int:
        return -(-(s.cached if s.decoding else s.target) // block_tokens)

    coming = sorted(every, key=lambda s: (s.arrival, s.index))
    waiting: list[Sequence] = []
    running: list[Sequence] = []  # in order of admission
    clock, left, steps = 0.0, len(every), 0
    while left:
        while coming and coming[0].arrival <= clock:
            waiting.append(coming.pop(0))
        if not running and not waiting:
            clock = coming[0].arrival
            continue
        preempted = False
        while any(s.decoding for s in running):
            used = sum(blocks(s) for s in running)
            growth = sum(s.decoding and s.cached % block_tokens == 0 for s in running)
            if used + growth <= capacity:
                break
            victim = running.pop()
            victim.target = victim.input + victim.made if victim.made else victim.target
            victim.done, victim.cached, victim.decoding = victim.prefix, 0, False
            victim.preemptions += 1
            waiting.insert(0, victim)
            preempted = True
        decoding = [s for s in running if s.decoding]
        growth = sum(s.cached % block_tokens == 0 for s in decoding)
        budget = token_budget - len(decoding)
        dt = step_time.c0 + step_time.c1 * len(decoding) + step_time.c2 * sum(s.cached for s in decoding)
        prompts = [s for s in running if not s.decoding]
        position = 0
        while budget > 0:
            if position == len(prompts):
                if preempted or not waiting or len(running) >= max_sequences:
                    break
                needed = -(-waiting[0].target // block_tokens)
                if sum(blocks(s) for s in running) + growth + needed > capacity:
                    break
                admitted = waiting.pop(0)
                running.append(admitted)
                prompts.append(admitted)
            s = prompts[position]
            take = min(budget, s.target - s.done)
            dt += step_time.c3 * take + step_time.c4 * take * (s.done + take / 2)
            s.done += take
            budget -= take
            position += 1
        clock += dt
        steps += 1
        for s in decoding:
            s.cached += 1
            s.made += 1
            if s.made == s.output:
                s.end = clock
                running.remove(s)
                left -= 1
        for s in prompts:
            if s.done == s.target and not s.decoding:
                s.made += 1
                s.decoding, s.cached = True, s.target
                if s.made == 1:
                    s.first = clock
                if s.made == s.output:
                    s.end = clock
                    running.remove(s)
                    left -= 1
    return every, steps
