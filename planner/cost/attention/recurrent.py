"""Linear attention and state-space layers: a state per sequence instead of a cache per token."""

from __future__ import annotations

import numpy as np

from planner.cost.attention.base import AttentionCost, Part
from planner.cost.roofline import Array
from planner.models.layers import LinearAttention

#: FLOPs per state element and token: decay, outer-product update and read-out
FLOPS_PER_STATE_ELEMENT = 6.0
CONV_BYTES = 2  # convolution inputs are kept in bf16


class LinearAttentionCost(AttentionCost):
    """Gated DeltaNet, Kimi delta attention, Mamba-2 or lightning attention.

    State ``heads*d_k*d_v`` elements plus the convolution's last inputs. A decode step reads the
    state once and writes it once per token it may have to roll back to: ``(1 + q)`` times its size.

    Source: Yang et al., "Gated Delta Networks", arXiv 2412.06464; Kimi Linear, arXiv 2510.26692;
    Dao & Gu, "Mamba-2", arXiv 2405.21060. Prefill FLOPs use the same per-token count (chunked
    forms do up to twice as many).
    """

    def __init__(self, spec: LinearAttention) -> None:
        self.spec = spec

    @property
    def state_bytes(self) -> float:
        """Bytes of one sequence's state in this layer, [B]. Source: see the class.

        >>> LinearAttentionCost(LinearAttention("kda", 96, 128, 128)).state_bytes
        6291456.0
        """
        s = self.spec
        conv = max(0, s.conv - 1) * s.conv_channels * CONV_BYTES
        return float(s.heads * s.key_dim * s.value_dim * s.state_bytes + conv)

    def _elements(self) -> float:
        return float(self.spec.heads * self.spec.key_dim * self.spec.value_dim)

    def stored_bytes(self, context: Array, kv_format: str) -> Array:
        """Nothing per token: 0 [B], shape of context. Source: see the class."""
        return 0.0 * context

    def decode(self, context: Array, queries: int, kv_format: str) -> tuple[Part, ...]:
        """State traffic and update, [FLOP] and [B], whatever the context. Source: see the class."""
        ones = np.ones_like(np.asarray(context, dtype=float))[()]
        flops = FLOPS_PER_STATE_ELEMENT * self._elements() * queries * ones
        return (Part("recurrent", flops, (1 + queries) * self.state_bytes * ones, "state"),)

    def prefill(self, new: Array, cached: Array, kv_format: str) -> tuple[Part, ...]:
        """Linear in ``new`` [tokens]; the state is read and written once, [FLOP], [B]. Source: the class."""
        flops = FLOPS_PER_STATE_ELEMENT * self._elements() * new
        return (Part("recurrent", flops, 2 * self.state_bytes + 0.0 * new, "state"),)

    def kv_fraction(self, tensor_parallel: Array) -> Array:
        """The state splits by heads: ``1/n``, [1]. Source: head sharding."""
        return 1.0 / tensor_parallel
