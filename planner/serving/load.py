"""The demand a replica sees, as the serving formulae want it: moments and a stratified sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.cost.roofline import Array
from planner.cost.shared_prefix import group_tokens
from planner.serving.interference import Boarding, largest_aboard, largest_of
from planner.workload import Workload
from planner.workload.lengths import normal_quantile, shuffled

Vector = npt.NDArray[np.float64]
SAMPLES = 512
OTHERS = 6  # prompts that may arrive while a request waits, drawn one by one
RESIDENT_POINTS = 64


@dataclass(frozen=True)
class Load:
    """One request mix. A request is a task of ``fan_out`` sequences that share a prefix.

    ``new``, ``cached``, ``output`` [tokens] and ``weights`` [1] of shape (samples,) describe single
    sequences; ``joined`` [tokens] the longest output of a task; ``contexts`` (points,) [tokens] what
    a resident sequence has behind it; ``stored_share`` [1] of those tokens are stored once sharing is
    taken into account, ``read_share`` [1] are read each step; ``boarding`` what each sample meets on its
    way into a step, ``normal`` (samples,) standard normals to pair with requests; ``classes`` (samples,)
    the class of each; ``fleet_cv2`` squared coefficient of variation of the times between requests of
    the whole fleet [1], which sees ``peak_rate`` sequences per second [1/s], None in a closed loop.
    """

    new: Vector
    cached: Vector
    output: Vector
    joined: Vector
    weights: Vector
    contexts: Vector
    boarding: Boarding
    normal: Vector
    classes: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    mean_output: float
    fan_out: int
    shared_prefix: float
    stored_share: float
    read_share: float
    fleet_cv2: float
    peak_rate: float | None

    @property
    def decode_steps(self) -> float:
        """Tokens decoded after the first, E[O] - 1, [tokens]. Source: definition."""
        return max(self.mean_output - 1.0, 1e-6)

    @property
    def context_mean(self) -> float:
        """Mean resident context, [tokens]: E[I*O + O^2/2]/E[O]. Source: length-biased residence."""
        return float(self.contexts.mean())

    def chunks(self, budget: float) -> float:
        """Mean steps a prompt takes when a step holds ``budget`` [tokens] of it, [1]. Source: definition."""
        return float(np.average(np.ceil(self.new / budget), weights=self.weights))

    def largest(self, budget: float) -> Vector:
        """Expected largest of several chunks of at most ``budget`` [tokens], over one's mean, [1].

        Source: :func:`planner.serving.interference.largest_of`.
        """
        return largest_of(np.minimum(self.new, budget), self.weights)

    def largest_aboard(self, budget: float) -> Vector:
        """Expected longest chunk of at most ``budget`` [tokens] of a step's groups, over one sequence's mean, [1].

        That of a group is its first sequence's, which prefills the prefix for all.
        Source: :func:`planner.serving.interference.largest_aboard`.
        """
        k = self.fan_out
        prefix = np.maximum(self.shared_prefix - self.cached, 0.0) * (k - 1) / k
        first = np.minimum(np.minimum(self.new * k, self.new + prefix), budget)
        mean = float(np.average(np.minimum(self.new, budget), weights=self.weights))
        return largest_aboard(first, self.weights) * float(np.average(first, weights=self.weights)) / mean

    def arrival_cv2(self, rate: Array) -> Array:
        """Squared coefficient of variation of the times between a replica's requests, at its ``rate`` [1/s].

        A replica that gets the share p of a stream at random sees ``1 + p*(c^2 - 1)``, [1], shape of rate.

        Source: thinning of a renewal process, Cox, "Renewal Theory", 1962.

        >>> from planner.workload import load_workload
        >>> from planner.workload.examples import example_path
        >>> load = load_from(load_workload(example_path("chat"), ["demand.arrival_cv=3.0"]))
        >>> float(load.arrival_cv2(load.peak_rate / 4))
        3.0
        """
        share = 1.0 if self.peak_rate is None else np.minimum(1.0, rate / self.peak_rate)
        return 1.0 + share * (self.fleet_cv2 - 1.0)

    @property
    def overlap(self) -> float:
        """Mean of the shorter of two outputs over the mean output, [1]: half for exponential ones, 1 for equal ones.

        Source: definition, over the sample.
        """
        order = np.argsort(self.output)
        steps, share = np.maximum(self.output[order] - 1, 0.0), self.weights[order] / self.weights.sum()
        above = 1 - np.cumsum(share) + share / 2
        return float((2 * steps * share * above).sum() / max(float((steps * share).sum()), 1e-9))

    @property
    def overlap_of_requests(self) -> float:
        """Share of a request's own life that one which began with it is still there, mean over requests, [1].

        ``E[E[min(O, O') | O]/O]``: more than :attr:`overlap`, which weighs by tokens, as short answers have all
        the company they came with. Source: definition, over the sample.
        """
        steps = np.maximum(self.output - 1, 1.0)
        share = self.weights / self.weights.sum()
        shorter = np.minimum(steps[:, None], steps[None, :]) @ share
        return float((share * shorter / steps).sum())

    def class_weights(self, name: str | None) -> Vector:
        """Weights of one class's requests (all when None), (samples,), [1].

        Source: definition; KeyError never: an unknown class gives all.
        """
        if name is None or name not in self.class_names:
            return self.weights
        return np.where(self.classes == self.class_names.index(name), self.weights, 0.0)


def load_from(workload: Workload) -> Load:
    """The load of a workload: its stratified sample with subagents' sharing applied.

    Prefill of the part of a shared prefix that no cache holds is done once per task; [tokens].

    Source: PagedAttention, arXiv 2309.06180 (shared blocks stored once); Hydragen, arXiv
    2402.05099 (read once only with a cascade kernel).
    """
    sample = workload.request_sample(SAMPLES)
    contexts = workload.resident_contexts(RESIDENT_POINTS)
    agents = workload.subagents
    fan_out = agents.fan_out if agents else 1
    prefix = float(agents.shared_prefix) if agents else 0.0
    cascade = agents.cascade if agents else "off"
    new = sample.input - sample.cached
    uncached_prefix = np.clip(prefix - sample.cached, 0.0, new)
    new = np.maximum(new - uncached_prefix * (fan_out - 1) / fan_out, 1.0)
    mean_context = float(contexts.mean())
    shared = min(prefix, mean_context)
    tokens = group_tokens(shared, mean_context - shared, fan_out)
    stored = tokens.stored / tokens.read_without_cascade
    joined = sample.output
    if fan_out > 1:  # the longest of K, by its own quantiles
        u = (shuffled(SAMPLES, 5) + 0.5) / SAMPLES
        joined = np.asarray(workload.output_quantile(u ** (1 / fan_out)), dtype=float)
    peak = workload.peak_requests_per_second
    return Load(
        new,
        sample.cached,
        sample.output,
        joined,
        sample.weights,
        contexts,
        _boarding(sample.weights),
        np.asarray(normal_quantile((shuffled(SAMPLES, 3) + 0.5) / SAMPLES)),
        sample.classes,
        tuple(c.name for c in workload.classes),
        workload.moments.mean_output,
        fan_out,
        prefix,
        float(stored),
        1.0 if cascade == "off" else float(stored),
        workload.demand.arrival_cv**2,
        None if peak is None else peak * fan_out,
    )


def _boarding(weights: Vector) -> Boarding:
    """Fixed draws: Poisson arrivals at unit rate, and which requests they are, by weight."""

    def uniform(dimension: int) -> Vector:
        return np.asarray((shuffled(SAMPLES, dimension) + 0.5) / SAMPLES)

    gaps = np.stack([-np.log1p(-uniform(6 + j)) for j in range(OTHERS)], axis=1)
    share = np.cumsum(weights) / weights.sum()
    others = np.stack([np.searchsorted(share, uniform(6 + OTHERS + j)) for j in range(OTHERS)], axis=1)
    return Boarding(
        uniform(4),
        np.asarray(normal_quantile(uniform(18))),
        np.cumsum(gaps, axis=1),
        np.minimum(others, len(weights) - 1),
    )
