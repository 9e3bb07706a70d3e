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
#: prompts expected on a step, and how many are on those that carry any: the same for a Poisson number
EXPECTED = np.array([1e-6, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
ABOARD = EXPECTED / -np.expm1(-EXPECTED)
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
    ranked, below, above, mean = _ranked(sizes, weights)
    k = COUNTS[:, None]
    found: Vector = (ranked * (above**k - below**k)).sum(axis=1) / mean
    return found


def largest_aboard(sizes: Vector, weights: Vector) -> Vector:
    """Expected largest of a Poisson number of independent sizes, at least one, over the mean of one, (11,), [1].

    At the mean numbers :data:`ABOARD`. ``sizes`` (n,) in any unit with ``weights`` (n,) [1]:
    ``P(largest <= x) = (e^(a F(x)) - 1)/(e^a - 1)`` for a expected and the distribution F of the sample.

    Source: order statistics of the weighted sample, the number of them a Poisson one without its zero.

    >>> import numpy as np
    >>> [round(float(x), 2) for x in largest_aboard(np.array([1.0, 3.0]), np.array([0.5, 0.5]))[[0, 3, 6]]]
    [1.0, 1.12, 1.48]
    """
    ranked, below, above, mean = _ranked(sizes, weights)
    a = EXPECTED[:, None]
    steps = np.exp(a * (above - 1)) - np.exp(a * (below - 1))
    found: Vector = (ranked * steps).sum(axis=1) / -np.expm1(-EXPECTED) / mean
    return found


def _ranked(sizes: Vector, weights: Vector) -> tuple[Vector, Vector, Vector, float]:
    """Sizes in order, the shares of the sample below each and up to it, and the mean."""
    order = np.argsort(sizes)
    ranked, share = sizes[order], weights[order] / weights.sum()
    above = np.minimum(np.cumsum(share), 1.0)
    return ranked, np.maximum(above - share, 0.0), above, float((ranked * share).sum())


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
    sharing: Matrix | None = None,
    stage: Matrix | None = None,
    stage_sharing: Matrix | None = None,
    chunk_cv2: float = 1.0,
) -> MixedSteps:
    """Length of a step when prompts arrive at ``rate`` [1/s], (candidates, batches).

    One rank: ``T/(1 - rate*s)`` for decode T and work s of a prompt [s], with second moment
    ``work_second`` [s^2] and ``sharing`` [s] as in :func:`shared_work`; its variance solves ``v =
    rate*X*E[s^2] + rho^2*v``. Several ``ranks`` (candidates, 1): of steps a share p carries prompts, ``p = a/(a +
    E[exp(-rate*(T+E))])`` with ``a = 1 - exp(-rate*T)``, and is longer by E, gamma distributed as chunks with
    their ``chunk_cv2`` [1]: the largest of the prompts on it (``largest``, from :func:`largest_aboard`) and at
    least an even split, but of what a stage's ranks share, ``stage`` and ``stage_sharing`` [s], the sum. A
    prompt takes ``chunks`` steps [1]; ``group`` of them arrive together, of one size; ``arrival_cv2`` of the times
    between groups [1].

    Source: renewal argument of chunked prefill, arXiv 2403.02310; a two-state chain of steps.

    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> found = mixed_steps(0.02 * one, 0.05 * one, 0.005 * one, 8.0, one, 1.0)
    >>> round(float(found.seconds[0, 0]), 4), round(float(found.share[0, 0]), 2)
    (0.0333, 0.4)
    """
    shape = np.broadcast_shapes(np.shape(decode), np.shape(np.asarray(rate)))
    decode = np.broadcast_to(decode, shape)
    several = np.flatnonzero(np.asarray(ranks)[:, 0] > 1) if largest is not None else np.empty(0, int)
    if largest is None or len(several) < shape[0]:
        each, each_second = work, work_second
        if sharing is not None:
            each, each_second = shared_work(decode, work, work_second, sharing, rate, group, arrival_cv2)
        seconds, share, variation = _one_rank(decode, each, each_second, rate, group * arrival_cv2)
    else:
        seconds, share, variation = (np.empty(shape) for _ in range(3))
    if largest is not None and len(several):
        some = np.broadcast_to(np.asarray(rate), (shape[0], 1))[several]
        parts = tuple(0.0 * work[several] if x is None else x[several] for x in (sharing, stage, stage_sharing))
        found = _lockstep(
            decode[several], work[several], parts, some, ranks[several], chunks, chunk_cv2, group, largest
        )
        seconds, share, variation = seconds.copy(), share.copy(), np.array(variation)
        seconds[several], share[several], variation[several] = found
    return MixedSteps(seconds, share, variation)


def _one_rank(
    decode: Matrix, work: Matrix, work_second: Matrix, rate: Array, together: Array
) -> tuple[Matrix, Matrix, Matrix]:
    share = np.minimum(np.asarray(rate * work), 1 - STABLE)
    seconds = decode / (1 - share)
    scatter = np.maximum(0.0, work_second - work**2) + together * work**2
    return seconds, share, rate * scatter / (seconds * (1 - share**2))


def shared_work(
    decode: Matrix, work: Matrix, work_second: Matrix, sharing: Matrix, rate: Array, group: float, arrival_cv2: Array
) -> tuple[Matrix, Matrix]:
    """First two moments of what a prompt adds to its step, others on it, [s] and [s^2], (candidates, batches).

    As much as alone, ``work``, and ``sharing`` [s] more for all but one of a step's prompts: a decode step reads
    its weights anyway, so the first has that time for nothing; experts it reads serve the others too. Other
    arguments as in :func:`mixed_steps`.

    Source: roofline of a step; :func:`apart`.
    """
    seconds, _, variation = _one_rank(decode, work, work_second, rate, group * arrival_cv2)
    more = (1 - apart(rate * seconds, group, arrival_cv2, variation)) * sharing
    return work + more, work_second + 2 * work * more + more**2


def apart(count: Array, group: float, arrival_cv2: Array, variation: Matrix) -> Matrix:
    """Steps with prompts over prompts, [1]: one where each is alone on its step.

    ``count`` of them join a step on average [1]: groups of ``group``, whose number on a step is negative
    binomial, its variance over its mean ``D = ca^2 + v*count/group`` for steps that vary by ``variation`` v [1].
    None comes with ``D^(-count/group/(D-1))``.

    Source: mixture of Poisson counts over lengths of a gamma distribution.

    >>> round(float(apart(0.4, 1.0, 1.0, np.array(1.0))), 3), round(float(apart(0.4, 1.0, 4.0, np.array(1.0))), 3)
    (0.714, 0.4)
    """
    groups = np.maximum(count / group, 1e-9)
    excess = np.maximum(arrival_cv2 - 1 + variation * groups, 1e-9)
    found: Matrix = -np.expm1(-groups * np.log1p(excess) / excess) / (groups * group)
    return found


def _lockstep(
    decode: Matrix,
    work: Matrix,
    parts: tuple[Matrix, ...],
    rate: Matrix,
    ranks: Matrix,
    chunks: float,
    chunk_cv2: float,
    group: float,
    largest: Vector,
) -> tuple[Matrix, Matrix, Matrix]:
    sharing, stage, stage_sharing = parts
    # of the longest prompt on a rank, of every prompt on the stage, and what the first of them doesn't pay
    longest, everyone = (work - stage) / chunks + sharing - stage_sharing, stage / chunks + stage_sharing
    longer, step = work / chunks, decode.copy()
    busy = np.zeros_like(decode)
    logs = np.log(ABOARD)
    groups = rate * chunks / group
    some = -np.expm1(-groups * decode)
    quiet = np.exp(-np.minimum(groups * decode, 50.0))
    scaled, power = chunk_cv2 * groups, -1 / chunk_cv2
    for _ in range(ITERATIONS):
        # a long step lets others arrive, which board the next
        busy = some / (some + quiet * (1 + scaled * longer) ** power)
        aboard = np.maximum(group * groups * step / np.maximum(busy, 1e-12), group)
        top = np.interp(np.log(aboard / group), logs, largest)
        many = np.maximum(np.minimum(aboard, top), aboard / ranks)
        longer = 0.5 * (longer + longest * many + everyone * aboard - sharing)
        step = np.minimum(0.5 * (step + decode + busy * longer), decode / STABLE)
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
    rate: Array, mixed: MixedSteps, group: float = 1.0, arrival_cv2: Array = 1.0, steps: float = 1.0
) -> Matrix:
    """Seconds of prompts a sequence meets beyond their usual share of its time, (candidates, batches), [s].

    Its own arrival is when others are likely: siblings of its ``group`` K still to be prefilled (half of them
    where a group takes many ``steps`` [1]), the rest of a burst, and those that came while it was prefilled. On
    the clock that stops for prompts, arrivals vary by ``K*ca^2/(1-rho)^2`` of their mean, as many come in a
    prompt's time too. Of the excess ``K*ca^2/(1-rho)^2 - 1`` around an arrival, K/(1-rho^2) - 1 shares its step and
    half of the rest comes later, each ``rho/rate`` long. Negative for regular arrivals. ``rate`` [1/s].

    Source: Palm calculus of a stationary point process; counts of steps with ``n' ~ Poisson(rate*(T + s*n))``.
    """
    rho = mixed.share
    siblings = group * (1 - 1 / steps) / 2 if group > 1 else 0.0
    behind = group / 2 * (arrival_cv2 / (1 - rho) ** 2 - 1 / (1 - rho**2))
    found: Matrix = (siblings / (1 - rho) + behind) * rho / rate
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
    reached = np.asarray(rate) / group * length
    alone = np.asarray(ranks)[:, 0] == 1
    one, several = np.flatnonzero(alone), np.flatnonzero(~alone)
    if len(one):
        work, until = own[one], reached[one]
        ahead = np.zeros_like(work)
        for j in range(meet.arrivals.shape[1]):
            ahead += np.take(work, meet.others[:, j], axis=1) * (meet.arrivals[:, j] < until)
        # whoever comes after those drawn counts as an average one
        ahead += work.mean(axis=1, keepdims=True) * np.maximum(0.0, until - meet.arrivals[:, -1])
        wait[one] += group * ahead
    if len(several):
        # side by side: a step lasts as long as the longest prompt on it
        work, until = own[several], reached[several]
        longest = work.copy()
        for j in range(meet.arrivals.shape[1]):
            other = np.take(work, meet.others[:, j], axis=1)
            np.maximum(longest, other * (meet.arrivals[:, j] < until), out=longest)
        wait[several] += longest - work
    return wait
