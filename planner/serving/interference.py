"""What prompts do to a replica's decoding: longer steps, more uneven occupancy, waits to board a step.

Prompts ride on the steps of the decoding batch. With one attention rank their work adds up; with
several each is prefilled by one rank while the others wait at the step's end, so the longest counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.cost.roofline import Array

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]
#: how many prompts the curve of the largest is known for; between them it is interpolated
COUNTS = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
ITERATIONS = 16
STABLE = 1e-6  # least share of time left for decoding
MOST_SHARE = 0.95


def largest_of(sizes: Vector, weights: Vector) -> Vector:
    """Expected largest of 1, 2, 4, … 128 independent sizes over the mean of one, (8,), [1].

    ``sizes`` (n,) in any unit with ``weights`` (n,) [1]. Source: order statistics of the weighted sample.

    >>> import numpy as np
    >>> [round(float(x), 2) for x in largest_of(np.array([1.0, 3.0]), np.array([0.5, 0.5]))[:3]]
    [1.0, 1.25, 1.44]
    """
    order = np.argsort(sizes)
    ranked, share = sizes[order], weights[order] / weights.sum()
    above = np.minimum(np.cumsum(share), 1.0)
    below = above - share
    k = COUNTS[:, None]
    found: Vector = (ranked * (above**k - np.maximum(below, 0.0) ** k)).sum(axis=1) / (ranked * share).sum()
    return found


@dataclass(frozen=True)
class MixedSteps:
    """Steps of a replica with prompts among its decodes, in the shape of their batch axis.

    ``seconds`` mean step [s]; ``share`` of time in prefill [1]; ``variation`` squared coefficient of
    variation of a step's length [1].
    """

    seconds: Matrix
    share: Matrix
    variation: Matrix


def mixed_steps(
    decode: Matrix,
    work: Matrix,
    work_second: Matrix,
    rate: Array,
    ranks: Matrix,
    chunks: float,
    group: float = 1.0,
    arrival_cv2: Array = 1.0,
    largest: Vector | None = None,
) -> MixedSteps:
    """Length of a step when prompts arrive at ``rate`` [1/s], (candidates, batches).

    One rank: ``T/(1 - rate*s)`` for decode T and work s of a prompt [s], with second moment
    ``work_second`` [s^2]; its variance solves ``v = rate*X*E[s^2] + rho^2*v``. Several ``ranks``
    (candidates, 1): of steps a share p carries prompts, ``p = a/(a + exp(-rate*(T+E)))`` with ``a = 1 -
    exp(-rate*T)``, and is longer by E, the largest of the prompts on it (``largest``, from
    :func:`largest_of`) and at least an even split. A prompt takes ``chunks`` steps [1]; ``group`` of them
    arrive together, of one size; ``arrival_cv2`` of the times between groups [1].

    Source: renewal argument of chunked prefill, arXiv 2403.02310; a two-state chain of steps.

    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> found = mixed_steps(0.02 * one, 0.05 * one, 0.005 * one, 8.0, one, 1.0)
    >>> round(float(found.seconds[0, 0]), 4), round(float(found.share[0, 0]), 2)
    (0.0333, 0.4)
    """
    shape = np.broadcast_shapes(np.shape(decode), np.shape(np.asarray(rate)))
    decode = np.broadcast_to(decode, shape)
    load = np.asarray(rate * work)
    share = np.minimum(load, 1 - STABLE)
    seconds = decode / (1 - share)
    scatter = np.maximum(0.0, work_second - work**2) + group * arrival_cv2 * work**2
    variation = rate * seconds * scatter / (1 - share**2) / seconds**2
    several = np.flatnonzero(np.asarray(ranks)[:, 0] > 1)
    if len(several) and largest is not None:
        some = np.broadcast_to(np.asarray(rate), (shape[0], 1))[several]
        found = _lockstep(decode[several], work[several], some, ranks[several], chunks, group, largest)
        seconds, share, variation = seconds.copy(), share.copy(), np.array(variation)
        seconds[several], share[several], variation[several] = found
    return MixedSteps(seconds, share, variation)


def _lockstep(
    decode: Matrix, work: Matrix, rate: Matrix, ranks: Matrix, chunks: float, group: float, largest: Vector
) -> tuple[Matrix, Matrix, Matrix]:
    each = work / chunks
    longer, step = each.copy(), decode.copy()
    busy = np.zeros_like(decode)
    logs = np.log(COUNTS)
    for _ in range(ITERATIONS):
        some = -np.expm1(-rate * chunks / group * decode)
        # a long step lets others arrive, which board the next
        none = np.exp(-np.minimum(rate * chunks / group * (decode + longer), 50.0))
        busy = some / (some + none)
        aboard = np.maximum(rate * chunks * step / np.maximum(busy, 1e-12), group)
        top = np.interp(np.log(np.maximum(aboard / group, 1.0)), logs, largest)
        longer = 0.5 * longer + 0.5 * each * np.maximum(np.minimum(aboard, top), aboard / ranks)
        step = np.minimum(0.5 * step + 0.5 * (decode + busy * longer), decode / STABLE)
    return step, np.minimum(1 - decode / step, 1 - STABLE), busy * (1 - busy) * longer**2 / step**2


def dispersion(
    rate: Array, tokens: Array, batch: Array, decode: Matrix, mixed: MixedSteps, work: Matrix, work_second: Matrix,
    group: float = 1.0, arrival_cv2: Array = 1.0, overlap: float = 0.5,
) -> Matrix:  # fmt: skip
    """Variance of flows in and out of a state over that of Poisson ones, (candidates, batches), [1].

    While a prompt of s seconds is prefilled nobody decodes: its arrival adds ``x = 1 + mu*s`` sequences,
    with mu the completions per second of decoding at ``batch`` n, ``n/(tokens*T(n))``. Flows vary by
    ``rate*(Var x + K*ca^2*E[x]^2) + d`` for groups of K and departures d, Poisson ones by ``rate + d``. What
    arrives together leaves together again where outputs are alike: of the excess ``2*overlap`` stays, with
    ``overlap`` E[min(O, O')]/E[O] [1], half for exponential outputs.

    rate [1/s], tokens steps of a sequence [1], T ``decode`` [s], s ``work`` and ``work_second`` [s^2].

    Source: diffusion approximation of a queue with interruptions, Whitt, "Stochastic-Process Limits", 2002.
    """
    per_work = mixed.share / np.maximum(rate * work, 1e-30)  # below one where ranks prefill in parallel
    out = batch / (tokens * mixed.seconds)
    held = batch / (tokens * decode) * per_work
    mean = 1 + held * work
    spread = np.maximum(0.0, held**2 * (work_second - work**2))
    excess = 2 * overlap * (spread + group * arrival_cv2 * mean**2 - 1)
    found: Matrix = np.maximum(1 + rate * excess / (rate + out), 1e-3)
    return found


def own_stall(
    rate: Array, work: Matrix, mixed: MixedSteps, group: float = 1.0, arrival_cv2: Array = 1.0, steps: float = 1.0
) -> Matrix:
    """Seconds of prompts a sequence meets beyond their usual share of its time, (candidates, batches), [s].

    Its own arrival is when others are likely: siblings of its ``group`` still to be prefilled (half of them
    where a group takes many ``steps`` [1]), the rest of a burst, ``(ca^2 - 1)/2`` groups more than usual, and
    the ``rate*s`` prompts that came while its own of ``work`` s [s] was prefilled. Each takes s stretched by
    what arrives meanwhile. Negative for regular arrivals. ``rate`` [1/s].

    Source: the renewal function ``m(t) = t/E[X] + (ca^2 - 1)/2`` of arrivals counted from one of them.
    """
    per_work = mixed.share / np.maximum(rate * work, 1e-30)
    siblings = group * (1 - 1 / steps) / 2 if group > 1 else 0.0
    burst = (arrival_cv2 - 1) / 2 * group
    found: Matrix = (siblings + burst + rate * work) * work * per_work / (1 - mixed.share)
    return found


def crowded_share(share: Matrix, level: Matrix, spread: Matrix, elasticity: Matrix) -> Matrix:
    """Share of time in prefill while the occupancy is ``level`` times its mean, (candidates, levels), [1].

    A replica is fuller than usual mostly because more prompts than usual arrived: of the variance of its
    occupancy the part ``(2*phi - 1)/(2*phi)`` is theirs, for ``spread`` phi of :func:`dispersion`, and an
    excess fades at ``1 - elasticity`` of the step in the batch. ``share`` [1] at the mean.

    Source: regression of the arrivals on the state of an Ornstein-Uhlenbeck process.
    """
    caused = np.clip((2 * spread - 1) / (2 * spread), 0.0, 1.0)
    found: Matrix = np.clip(share * (1 + caused * (1 - elasticity) * (level - 1)), 0.0, MOST_SHARE)
    return found


@dataclass(frozen=True)
class Boarding:
    """What a sample of requests meets on its way into a step; fixed draws, so that figures are smooth.

    ``uniform`` (samples,) position in the running step [1]; ``normal`` (samples,) of its length;
    ``arrivals`` (samples, others) times of others at unit rate; ``others`` (samples, others) which
    request each of them is.
    """

    uniform: Vector
    normal: Vector
    arrivals: Matrix
    others: npt.NDArray[np.int64]


def boarding_wait(
    meet: Boarding, decode: Matrix, rate: Array, mixed: MixedSteps, own: Matrix, ranks: Matrix, group: float = 1.0
) -> Matrix:
    """Time from arrival to the start of a request's own prefill, (candidates, samples), [s].

    The rest of the running step, and the prompts that arrived during it and share the next: a step found
    by chance is longer than the mean one by its ``variation``. ``decode`` (candidates, samples or 1) [s]
    as met; ``rate`` and ``mixed`` (candidates, samples or 1) at that moment; ``own`` (candidates, samples)
    [s] every request's prefill. Several
    ``ranks`` prefill others at the same time.

    Source: length-biased residual of a renewal process; prompts gathered while a step runs are served
    together in the next (continuous batching, Orca, OSDI 2022).
    """
    step = decode / (1 - mixed.share)
    met = step * (1 + mixed.variation)
    spread = mixed.variation / 9
    length = met * np.maximum(0.0, 1 - spread + meet.normal * np.sqrt(spread)) ** 3
    wait = meet.uniform * length
    alone = np.asarray(ranks) == 1
    if np.any(alone):
        count = np.asarray(rate) / group
        ahead = np.zeros_like(own)
        for j in range(meet.arrivals.shape[1]):
            ahead += own[:, meet.others[:, j]] * (meet.arrivals[:, j] < count * length)
        # whoever comes after those drawn counts as an average one
        ahead += own.mean(axis=1, keepdims=True) * np.maximum(0.0, count * length - meet.arrivals[:, -1])
        wait = wait + np.where(alone, group * ahead, 0.0)
    if not np.all(alone):
        # side by side: a step lasts as long as the longest prompt on it
        count = np.asarray(rate) / group
        longest = own
        for j in range(meet.arrivals.shape[1]):
            longest = np.maximum(longest, own[:, meet.others[:, j]] * (meet.arrivals[:, j] < count * length))
        wait = wait + np.where(alone, 0.0, longest - own)
    return wait
