"""Each Triton kernel beside torch's operator on small random data, before anything is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.gpu_operators import FP8, TILES, Fused, Plain, Tensor
from bench.gpu_shapes import Shape

TOLERANCE = 2e-2  # of the norm; bf16 inputs and outputs


def distance(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm; infinite entries must be the same ones."""
    a, b = found.double(), wanted.double()
    finite = torch.isfinite(b)
    if not bool((torch.isfinite(a) == finite).all()):
        return float("inf")
    a, b = a[finite], b[finite]
    return float((a - b).norm() / b.norm())


def cases(ops: Fused, shape: Shape) -> dict[str, Callable[[Plain], Tensor]]:
    """Calls of every operator the shape uses, by the method that a failure replaces."""
    s, device = shape, ops.device

    def random(*size: int) -> Tensor:
        return torch.randn(size, dtype=torch.bfloat16, device=device)

    x, delta, weight = random(5, s.hidden), random(5, s.hidden), random(s.hidden)
    dim = s.rope if s.latent else s.head_dim
    heads = random(2, 3, 4, dim + 16)[..., :dim]

    def turned(o: Plain) -> Tensor:
        out = torch.zeros((2, 4, 3, dim), dtype=torch.bfloat16, device=device)
        o.rotate(heads, out.transpose(1, 2), 7)
        return out

    def copied(o: Plain) -> Tensor:
        out = torch.zeros((2, 4, 3, 64), dtype=torch.bfloat16, device=device)
        o.copy(heads[..., :16].repeat(1, 1, 1, 4), out.transpose(1, 2))
        return out

    def normed(o: Plain) -> Tensor:
        y = x.clone()
        return torch.cat((o.norm(y, weight, delta), y))

    found: dict[str, Callable[[Plain], Tensor]] = {"norm": normed, "rotate": turned, "copy": copied}
    wide = random(5, 2 * s.ffn)
    found["gate"] = lambda o: o.gate(wide)
    if s.sparse:
        q, gates = random(3, s.index_heads, s.index_dim).to(FP8), random(3, s.index_heads)
        keys, scales = random(3, 300, s.index_dim).to(FP8), torch.rand((3, 300), device=device)
        found["score"] = lambda o: torch.cat((
            o.score(q, gates, keys, scales, 300, 0), o.score(q, gates, keys[:1], scales[:1], 250, 1),
        ))  # fmt: skip
    if s.experts:
        up, down = random(s.experts, 2 * s.ffn, s.hidden), random(s.experts, s.hidden, s.ffn)
        up, down = up * s.hidden**-0.5, down * s.ffn**-0.5
        for rows in (3, 32 * s.experts // s.top_k, 128 * s.experts // s.top_k):
            y = random(rows, s.hidden)
            shares, ids = torch.rand((rows, s.experts), device=device).topk(s.top_k, -1)
            order, offsets = ops.sorted(ids, s.experts)
            for way in ops.expert_variants():
                found[f"experts {way} {rows}"] = lambda o, w=way, y=y, a=order, b=offsets, c=shares: o.experts(
                    w if isinstance(o, Fused) else "loop", y, up, down, a, b, c.to(torch.bfloat16)
                )
    return found


def attention(ops: Fused, shape: Shape, how: str) -> float:
    """Worst distance of one way of decode attention from torch's, over splits, gathers and ragged ends."""
    s, worst = shape, 0.0
    device = ops.device
    heads, kv = (s.heads, 1) if s.latent else (s.heads // s.kv_heads, s.kv_heads)
    for rows, context in ((2, 77), (3, 4099)):

        def random(*size: int) -> Tensor:
            return torch.randn(size, dtype=torch.bfloat16, device=device)

        rope: Tensor | None = None
        v: Tensor | None = None
        if s.latent:
            q, rope = random(heads, rows, s.kv_rank).transpose(0, 1)[:, None], random(rows, 1, heads, s.rope)
            k = random(rows, 1, context, s.kv_rank + s.rope)
        else:
            q, k, v = (random(rows, kv, n, s.head_dim) for n in (heads, context, context))
        plain = Plain(device, 1, ())
        scale = 0.07
        pairs = [(ops.attend(how, q, rope, k, v, scale), plain.attend("sdpa", q, rope, k, v, scale))]
        if s.sparse:
            picked = torch.rand((rows, context), device=device).topk(min(context, 2048), -1).indices
            pairs = [
                tuple(o.attend(w, q, rope, k[:n], v, scale, picked, f, t) for o, w in ((ops, how), (plain, "sdpa")))
                for n, f, t in ((rows, context, 0), (1, context - rows, 1))
            ]
        worst = max(worst, *(distance(a, b) for a, b in pairs))
    return worst


def checked(ops: Fused, shape: Shape, session: Any) -> Fused:
    """The operators with torch's in place of every kernel that fails or disagrees; results go to the session."""
    results = session.notes["checks"].setdefault(shape.name, {})
    reference = Plain(ops.device, 64, tuple(ops.angles))
    routed = list(ops.expert_variants())
    for name, call in cases(ops, shape).items():
        method = name.split()[0]
        try:
            away = distance(call(ops), call(reference))
            results[name] = away
            if not away < TOLERANCE:
                raise ArithmeticError(f"{away:.3g} from torch's")
        except Exception as error:  # noqa: BLE001
            session.failed(f"{shape.name} kernel {name}", error)
            results[name] = "left out"
            if method == "experts":
                routed = [way for way in routed if way != name.split()[1]]
            else:
                setattr(ops, method, getattr(super(Fused, ops), method))
    ops.expert_variants = lambda: tuple(routed) or ("_grouped_mm",)  # type: ignore[method-assign]
    good: list[str] = []
    for way in TILES[shape.latent]:
        try:
            results[way] = attention(ops, shape, way)
            if not results[way] < TOLERANCE:
                raise ArithmeticError(f"{results[way]:.3g} from torch's")
            good.append(way)
        except Exception as error:  # noqa: BLE001
            session.failed(f"{shape.name} attention {way}", error)
    usual = ("sdpa",) if not shape.latent or not good else ()
    ops.variants = lambda latent, sparse: (*usual, *good)  # type: ignore[method-assign]
    return ops
