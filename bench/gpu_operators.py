"""The operators between the benchmark's matmuls, in torch and in Triton. Needs torch; Triton on a GPU.

:class:`Plain` is the reference and what a processor runs. :class:`Fused` overrides it with ``bench.gpu_kernels``; an
operator whose kernel fails its check falls back to torch, which is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch.nn import functional

Tensor = torch.Tensor
LOG2E = math.log2(math.e)
FP8 = torch.float8_e4m3fn
#: (heads, tokens, warps, stages) of a program of attention, by whether the cache is a latent
TILES = {
    False: {"16x64": (16, 64, 4, 3), "16x128": (16, 128, 4, 3), "16x32": (16, 32, 4, 4)},
    True: {"64x64": (64, 64, 8, 2), "64x32": (64, 32, 8, 2), "16x32": (16, 32, 4, 2), "16x64": (16, 64, 8, 2)},
}


class Plain:
    """Every operator in torch. Views are (sequence, token, head, dim), tables of angles fp32."""

    kernels = "torch"

    def __init__(self, device: str, tokens: int, dims: tuple[int, ...]) -> None:
        self.device = device
        self.angles: dict[int, tuple[Tensor, Tensor]] = {}
        place = torch.arange(tokens, device=device, dtype=torch.float32)
        for dim in dims:
            rates = 500000.0 ** (-torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim)
            turned = place[:, None] * rates
            self.angles[dim] = (turned.cos().contiguous(), turned.sin().contiguous())

    def norm(self, x: Tensor, weight: Tensor, delta: Tensor | None = None) -> Tensor:
        """RMS norm of the rows of x, (rows, dim) maybe strided, after adding delta to x in place."""
        if delta is not None:
            x += delta
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * weight[: x.shape[-1]].float()).to(
            x.dtype
        )

    def gate(self, x: Tensor) -> Tensor:
        """SwiGLU of (rows, 2 * width)."""
        gate, up = x.chunk(2, -1)
        return functional.silu(gate) * up

    def rotate(self, x: Tensor, out: Tensor, first: int) -> None:
        """Rotary embedding of x into out, both views, tokens from place ``first`` on."""
        cos, sin = (t[first : first + x.shape[1], None] for t in self.angles[x.shape[-1]])
        a, b = x.float().chunk(2, -1)
        out.copy_(torch.cat((a * cos - b * sin, b * cos + a * sin), -1))

    def copy(self, x: Tensor, out: Tensor) -> None:
        """x into out, both views."""
        out.copy_(x)

    def variants(self, latent: bool, sparse: bool) -> tuple[str, ...]:
        """Ways to run decode attention, the best of which is chosen at each point."""
        return ("gathered",) if sparse else ("sdpa",)

    def attend(
        self, how: str, q: Tensor, rope: Tensor | None, k: Tensor, v: Tensor | None, scale: float,
        picked: Tensor | None = None, first: int = 0, step: int = 0,
    ) -> Tensor:  # fmt: skip
        """One query token a row: q (rows, KV heads, group, D), k (rows, KV heads, tokens, D + R).

        ``picked`` (rows, n): tokens to attend to; row b sees ``first + b * step`` tokens, all where ``first`` is 0.
        """
        if rope is not None:
            q = torch.cat((q, rope), -1)
        if v is None:
            v = k[..., : q.shape[-1] - (rope.shape[-1] if rope is not None else 0)]
        if picked is None:
            return functional.scaled_dot_product_attention(q, k, v, scale=scale)
        seen = first + torch.arange(q.shape[0], device=q.device) * step
        valid = picked < seen[:, None]
        rows = [x.expand(q.shape[0], -1, -1, -1).gather(2, picked[:, None, :, None].expand(-1, 1, -1, x.shape[-1]))
                for x in (k, v)]  # fmt: skip
        return functional.scaled_dot_product_attention(q, rows[0], rows[1], valid[:, None, None], scale=scale)

    def score(
        self, q: Tensor, gates: Tensor, keys: Tensor, scales: Tensor, first: int, step: int
    ) -> Tensor:  # fmt: skip
        """Index scores (rows, tokens) of fp8 q (rows, heads, dim) over fp8 keys (rows or 1, tokens, dim)."""
        found = torch.einsum("bhd,xsd->bhs" if keys.shape[0] == 1 else "bhd,bsd->bhs", q.float(), keys.float())
        found = (found.relu() * gates.float()[..., None]).sum(1) * scales
        seen = first + torch.arange(q.shape[0], device=q.device) * step
        return found.masked_fill(torch.arange(keys.shape[1], device=q.device) >= seen[:, None], -math.inf)

    def expert_variants(self) -> tuple[str, ...]:
        """Ways to run the grouped matmuls."""
        return ("loop",)

    def sorted(self, ids: Tensor, experts: int) -> tuple[Tensor, Tensor]:
        """Pairs of token and expert in the order of experts, and where each expert's begin, (experts + 1,)."""
        flat = ids.reshape(-1)
        order = flat.argsort(stable=True)
        counts = torch.zeros(experts + 1, dtype=torch.long, device=flat.device)
        counts.scatter_add_(0, flat + 1, torch.ones_like(flat))
        return order, counts.cumsum(0)

    def experts(
        self, how: str, x: Tensor, up: Tensor, down: Tensor, order: Tensor, offsets: Tensor, shares: Tensor
    ) -> Tensor:
        """Routed experts: x (tokens, hidden), up (experts, 2 * ffn, hidden), down (experts, hidden, ffn)."""
        top_k = shares.shape[1]
        rows = x[order // top_k]
        if how == "_grouped_mm":
            ends = offsets[1:].to(torch.int32)
            wide = torch._grouped_mm(rows, up.transpose(1, 2), offs=ends)
            found = torch._grouped_mm(self.gate(wide), down.transpose(1, 2), offs=ends)
        else:
            found = torch.empty_like(rows)
            at = offsets.tolist()
            for e, (begin, end) in enumerate(pairwise(at)):
                if end > begin:
                    wide = functional.linear(rows[begin:end], up[e])
                    found[begin:end] = functional.linear(self.gate(wide), down[e])
        found = found * shares.reshape(-1)[order, None].to(found.dtype)
        back = torch.empty_like(found)
        back[order] = found
        return back.view(x.shape[0], top_k, -1).sum(1)


class Fused(Plain):
    """The same with Triton's kernels."""

    kernels = "triton"

    def __init__(self, device: str, tokens: int, dims: tuple[int, ...], processors: int) -> None:
        super().__init__(device, tokens, dims)
        from bench import gpu_kernels

        self.k = gpu_kernels
        self.processors = processors
        self.nothing = torch.empty(1, dtype=torch.bfloat16, device=device)
        self.floats = torch.empty(1, dtype=torch.float32, device=device)
        self.places = torch.zeros(1, dtype=torch.long, device=device)

    def norm(self, x: Tensor, weight: Tensor, delta: Tensor | None = None) -> Tensor:
        rows, dim = x.shape
        out = torch.empty((rows, dim), dtype=x.dtype, device=x.device)
        block = 1 << (dim - 1).bit_length()
        self.k.norm[(rows,)](
            x, self.nothing if delta is None else delta, weight, out, dim, block, delta is not None, x.stride(0), 1e-6,
            num_warps=8 if block > 2048 else 4,
        )  # fmt: skip
        return out

    def gate(self, x: Tensor) -> Tensor:
        rows, width = x.shape[0], x.shape[1] // 2
        out = torch.empty((rows, width), dtype=x.dtype, device=x.device)
        self.k.gate[(rows, -(-width // 1024))](x, out, width, 1024)
        return out

    def rotate(self, x: Tensor, out: Tensor, first: int) -> None:
        seqs, tokens, heads, dim = x.shape
        self.k.rotate[(seqs * tokens, heads)](
            x, *self.angles[dim], out, tokens, first, dim // 2, *x.stride()[:3], *out.stride()[:3], num_warps=1
        )

    def copy(self, x: Tensor, out: Tensor) -> None:
        seqs, tokens, heads, dim = x.shape
        self.k.copy_heads[(seqs * tokens, heads)](
            x, out, tokens, 0, dim, *x.stride()[:3], *out.stride()[:3], num_warps=1
        )

    def variants(self, latent: bool, sparse: bool) -> tuple[str, ...]:
        return (*(() if latent else ("sdpa",)), *TILES[latent])

    def attend(
        self, how: str, q: Tensor, rope: Tensor | None, k: Tensor, v: Tensor | None, scale: float,
        picked: Tensor | None = None, first: int = 0, step: int = 0,
    ) -> Tensor:  # fmt: skip
        if how not in TILES[v is None]:
            return super().attend("sdpa", q, rope, k, v, scale, picked, first, step)
        rows, kv, groups, dim = q.shape
        heads, tokens, warps, stages = TILES[v is None][how]
        count = k.shape[2] if picked is None else picked.shape[1]
        blocks = -(-groups // heads)
        wanted = -(-2 * self.processors // (rows * kv * blocks))
        splits = max(1, min(wanted, count // (2 * tokens), 64))
        out = torch.empty((rows, kv, groups, dim), dtype=q.dtype, device=q.device)
        partial, weights = self.floats, self.floats
        if splits > 1:
            partial = torch.empty((rows, kv, splits, groups, dim), dtype=torch.float32, device=q.device)
            weights = torch.empty((rows, kv, splits, groups), dtype=torch.float32, device=q.device)
        r = self.nothing if rope is None else rope
        r_strides = (0, 0, 0) if rope is None else rope.stride()[:3]
        v_strides = (0, 0, 0) if v is None else (v.stride(0), v.stride(1), v.stride(2))
        k_seq = 0 if k.shape[0] == 1 else k.stride(0)
        self.k.attend[(rows * kv, blocks, splits)](
            q, r, k, self.nothing if v is None else v, self.places if picked is None else picked, out, partial, weights,
            scale * LOG2E, first or k.shape[2], step, count, splits, groups,
            *q.stride()[:3], *r_strides, k_seq, k.stride(1), k.stride(2), *v_strides, kv,
            dim, 0 if rope is None else rope.shape[-1], picked is not None, v is None, heads, tokens,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
        if splits > 1:
            self.k.combine[(rows * kv, groups)](
                partial, weights, out, splits, groups, dim, 1 << (splits - 1).bit_length()
            )
        return out

    def score(self, q: Tensor, gates: Tensor, keys: Tensor, scales: Tensor, first: int, step: int) -> Tensor:
        rows, heads, dim = q.shape
        width, block = keys.shape[1], 128
        out = torch.empty((rows, width), dtype=torch.float32, device=q.device)
        one = keys.shape[0] == 1
        self.k.score_index[(-(-width // block), rows)](
            q, gates, keys, scales, out, first, step, width, 0 if one else keys.stride(0),
            0 if one else scales.stride(0), heads, dim, block, num_warps=4,
        )  # fmt: skip
        return out

    def expert_variants(self) -> tuple[str, ...]:
        return ("triton", "_grouped_mm")

    def experts(
        self, how: str, x: Tensor, up: Tensor, down: Tensor, order: Tensor, offsets: Tensor, shares: Tensor
    ) -> Tensor:
        if how != "triton":
            return super().experts(how, x, up, down, order, offsets, shares)
        tokens, top_k = shares.shape
        count, hidden, ffn = up.shape[0], up.shape[2], down.shape[2]
        each = tokens * top_k / count
        m, n, k, warps, stages = (
            (16, 64, 128, 4, 4) if each <= 16 else (64, 128, 64, 4, 4) if each <= 96 else (128, 128, 64, 8, 3)
        )
        tiles = (-(-offsets.diff() // m)).cumsum(0)
        most = min(tokens * top_k, count) + tokens * top_k // m
        wide = torch.empty((tokens * top_k, 2 * ffn), dtype=x.dtype, device=x.device)
        options = {"num_warps": warps, "num_stages": stages}
        self.k.experts_matmul[(2 * ffn // n, most)](
            x, up, wide, order, offsets, tiles, shares, 2 * ffn, hidden, top_k, count, True, m, n, k, **options
        )
        found = torch.empty((tokens * top_k, hidden), dtype=x.dtype, device=x.device)
        self.k.experts_matmul[(hidden // n, most)](
            self.gate(wide), down, found, order, offsets, tiles, shares, hidden, ffn, top_k, count, False, m, n, k,
            **options,
        )  # fmt: skip
        return found.view(tokens, top_k, hidden).sum(1)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """torch's attention held to one backend: cudnn, flash or any."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kinds = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
    if name not in kinds:
        yield
        return
    with sdpa_kernel(kinds[name]):
        yield


def causal(how: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of whole prompts, (sequences, heads, tokens, dim); flash wants equal widths."""
    dim = v.shape[-1]
    if how == "flash" and q.shape[-1] != dim:
        v = functional.pad(v, (0, q.shape[-1] - dim))
    grouped = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    with backend(how):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, **grouped)[..., :dim]
