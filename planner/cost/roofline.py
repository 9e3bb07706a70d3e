"""The one place that turns work into time: an operator is FLOPs, bytes and a fixed latency.

Every function broadcasts: arguments are floats or float64 arrays of shape (candidates, batches).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

#: a float, or a float64 array; every cost function broadcasts over its arguments
Array: TypeAlias = float | npt.NDArray[np.float64]


def roofline(
    flops: Array,
    bytes_moved: Array,
    peak: Array,
    bandwidth: Array,
    latency: Array = 0.0,
    exponent: float = math.inf,
) -> Array:
    """Time of one operator: ``latency + ((flops/peak)^p + (bytes/bandwidth)^p)^(1/p)``, [s].

    Args:
        flops: work, [FLOP], a multiply-add counts 2.
        bytes_moved: traffic to device memory, [B].
        peak: achieved (efficiency times dense peak) compute rate, [FLOP/s].
        bandwidth: achieved memory bandwidth, [B/s].
        latency: fixed time of the call, [s].
        exponent: p; infinity is the classic maximum of both bounds, 4 rounds the knee off, 1 adds them.

    All arguments broadcast; the result has the broadcast shape. Never below either bound.

    Source: Williams, Waterman & Patterson, "Roofline", CACM 52(4) 2009; p = 4 is the form whose
    constants fit 17 700 measured matmul shapes per chip best, and p = 1 the one of 12 900 grouped matmuls of
    experts: 8 % median error, 17 % with the maximum (ai-dynamo/aiconfigurator 0.12 tables).
    Valid for one kernel; times of successive kernels add, they don't take a maximum together.

    >>> float(round(roofline(2 * 8192**2, 2 * 8192**2, 989e12, 4.8e12) * 1e6, 2))
    27.96
    """
    compute = flops / peak
    memory = bytes_moved / bandwidth
    if math.isinf(exponent):
        return latency + np.maximum(compute, memory)
    if exponent == 1:
        return latency + compute + memory
    if exponent == 4:
        return latency + np.sqrt(np.sqrt(np.square(np.square(compute)) + np.square(np.square(memory))))
    return latency + (compute**exponent + memory**exponent) ** (1 / exponent)


@dataclass(frozen=True)
class Ceiling:
    """What one kind of operator achieves on a chip: FLOP/s, B/s and seconds per call.

    Fields are floats, or (candidates, 1) arrays when many chips are priced at once.
    """

    peak: Array
    bandwidth: Array
    latency: Array = 0.0
    exponent: float = math.inf

    def seconds(self, flops: Array, bytes_moved: Array, calls: float = 1.0) -> Array:
        """Time of ``calls`` equal calls that together do ``flops`` and move ``bytes_moved``, [s].

        Source: :func:`roofline`, summed over the calls.
        """
        return roofline(flops, bytes_moved, self.peak, self.bandwidth, calls * self.latency, self.exponent)

    def compute_bound(self, flops: Array, bytes_moved: Array) -> npt.NDArray[np.bool_]:
        """Where the compute bound of [FLOP] exceeds the memory bound of [B], boolean array.

        Source: :func:`roofline`.
        """
        return np.asarray(flops / self.peak > bytes_moved / self.bandwidth)


def critical_batch(peak: Array, bandwidth: Array, bytes_per_weight: float) -> Array:
    """Tokens per step at which a weight matmul turns compute-bound, [tokens].

    ``peak * bytes_per_weight / (2 * bandwidth)`` with peak [FLOP/s], bandwidth [B/s] and
    bytes_per_weight [B]: each weight is read once per step and used for 2 FLOP per token.

    Source: jax-ml/scaling-book, "All About Transformer Inference". Valid for dense layers; with
    top-k of E experts multiply by E/k.

    >>> round(critical_batch(989e12, 3.35e12, 2), 1)
    295.2
    """
    return peak * bytes_per_weight / (2 * bandwidth)
