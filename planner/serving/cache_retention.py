"""What of an idle session is still cached when it comes back, and where a longer memory pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.errors import InputError
from planner.serving.pauses import AnyPause

#: the characteristic time is looked for between a microsecond and thirty thousand years [s]
SHORTEST, LONGEST = 1e-6, 1e12
HALVINGS = 90


@dataclass(frozen=True)
class IdleContexts:
    """Contexts of one class of sessions between turns.

    ``rate`` turns that end per second [1/s], ``tokens`` a turn leaves behind [tokens], both broadcast
    over candidates; the ``pause`` that follows; ``last`` the share of turns with no next one [1]: their
    contexts hold memory until they are evicted.
    """

    rate: Any
    tokens: Any
    pause: AnyPause
    last: float = 0.0


def resident_tokens(classes: Sequence[IdleContexts], horizon: Any) -> Any:
    """Tokens of idle contexts when each is kept for at most ``horizon`` [s], [tokens].

    ``sum of rate*tokens*((1 - last)*E[min(pause, T)] + last*T)``. Broadcasts.

    Source: Little's law.

    >>> from planner.serving.pauses import Pause
    >>> round(float(resident_tokens([IdleContexts(4.0, 50_000, Pause(30.0, 1.0, "exponential"))], 30.0)))
    3792723
    """
    t = np.asarray(horizon, dtype=float)
    total: Any = 0.0
    for c in classes:
        held = (1 - c.last) * np.asarray(c.pause.mean_min(t))
        if c.last > 0:
            held = held + c.last * t
        total = total + np.asarray(c.rate) * np.asarray(c.tokens) * held
    return np.asarray(total)[()]


def characteristic_time(classes: Sequence[IdleContexts], capacity: Any, ttl: Any = np.inf) -> Any:
    """How long a least-recently-used cache keeps an idle context, [s].

    The T at which :func:`resident_tokens` fills ``capacity`` [tokens], never more than ``ttl`` [s];
    infinite when everything fits for ever. Solved by bisection of log T for all candidates at once.
    Contexts are small against the cache, and evicted whole: engines drop blocks, which keeps the
    beginning of a context a little longer. Hit ratios within 0.03 of a simulated cache that holds a
    hundred contexts. InputError when the capacity is negative.

    Source: Che, Tung & Wang, "Hierarchical Web caching systems", IEEE JSAC 20(7) 2002; Fricker, Robert
    & Roberts, "A versatile and accurate approximation for LRU cache performance", arXiv 1202.3974.

    >>> from planner.serving.pauses import Pause
    >>> idle = [IdleContexts(4.0, 50_000, Pause(30.0, 1.0, "exponential"))]
    >>> round(float(characteristic_time(idle, 3_792_723)), 3), float(characteristic_time(idle, 7e6))
    (30.0, inf)
    """
    room = np.asarray(capacity, dtype=float)
    if np.any(room < 0):
        raise InputError(f"a cache of {np.min(room):g} tokens", expected="zero or more")
    shape = np.broadcast_shapes(
        room.shape, np.shape(ttl), *(np.broadcast_shapes(np.shape(c.rate), np.shape(c.tokens)) for c in classes)
    )
    room = np.broadcast_to(room, shape)
    low, high = np.full(shape, np.log(SHORTEST)), np.full(shape, np.log(LONGEST))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = np.asarray(resident_tokens(classes, np.exp(middle))) <= room
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    time = np.exp((low + high) / 2)
    time = np.where(np.asarray(resident_tokens(classes, LONGEST)) <= room, np.inf, time)
    time = np.where(np.asarray(resident_tokens(classes, SHORTEST)) > room, 0.0, time)
    return np.minimum(time, ttl)[()]


def hit_ratio(classes: Sequence[IdleContexts], time: Any) -> Any:
    """Share of returning turns that find their context, ``P(pause < T)`` by rate, [1].

    ``time`` is the characteristic time [s]; turns that never return do not count. Broadcasts.

    Source: as :func:`characteristic_time`.

    >>> from planner.serving.pauses import Pause
    >>> round(float(hit_ratio([IdleContexts(4.0, 50_000, Pause(30.0, 1.0, "exponential"))], 30.0)), 4)
    0.6321
    """
    hits: Any = 0.0
    returns: Any = 0.0
    for c in classes:
        back = np.asarray(c.rate) * (1 - c.last)
        hits = hits + back * np.asarray(c.pause.cdf(time))
        returns = returns + back
    return np.asarray(hits / returns)[()]


def tier_shares(
    classes: Sequence[IdleContexts], capacities: Sequence[Any], ttl: Any = np.inf, exclusive: bool = False
) -> Any:
    """Where a returning turn finds its context: one share per tier, then nowhere, (..., tiers + 1), [1].

    ``capacities`` from device memory outwards [tokens]. Every tier holds a copy of what the faster
    ones hold, as engines write through; ``exclusive`` tiers hold what the faster ones evicted, so
    their capacities add up.

    Source: characteristic times of nested caches, as :func:`characteristic_time`.

    >>> from planner.serving.pauses import Pause
    >>> idle = [IdleContexts(4.0, 50_000, Pause(120.0, 2.0), last=0.1)]
    >>> [round(float(x), 3) for x in tier_shares(idle, [3e6, 30e6])]
    [0.171, 0.797, 0.032]
    """
    found: list[Any] = []
    seen: Any = 0.0
    room: Any = 0.0
    for capacity in capacities:
        room = room + np.asarray(capacity, dtype=float) if exclusive else np.asarray(capacity, dtype=float)
        reached = np.maximum(seen, np.asarray(hit_ratio(classes, characteristic_time(classes, room, ttl))))
        found.append(reached - seen)
        seen = reached
    return np.stack(np.broadcast_arrays(*found, 1 - seen), axis=-1)


def reload_seconds(tokens: Any, kv_bytes: Any, bandwidth: Any) -> Any:
    """Time to bring a context back from another tier: ``tokens*kv_bytes/bandwidth``, [s].

    kv_bytes per token [B] that one accelerator holds, bandwidth of its own path [B/s]. Broadcasts.

    Source: definition; bandwidths in ``hardware_db/offload.toml``.

    >>> round(float(reload_seconds(60_000, 131_072, 50e9)), 3)
    0.157
    """
    return tokens * kv_bytes / bandwidth


def reload_wins(kv_bytes: Any, bandwidth: Any, prefill_token_seconds: Any) -> Any:
    """Whether loading a token's KV [B] at ``bandwidth`` [B/s] beats computing it [s], [1].

    ``kv_bytes/bandwidth < prefill_token_seconds``: context cancels out, but for attention, which makes
    computing a long context dearer still. Broadcasts.

    Source: both times are linear in the context.

    >>> bool(reload_wins(131_072, 50e9, 2.1e-5)), bool(reload_wins(131_072, 5e9, 2.1e-5))
    (True, False)
    """
    return np.asarray(np.asarray(kv_bytes) / bandwidth < prefill_token_seconds)[()]


def return_seconds(
    shares: Any, tokens: Any, kv_bytes: Any, bandwidths: Sequence[Any], prefill_token_seconds: Any
) -> Any:
    """Mean time a returning turn adds to its TTFT for the context it had before, [s].

    ``shares`` (..., tiers + 1) of :func:`tier_shares`, the first tier being device memory, which costs
    nothing; ``bandwidths`` of the others [B/s], in order; kv_bytes [B] per token and accelerator;
    prefill_token_seconds [s]. A tier slower than computing is not used. Broadcasts over the shares'
    leading axes. InputError when tiers and bandwidths differ in number.

    Source: expectation over the tiers.

    >>> round(float(return_seconds([0.3, 0.5, 0.2], 60_000, 131_072, [50e9], 2.1e-5)), 4)
    0.3306
    """
    shares = np.asarray(shares, dtype=float)
    if shares.shape[-1] != len(bandwidths) + 2:
        raise InputError(
            f"{len(bandwidths)} bandwidths for {shares.shape[-1] - 1} tiers",
            expected="one for each tier but device memory",
        )
    compute = np.asarray(tokens) * prefill_token_seconds
    total = shares[..., -1] * compute
    for i, bandwidth in enumerate(bandwidths, 1):
        total = total + shares[..., i] * np.minimum(reload_seconds(tokens, kv_bytes, bandwidth), compute)
    return total[()]
