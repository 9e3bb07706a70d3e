"""Blocks of prompts that stay in the cache after their request, until the room is needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence


class PrefixCache:
    """Shared blocks by hash: those in use are counted, idle ones wait in order of last use.

    Each hash stands for ``blocks`` cache blocks. Idle ones count as free room and are dropped, least
    recently used first, when it is taken.

    Source: automatic prefix caching of PagedAttention, arXiv 2309.06180; RadixAttention, arXiv 2312.07104.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._used: dict[Hashable, int] = {}
        self._idle: OrderedDict[Hashable, None] = OrderedDict()

    def match(self, hashes: Sequence[Hashable], most: int) -> tuple[int, int]:
        """Leading hashes held, up to ``most``, and how many of them are idle, [1] each. Source: the class."""
        used, idle = self._used, self._idle
        hits = waking = 0
        for name in hashes[:most]:
            if name in used:
                hits += 1
            elif name in idle:
                hits += 1
                waking += 1
            else:
                break
        return hits, waking

    def acquire(self, hashes: Sequence[Hashable]) -> None:
        """Count one more user of hashes that are held."""
        for name in hashes:
            self._idle.pop(name, None)
            self._used[name] = self._used.get(name, 0) + 1

    def insert(self, name: Hashable) -> bool:
        """Hold a block its first user has just filled; False when another copy is already held."""
        if name in self._used:
            return False
        if name in self._idle:
            return False
        self._used[name] = 1
        return True

    def release(self, hashes: Sequence[Hashable]) -> int:
        """One user fewer of each; how many turned idle, [1]. The end of a prompt is dropped first.

        Source: the class.
        """
        idle = 0
        for name in reversed(hashes):
            left = self._used[name] - 1
            if left:
                self._used[name] = left
            else:
                del self._used[name]
                self._idle[name] = None
                idle += 1
        return idle

    def shrink(self, room: float) -> None:
        """Drop the least recently used until the idle ones fit into ``room`` [blocks]."""
        idle = self._idle
        while idle and len(idle) * self.blocks > room + 1e-9:  # room may be a sum of fractions
            idle.popitem(last=False)
