"""Collectives: latency plus bytes over bandwidth, by algorithm and link.

A measured all-reduce is two numbers per chip, engine and group size (``hardware_db``); the
algorithm formulae below price what was not measured and bound what was.
"""

from __future__ import annotations

import numpy as np

from planner.cost.roofline import Array


def measured_all_reduce(message: Array, latency: Array, bandwidth: Array) -> Array:
    """Time of an all-reduce of ``message`` bytes from its fitted constants, [s].

    ``latency + message/bandwidth``: message [B], latency [s], bandwidth [B/s]; shapes broadcast.

    Source: fits to ai-dynamo/aiconfigurator 0.12 all-reduce tables, 256 B to 1 GiB.

    >>> round(160 * measured_all_reduce(2 * 8192, 5.41e-6, 195e9) * 1e3, 3)
    0.879
    """
    return latency + message / bandwidth


def one_shot(message: Array, ranks: Array, latency: Array, bandwidth: Array) -> Array:
    """Every rank reads all others' data at once: ``a + (n-1)*S/b``, [s].

    message S [B], ranks n, latency a [s], bandwidth b of one rank's links [B/s]; shapes broadcast.
    Source: NVIDIA TensorRT-LLM custom all-reduce (one-shot). Best below some 100 KB.

    >>> float(round(one_shot(16384, 8, 5e-6, 450e9) * 1e6, 2))
    5.25
    """
    return np.where(np.asarray(ranks) > 1, latency + (ranks - 1) * message / bandwidth, 0.0)[()]


def two_shot(message: Array, ranks: Array, latency: Array, bandwidth: Array) -> Array:
    """Reduce-scatter then all-gather in two exchanges: ``2a + 2(n-1)/n*S/b``, [s].

    Arguments as in :func:`one_shot`: [B], ranks, [s], [B/s]; shapes broadcast.
    Source: NVIDIA TensorRT-LLM custom all-reduce (two-shot); vLLM custom all-reduce.

    >>> float(round(two_shot(1 << 20, 8, 5e-6, 450e9) * 1e6, 2))
    14.08
    """
    moved = 2 * (ranks - 1) / ranks * message / bandwidth
    return np.where(np.asarray(ranks) > 1, 2 * latency + moved, 0.0)[()]


def ring(message: Array, ranks: Array, latency: Array, bandwidth: Array) -> Array:
    """Ring all-reduce: ``2(n-1)*a + 2(n-1)/n*S/b``, [s].

    Arguments as in :func:`one_shot`: [B], ranks, [s] per hop, [B/s]; shapes broadcast.
    Source: Patarasuk & Yuan, "Bandwidth optimal all-reduce", JPDC 69(2) 2009.

    >>> round(ring(1 << 20, 8, 1e-6, 450e9) * 1e6, 2)
    18.08
    """
    return 2 * (ranks - 1) * latency + 2 * (ranks - 1) / ranks * message / bandwidth


def nccl(message: Array, ranks: Array, base: Array, hop: Array, bandwidth: Array) -> Array:
    """NCCL's own latency model for a ring inside a node: ``base + 2(n-1)*hop + 2(n-1)/n*S/b``, [s].

    message [B], ranks, base and hop [s], bandwidth [B/s]; shapes broadcast.
    Source: NCCL src/graph/tuning.cc (baseLat, hwLat tables). Ring only; trees win across nodes.

    >>> float(round(nccl(0.0, 8, 6.6e-6, 0.6e-6, 360e9) * 1e6, 1))
    15.0
    """
    return np.where(np.asarray(ranks) > 1, base + ring(message, ranks, hop, bandwidth), 0.0)[()]


def hierarchical(
    message: Array,
    ranks_per_node: Array,
    nodes: Array,
    intra_seconds: Array,
    hop_latency: Array,
    nic_bandwidth: Array,
) -> Array:
    """All-reduce across nodes: inside each node, then a tree between them, [s].

    ``intra + 2*log2(nodes)*hop + 2(m-1)/m * (S/ranks_per_node)/nic``: message S [B],
    intra_seconds [s] of the part inside a node, hop_latency [s], nic_bandwidth [B/s] of one
    accelerator; shapes broadcast. One node costs ``intra_seconds``.

    Source: Thakur, Rabenseifner & Gropp, "Optimization of collective communication", IJHPCA 2005.

    >>> float(round(hierarchical(1 << 20, 8, 2, 14e-6, 5e-6, 50e9) * 1e6, 2))
    26.62
    """
    exchanged = 2 * (nodes - 1) / nodes * (message / ranks_per_node) / nic_bandwidth
    return intra_seconds + 2 * np.log2(nodes) * hop_latency + exchanged


def ranks_touched(ranks: Array, top_k: int) -> Array:
    """Expected distinct expert-parallel ranks one token is sent to, [ranks].

    ``EP * (1 - (1 - 1/EP)^k)`` for ranks EP and top_k experts per token.
    Source: DeepSeek DeepEP (tokens are deduplicated per destination); balls into bins.

    >>> round(ranks_touched(8, 8), 4)
    5.2511
    """
    return ranks * (1 - (1 - 1 / ranks) ** top_k)


def all_to_all_bytes(
    tokens: Array, hidden: int, top_k: int, ranks: Array, dispatch_bytes: float = 1.0
) -> tuple[Array, Array]:
    """Bytes one rank sends to dispatch, and receives to combine, its tokens, ([B], [B]).

    ``T*k'*d*b_dispatch`` (fp8 by default, sent once per destination rank) and ``T*k*d*2`` (bf16):
    tokens T of this rank [tokens], hidden d [elements], ranks of the expert-parallel group.
    Source: DeepSeek DeepEP low-latency kernels; check: 128 tokens, d = 7168, k = 8 give 7.34 MB
    dispatched without deduplication and 14.68 MB combined.

    >>> [round(x / 1e6, 3) for x in all_to_all_bytes(128, 7168, 8, 8)]
    [4.818, 14.68]
    """
    return (
        tokens * hidden * dispatch_bytes * ranks_touched(ranks, top_k),
        tokens * hidden * 2.0 * top_k,
    )
