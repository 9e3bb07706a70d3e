"""Random-weight transformers of :mod:`bench.gpu_shapes` in bf16 with a static cache. Needs only torch.

A step is what an engine runs between two samplings on one GPU: norms, fused projections, rotary embedding, cache
write, attention, feed-forward or routed experts, LM head once. Routing draws experts evenly: the router's matmul is
run, and noise much larger than its scores added, so that tokens choose apart from each other, as the formula assumes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from bench.gpu_operators import FP8, Plain, Tensor, causal
from bench.gpu_shapes import Shape

NOISE = 10.0


class Transformer:
    """Weights and cache of one shape; ``how`` says which kernels attention and experts take."""

    def __init__(self, shape: Shape, ops: Plain, device: str, cache_tokens: int, most_tokens: int) -> None:
        self.shape, self.ops, self.device = shape, ops, device
        self.how = {"attention": ops.variants(shape.latent, shape.sparse)[0], "causal": "", "experts": ""}
        self.cache_tokens = cache_tokens
        s = shape

        def weights(*size: int) -> Tensor:
            return torch.randn(size, dtype=torch.bfloat16, device=device) * size[-1] ** -0.5

        self.layers: list[dict[str, Tensor]] = []
        for _ in range(s.layers):
            layer = {n: weights(o, i) if c == 1 else weights(c, o, i) for n, (c, o, i) in s.matrices().items()}
            if s.experts:
                layer["experts_up"] = weights(s.experts, 2 * s.ffn, s.hidden)
                layer["experts_down"] = weights(s.experts, s.hidden, s.ffn)
                layer["noise"] = NOISE * torch.randn((most_tokens, s.experts), device=device)
            if s.latent:
                layer["cache"] = torch.randn(cache_tokens * (s.kv_rank + s.rope), dtype=torch.bfloat16, device=device)
            else:
                size = cache_tokens * s.kv_heads * s.head_dim
                layer["keys"], layer["values"] = (
                    torch.randn(size, dtype=torch.bfloat16, device=device) for _ in range(2)
                )
            if s.sparse:
                layer["index"] = torch.randn(cache_tokens * s.index_dim, dtype=torch.bfloat16, device=device).to(FP8)
                layer["index_scales"] = torch.rand(cache_tokens, device=device) + 0.5
            self.layers.append(layer)
        self.head = weights(s.vocab, s.hidden)
        self.embedding = weights(min(s.vocab, 4096), s.hidden)
        self.ones = torch.ones(max(s.hidden, s.q_rank, s.kv_rank), dtype=torch.bfloat16, device=device)
        width = s.nope + s.rope if s.latent else s.head_dim
        self.scale = width**-0.5

    # -- views of the cache ----------------------------------------------------------------------

    def cached(self, layer: dict[str, Tensor], batch: int, context: int) -> dict[str, Tensor]:
        """The cache as a batch of sequences of ``context`` tokens, (batch, KV heads, context, dim)."""
        s, n = self.shape, batch * context
        if not s.latent:
            size = n * s.kv_heads * s.head_dim
            return {k: layer[k][:size].view(batch, s.kv_heads, context, s.head_dim) for k in ("keys", "values")}
        width = s.kv_rank + s.rope
        found = {"cache": layer["cache"][: n * width].view(batch, 1, context, width)}
        if s.sparse:
            found["index"] = layer["index"][: n * s.index_dim].view(batch, context, s.index_dim)
            found["index_scales"] = layer["index_scales"][:n].view(batch, context)
        return found

    # -- a layer's parts -------------------------------------------------------------------------

    def feed_forward(self, layer: dict[str, Tensor], y: Tensor) -> Tensor:
        if not self.shape.experts:
            return functional.linear(self.ops.gate(functional.linear(y, layer["gate_up"])), layer["ffn_out"])
        return self.routed(layer, y, *self.route(layer, y))

    def route(self, layer: dict[str, Tensor], y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Order of pairs, offsets of experts and shares of the tokens of y."""
        scores = functional.linear(y, layer["router"]) + layer["noise"][: y.shape[0]]
        shares, ids = scores.topk(self.shape.top_k, -1)
        return *self.ops.sorted(ids, self.shape.experts), shares.float().softmax(-1).to(y.dtype)

    def routed(self, layer: dict[str, Tensor], y: Tensor, order: Tensor, offsets: Tensor, shares: Tensor) -> Tensor:
        return self.ops.experts(
            self.how["experts"], y, layer["experts_up"], layer["experts_down"], order, offsets, shares
        )

    def grouped(self, layer: dict[str, Tensor], y: Tensor, batch: int, context: int, decode: bool) -> Tensor:
        """Attention with grouped or all heads between its projections."""
        s, ops = self.shape, self.ops
        tokens = y.shape[0] // batch
        h, kv = s.heads, s.kv_heads
        qkv = functional.linear(y, layer["qkv"]).view(batch, tokens, h + 2 * kv, s.head_dim)
        q = torch.empty((batch, tokens, h, s.head_dim), dtype=y.dtype, device=y.device)
        first = context - 1 if decode else 0
        ops.rotate(qkv[:, :, :h], q, first)
        if decode:
            cache = self.cached(layer, batch, context)
            ops.rotate(qkv[:, :, h : h + kv], cache["keys"][:, :, -1:].transpose(1, 2), first)
            ops.copy(qkv[:, :, h + kv :], cache["values"][:, :, -1:].transpose(1, 2))
            a = self.attention(layer, q.view(batch, kv, h // kv, s.head_dim), None, batch, context)
            return functional.linear(a.reshape(batch, -1), layer["out"])
        k = torch.empty((batch, tokens, kv, s.head_dim), dtype=y.dtype, device=y.device)
        ops.rotate(qkv[:, :, h : h + kv], k, 0)
        a = causal(self.how["causal"], *(x.transpose(1, 2) for x in (q, k, qkv[:, :, h + kv :])))
        return functional.linear(a.transpose(1, 2).reshape(batch * tokens, -1), layer["out"])

    def attention(
        self, layer: dict[str, Tensor], q: Tensor, rope: Tensor | None, batch: int, context: int,
        picked: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Decode attention alone, (batch, KV heads, group, dim)."""
        cache = self.cached(layer, batch, context)
        k, v = (cache["cache"], None) if self.shape.latent else (cache["keys"], cache["values"])
        return self.ops.attend(self.how["attention"], q, rope, k, v, self.scale, picked, context)

    def chosen(self, scores: Tensor) -> Tensor:
        """The best tokens of each row of index scores."""
        return scores.topk(min(self.shape.chosen, scores.shape[1]), -1, sorted=False).indices

    def latent(self, layer: dict[str, Tensor], y: Tensor, batch: int, context: int, decode: bool) -> Tensor:
        """MLA between its projections: absorbed in decode, expanded in prefill; with or without an indexer."""
        s, ops = self.shape, self.ops
        rows, tokens = y.shape[0], y.shape[0] // batch
        down = functional.linear(y, layer["down"])
        compressed = ops.norm(down[:, : s.q_rank], self.ones)
        latent = ops.norm(down[:, s.q_rank : s.q_rank + s.kv_rank], self.ones)
        q = functional.linear(compressed, layer["query"]).view(rows, s.heads, s.nope + s.rope)
        behind = down[:, s.q_rank + s.kv_rank :].view(batch, tokens, 1, s.rope)
        first = context - 1 if decode else 0
        if decode:
            place = self.cached(layer, batch, context)["cache"][:, :, -1:].transpose(1, 2)
        else:
            place = torch.empty((batch, tokens, 1, s.kv_rank + s.rope), dtype=y.dtype, device=y.device)
        ops.copy(latent.view(batch, tokens, 1, s.kv_rank), place[..., : s.kv_rank])
        ops.rotate(behind, place[..., s.kv_rank :], first)
        sparse = s.sparse and (decode or tokens > s.chosen)
        if not decode and not sparse:
            return functional.linear(self.expanded(layer, q, latent, place, batch), layer["out"])
        rope = torch.empty((rows, 1, s.heads, s.rope), dtype=y.dtype, device=y.device)
        there = (batch, tokens, s.heads, s.rope)
        ops.rotate(q[..., s.nope :].unflatten(0, (batch, tokens)), rope.view(there), first)
        up = layer["up"]
        wide = torch.bmm(q[..., : s.nope].transpose(0, 1), up[:, : s.nope]).transpose(0, 1)[:, None]
        if decode:
            picked = self.chosen(self.index(layer, y, compressed, batch, context)) if s.sparse else None
            a = self.attention(layer, wide, rope, batch, context, picked)
        else:
            a = self.sparse_prefill(layer, y, compressed, wide, rope, place, batch)
        a = torch.bmm(a[:, 0].transpose(0, 1), up[:, s.nope :].transpose(1, 2)).transpose(0, 1)
        return functional.linear(a.reshape(rows, -1), layer["out"])

    def expanded(self, layer: dict[str, Tensor], q: Tensor, latent: Tensor, place: Tensor, batch: int) -> Tensor:
        """Prefill attention over keys and values expanded from the latent."""
        s = self.shape
        tokens = latent.shape[0] // batch
        wide = functional.linear(latent, layer["up"].flatten(0, 1)).view(batch, tokens, s.heads, s.nope + s.value)
        q = q.unflatten(0, (batch, tokens))
        self.ops.rotate(q[..., s.nope :], q[..., s.nope :], 0)
        shared = place[..., s.kv_rank :].expand(-1, -1, s.heads, -1)
        k = torch.cat((wide[..., : s.nope], shared), -1)
        a = causal(self.how["causal"], *(x.transpose(1, 2) for x in (q, k, wide[..., s.nope :])))
        return a.transpose(1, 2).reshape(batch * tokens, -1)

    def index_query(self, layer: dict[str, Tensor], y: Tensor, compressed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """fp8 index queries, gates and new index keys of the rows of y."""
        s = self.shape
        q = functional.linear(compressed, layer["index_query"]).view(-1, s.index_heads, s.index_dim).to(FP8)
        both = functional.linear(y, layer["index_key"])
        return q, both[:, s.index_dim :].contiguous(), both[:, : s.index_dim].to(FP8)

    def index(self, layer: dict[str, Tensor], y: Tensor, compressed: Tensor, batch: int, context: int) -> Tensor:
        """Index scores of a decode step, (batch, context)."""
        q, gates, new = self.index_query(layer, y, compressed)
        cache = self.cached(layer, batch, context)
        cache["index"].view(torch.uint8)[:, -1] = new.view(torch.uint8)
        return self.ops.score(q, gates, cache["index"], cache["index_scales"], context, 0)

    def sparse_prefill(
        self, layer: dict[str, Tensor], y: Tensor, compressed: Tensor, wide: Tensor, rope: Tensor, place: Tensor,
        batch: int,
    ) -> Tensor:  # fmt: skip
        """Absorbed attention of every token of the prompts to the best it may see."""
        tokens = y.shape[0] // batch
        q, gates, keys = self.index_query(layer, y, compressed)
        found = []
        for at in range(batch):
            rows = slice(at * tokens, (at + 1) * tokens)
            scales = torch.ones((1, tokens), device=y.device)
            picked = self.chosen(self.ops.score(q[rows], gates[rows], keys[None, rows], scales, 1, 1))
            cache = place[at : at + 1].transpose(1, 2)
            found.append(self.ops.attend(
                self.how["attention"], wide[rows], rope[rows], cache, None, self.scale, picked, 1, 1
            ))  # fmt: skip
        return torch.cat(found) if batch > 1 else found[0]

    # -- steps, and parts alone ------------------------------------------------------------------

    def forward(self, ids: Tensor, batch: int, context: int, decode: bool) -> Tensor:
        """Logits of the last tokens: a decode step after ``context - 1`` tokens, or prompts of ``context``."""
        x = self.embedding[ids]
        delta: Tensor | None = None
        attend = self.latent if self.shape.latent else self.grouped
        for layer in self.layers:
            y = self.ops.norm(x, self.ones, delta)
            delta = attend(layer, y, batch, context, decode)
            delta = self.feed_forward(layer, self.ops.norm(x, self.ones, delta))
        y = self.ops.norm(x, self.ones, delta)
        if not decode:
            y = y.view(batch, context, -1)[:, -1].contiguous()
        return functional.linear(y, self.head)

    def random(self, *size: int) -> Tensor:
        return torch.randn(size, dtype=torch.bfloat16, device=self.device)

    def attention_alone(self, batch: int, context: int) -> Any:
        """A call of every layer's decode attention, without its indexer."""
        s = self.shape
        q = self.random(batch, 1, s.heads, s.kv_rank) if s.latent else self.random(
            batch, s.kv_heads, s.heads // s.kv_heads, s.head_dim
        )  # fmt: skip
        rope = self.random(batch, 1, s.heads, s.rope) if s.latent else None
        picked = [self.chosen(torch.rand((batch, context), device=self.device)) if s.sparse else None for _ in
                  self.layers]  # fmt: skip
        return lambda: [self.attention(x, q, rope, batch, context, p) for x, p in zip(self.layers, picked, strict=True)]

    def index_alone(self, batch: int, context: int) -> tuple[Any, Any]:
        """Calls of every layer's index scores, and of its choice."""
        s = self.shape
        q = self.random(batch, s.index_heads, s.index_dim).to(FP8)
        gates, scores = self.random(batch, s.index_heads), torch.rand((batch, context), device=self.device)

        def score() -> None:
            for layer in self.layers:
                cache = self.cached(layer, batch, context)
                self.ops.score(q, gates, cache["index"], cache["index_scales"], context, 0)

        return score, lambda: [self.chosen(scores) for _ in self.layers]

    def causal_alone(self, batch: int, tokens: int) -> Any:
        """A call of every layer's prefill attention where it runs expanded or grouped."""
        s = self.shape
        width, value = (s.nope + s.rope, s.value) if s.latent else (s.head_dim, s.head_dim)
        kv = s.heads if s.latent else s.kv_heads
        q = self.random(batch, tokens, s.heads, width).transpose(1, 2)
        k, v = (self.random(batch, tokens, kv, d).transpose(1, 2) for d in (width, value))
        return lambda: [causal(self.how["causal"], q, k, v) for _ in self.layers]

    def matmuls_alone(self, rows: int, absorbed: bool, last: int) -> Any:
        """A call of every dense weight matmul for ``rows`` tokens, the head for the ``last`` of them."""
        inputs = {i: self.random(rows, i) for _, _, i in self.shape.matrices().values()}
        s, head = self.shape, self.random(last, self.shape.hidden)
        nope, wide = self.random(max(s.heads, 1), rows, s.nope), self.random(max(s.heads, 1), rows, s.kv_rank)

        def run() -> None:
            for layer in self.layers:
                for name, (_, _, i) in s.matrices().items():
                    if name == "up" and absorbed:
                        torch.bmm(nope, layer["up"][:, : s.nope])
                        torch.bmm(wide, layer["up"][:, s.nope :].transpose(1, 2))
                    else:
                        functional.linear(inputs[i], layer[name].flatten(0, -2))
            functional.linear(head, self.head)

        return run

    def experts_alone(self, rows: int) -> tuple[Any, float]:
        """A call of every layer's routed experts, routing done before, and how many a layer touches."""
        y = self.random(rows, self.shape.hidden)
        routes = [self.route(layer, y) for layer in self.layers]
        touched = sum(int((o.diff() > 0).sum()) for _, o, _ in routes) / len(routes)
        return lambda: [self.routed(x, y, *r) for x, r in zip(self.layers, routes, strict=True)], touched
