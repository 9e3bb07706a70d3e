"""Where every request of a simulation stands; shared by the replicas that serve them."""

from __future__ import annotations

from collections.abc import Sequence

from planner.serving.requests import Requests


class Progress:
    """Where every request stands; shared by the replicas that serve them. Counters are exact integers."""

    def __init__(self, requests: Requests, steps: Sequence[int] | None = None, prefilled: bool = False) -> None:
        n = len(requests)
        self.requests = requests
        self.prefilled = prefilled  # prompts arrive with their cache, from a prefill pool
        self.arrival = list(requests.arrival)  # closed loops set theirs later
        self.target = requests.input[:]  # tokens to prefill: the prompt, after preemption the whole context
        self.done = [0] * n  # prefilled tokens of the target, cached ones included
        self.made = [0] * n  # output tokens when it last joined the decoding batch
        #: decode steps left, drawn with speculation; without, a step a token
        self.need = None if steps is None else list(steps)
        self.hits = [0] * n  # blocks of its prefix found in the cache at its last admission
        self.held = [0] * n  # leading prefix hashes it counts as a user of
        self.first, self.end = [0.0] * n, [0.0] * n
        self.preempted = [0] * n
        self.replica = [0] * n
