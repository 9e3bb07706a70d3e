"""Where every request of a simulation stands; shared by the replicas that serve them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from planner.serving.requests import Requests


class Progress:
    """Where every request stands; shared by the replicas that serve them. Counters are exact integers.

    Packed arrays: what a million requests need beside their records is a few tens of megabytes.
    """

    def __init__(self, requests: Requests, steps: Sequence[int] | None = None, prefilled: bool = False) -> None:
        n = len(requests)
        self.requests = requests
        self.prefilled = prefilled  # prompts arrive with their cache, from a prefill pool
        self.arrival = list(requests.arrival)  # closed loops set theirs later
        self.target = array("i", requests.input)  # tokens to prefill: the prompt, after preemption the whole context
        self.done = _zeros(n)  # prefilled tokens of the target, cached ones included
        self.made = _zeros(n)  # output tokens when it last joined the decoding batch
        #: decode steps left, drawn with speculation; without, a step a token
        self.need = None if steps is None else array("i", steps)
        hashed = n if requests.prefix is not None else 0
        self.hits = _zeros(hashed)  # blocks of its prefix found in the cache at its last admission
        self.held = _zeros(hashed)  # leading prefix hashes it counts as a user of
        self.first, self.end = array("d", bytes(8 * n)), array("d", bytes(8 * n))
        self.preempted, self.replica = _zeros(n), _zeros(n)


def _zeros(n: int) -> array[int]:
    return array("i", bytes(array("i").itemsize * n))
