"""Several replicas behind a router, and prompts and answers served by pools of their own."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from planner.errors import InputError
from planner.serving.engine_limits import EngineLimits
from planner.serving.progress import Progress
from planner.serving.replica import Follow, Replica
from planner.serving.requests import Requests
from planner.serving.simulator import Run, collect, draw_all_steps, opening
from planner.serving.step_time import StepTime

Routing = Literal["least-loaded", "power-of-two", "round-robin", "random", "prefix-affinity"]
ROUTINGS: tuple[Routing, ...] = ("least-loaded", "power-of-two", "round-robin", "random", "prefix-affinity")


def simulate_fleet(
    requests: Requests,
    step_time: StepTime,
    limits: EngineLimits,
    *,
    replicas: int,
    routing: Routing = "least-loaded",
    acceptance: Sequence[float] = (),
    concurrency: int | None = None,
    think_time_s: float = 0.0,
    staggered: bool = False,
    follow: Follow | None = None,
    prefilled: bool = False,
    seed: int = 0,
) -> Run:
    """Requests through ``replicas`` equal replicas; records in the order given, [s] and [tokens].

    The router sends a request on at its arrival: to the replica with the fewest requests in it
    (``least-loaded``), to the emptier of two drawn at random, in turn, at random, or to the one its first
    prefix block names. Other arguments as in :func:`planner.serving.simulator.simulate`; ``follow`` as in
    :func:`planner.serving.simulator.run_replica`,
    ``staggered`` as in :func:`planner.serving.simulator.closed_loop`. Raises InputError for an unknown routing.

    Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.
    """
    if routing not in ROUTINGS:
        raise InputError(f"routing {routing!r} is not known", expected="one of " + ", ".join(ROUTINGS))
    if replicas < 1:
        raise InputError(f"replicas is {replicas}", expected="1 or more")
    limits.check(requests)
    progress = Progress(requests, draw_all_steps(requests, acceptance, seed), prefilled)
    follow, arrivals = opening(progress, concurrency, think_time_s, follow, staggered=staggered)
    completions: list[tuple[float, int, int]] = []  # heap of (time, order, request)
    order = iter(range(1 << 62))

    def completed(i: int, end: float) -> tuple[()]:
        heapq.heappush(completions, (end, next(order), i))
        return ()

    members = [Replica(progress, step_time, limits, completed if follow else None, k) for k in range(replicas)]
    choose = _chooser(routing, members, requests, seed)
    blind = replicas == 1 or routing not in ("least-loaded", "power-of-two")
    if blind and follow is None:
        for arrival, i in arrivals:
            choose(i).submit(arrival, i)
    else:
        _in_step(members, arrivals, choose, completions, follow)
    for member in members:
        member.advance()
    return collect(progress, members)


def _in_step(
    members: list[Replica],
    arrivals: list[tuple[float, int]],
    choose: Callable[[int], Replica],
    completions: list[tuple[float, int, int]],
    follow: Follow | None,
) -> None:
    """Advance all replicas to each arrival before it is routed, none past a completion that may cause one."""
    heapq.heapify(arrivals)
    while True:
        now = soonest = min(arrivals[0][0] if arrivals else math.inf, completions[0][0] if completions else math.inf)
        if follow is not None:
            soonest = min(now, *(m.next_completion() for m in members))
        if soonest == math.inf:
            return
        behind = [m for m in members if m.clock < soonest]
        stuck = all(m.idle for m in behind)  # steps that take no time
        for member in behind:
            member.advance(soonest)
        if soonest < now:
            if stuck:
                min((m for m in members if not m.idle), key=lambda m: m.clock).advance(once=True)
        elif completions and completions[0][0] == now:
            end, _, i = heapq.heappop(completions)
            assert follow is not None
            for following in follow(i, end):
                heapq.heappush(arrivals, following)
        else:
            arrival, i = heapq.heappop(arrivals)
            members[0].progress.arrival[i] = arrival
            choose(i).submit(arrival, i)


def _chooser(routing: Routing, members: list[Replica], requests: Requests, seed: int) -> Callable[[int], Replica]:
    rng = random.Random(seed)
    count = len(members)
    turn = iter(range(1 << 62))
    prefixes = requests.prefix

    arrival = members[0].progress.arrival

    def emptiest(some: Sequence[Replica], i: int) -> Replica:
        return min(some, key=lambda m: m.in_system(arrival[i]))

    def least(i: int) -> Replica:
        return emptiest(members, i)

    def of_two(i: int) -> Replica:
        return emptiest([members[k] for k in rng.sample(range(count), min(2, count))], i)

    def in_turn(_: int) -> Replica:
        return members[next(turn) % count]

    def at_random(_: int) -> Replica:
        return members[rng.randrange(count)]

    homes: dict[object, int] = {}

    def by_prefix(i: int) -> Replica:
        name: object = prefixes[i][0] if prefixes and prefixes[i] else ("alone", i)
        return members[homes.setdefault(name, len(homes) % count)]

    ways = {
        "least-loaded": least, "power-of-two": of_two, "round-robin": in_turn,
        "random": at_random, "prefix-affinity": by_prefix,
    }  # fmt: skip
    return ways[routing]


@dataclass(frozen=True)
class Pool:
    """Equal replicas that do one kind of work: their step, limits and number."""

    step_time: StepTime
    limits: EngineLimits
    replicas: int


def simulate_disaggregated(
    requests: Requests,
    prefill: Pool,
    decode: Pool,
    *,
    transfer_latency_s: float,
    transfer_s_per_token: float,
    routing: Routing = "least-loaded",
    acceptance: Sequence[float] = (),
    seed: int = 0,
) -> tuple[Run, Run, Run]:
    """Prompts in one pool, their caches sent to another that decodes, [s] and [tokens].

    A prompt's cache takes ``transfer_latency_s`` [s] and ``transfer_s_per_token`` [s/token]; its first
    token counts as out when it has arrived, and waiting in the decode pool shows in the time per output
    token. Returns whole records, and the runs of the prefill and the decode pool. Open loop only.

    Source: Zhong et al., "DistServe", arXiv 2401.09670; Patel et al., "Splitwise", arXiv 2311.18677.
    """
    n = len(requests)
    prompts = Requests(
        requests.arrival, requests.input, [1] * n, requests.cached, requests.prefix, requests.priority, requests.kind
    )
    first = simulate_fleet(
        prompts, prefill.step_time, prefill.limits, replicas=prefill.replicas, routing=routing, seed=seed
    )  # fmt: skip
    sent = [r.completion_s + transfer_latency_s + transfer_s_per_token * r.input_tokens for r in first.records]
    rest = [i for i in range(n) if requests.output[i] > 1]
    answers = Requests(
        [sent[i] for i in rest],
        [requests.input[i] for i in rest],
        [requests.output[i] for i in rest],
        [0] * len(rest),
        None,
        [requests.priority[i] for i in rest] if requests.priority else None,
    )
    second = simulate_fleet(
        answers, decode.step_time, decode.limits, replicas=decode.replicas, routing=routing,
        acceptance=acceptance, prefilled=True, seed=seed,
    )  # fmt: skip
    whole = [record._replace(first_token_s=t, completion_s=t) for record, t in zip(first.records, sent, strict=True)]
    for i, record in zip(rest, second.records, strict=True):
        whole[i] = whole[i]._replace(
            completion_s=record.completion_s,
            output_tokens=requests.output[i],
            preemptions=whole[i].preemptions + record.preemptions,
            replica=record.replica,
        )
    joined = Run(
        whole,
        (*first.busy_s, *second.busy_s),
        first.steps + second.steps,
        first.prefilled + second.prefilled,
        second.decoded,
    )
    return joined, first, second
