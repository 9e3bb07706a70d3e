"""Triton kernels of the benchmark's transformers: what engines run between their matmuls, and grouped matmuls.

Plain ones, written for few lines and many shapes. They needn't reach an engine's speed: attention, indexer and
experts are timed alone as well, so that a slow kernel shows as one. ``bench.gpu_transformer`` has the same in torch,
which each is checked against before it is timed.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def norm(x, delta, weight, out, D: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr, x_row, eps):
    """Adds ``delta`` to ``x`` in place (ADD) and writes the RMS norm of the row."""
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    inside = at < D
    value = tl.load(x + row * x_row + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(delta + row * D + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(x + row * x_row + at, value.to(tl.bfloat16), mask=inside)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, 0) / D + eps)
    w = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * D + at, (value * scale * w).to(tl.bfloat16), mask=inside)


@triton.jit
def gate(x, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """``silu(x[:, :WIDTH]) * x[:, WIDTH:]``."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < WIDTH
    g = tl.load(x + row * 2 * WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(x + row * 2 * WIDTH + WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * WIDTH + at, (g * tl.sigmoid(g) * u).to(tl.bfloat16), mask=inside)


@triton.jit(do_not_specialize=["tokens", "first"])
def rotate(
    x, cos, sin, out, tokens, first, HALF: tl.constexpr, x_seq, x_token, x_head, o_seq, o_token, o_head
):  # fmt: skip
    """Rotary embedding of one head of one token (rotate-half), from one strided place to another."""
    row, head = tl.program_id(0), tl.program_id(1)
    seq, token = (row // tokens).to(tl.int64), (row % tokens).to(tl.int64)
    at = tl.arange(0, HALF)
    source = x + seq * x_seq + token * x_token + head * x_head
    a, b = tl.load(source + at).to(tl.float32), tl.load(source + HALF + at).to(tl.float32)
    c = tl.load(cos + (first + token) * HALF + at)
    s = tl.load(sin + (first + token) * HALF + at)
    target = out + seq * o_seq + token * o_token + head * o_head
    tl.store(target + at, (a * c - b * s).to(tl.bfloat16))
    tl.store(target + HALF + at, (b * c + a * s).to(tl.bfloat16))


@triton.jit(do_not_specialize=["tokens", "first"])
def copy_heads(x, out, tokens, first, D: tl.constexpr, x_seq, x_token, x_head, o_seq, o_token, o_head):
    """A head's row from one strided place to another: values into the cache."""
    row, head = tl.program_id(0), tl.program_id(1)
    seq, token = (row // tokens).to(tl.int64), (row % tokens).to(tl.int64)
    at = tl.arange(0, D)
    value = tl.load(x + seq * x_seq + token * x_token + head * x_head + at)
    tl.store(out + seq * o_seq + (first + token) * o_token + head * o_head + at, value)


@triton.jit(do_not_specialize=["first", "step", "chosen", "splits", "groups", "kv_heads"])
def attend(
    q, q_rope, k, v, picked, out, partial, weights, scale, first, step, chosen, splits, groups,
    q_seq, q_kv, q_head, r_seq, r_kv, r_head, k_seq, k_kv, k_token, v_seq, v_kv, v_token, kv_heads,
    D: tl.constexpr, R: tl.constexpr, GATHER: tl.constexpr, SHARED: tl.constexpr,
    HEADS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Attention of one query token a row over its sequence, split over the context.

    A row has ``groups`` query heads per KV head. Values are ``v``, or the first D of the keys (SHARED: a latent with
    R rope elements behind). GATHER: only the ``chosen`` tokens in ``picked``. Row b sees ``first + b * step`` tokens.
    Writes each split's normalised sum and its log2 weight.
    """
    row, block, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    seq, kv = row // kv_heads, row % kv_heads
    head = block * HEADS + tl.arange(0, HEADS)
    real = head < groups
    at = tl.arange(0, D)
    query = tl.load(
        q + seq * q_seq + kv * q_kv + head[:, None] * q_head + at[None, :], mask=real[:, None], other=0.0
    )  # fmt: skip
    if R > 0:
        tail = tl.arange(0, R)
        rope = tl.load(
            q_rope + seq * r_seq + kv * r_kv + head[:, None] * r_head + tail[None, :], mask=real[:, None], other=0.0
        )  # fmt: skip
    seen = first + seq.to(tl.int32) * step
    if GATHER:
        count = chosen
    else:
        count = seen
    each = tl.cdiv(tl.cdiv(count, splits), TOKENS) * TOKENS
    begin = split * each
    end = tl.minimum(begin + each, count)
    top = tl.full([HEADS], -1.0e30, tl.float32)
    total = tl.zeros([HEADS], tl.float32)
    acc = tl.zeros([HEADS, D], tl.float32)
    for start in range(begin, end, TOKENS):
        place = start + tl.arange(0, TOKENS)
        valid = place < end
        if GATHER:
            token = tl.load(picked + seq * chosen + place, mask=valid, other=0).to(tl.int64)
            valid = valid & (token < seen)
        else:
            token = place.to(tl.int64)
        base = k + seq * k_seq + kv * k_kv + token * k_token
        keys = tl.load(base[:, None] + at[None, :], mask=valid[:, None], other=0.0)
        score = tl.dot(query, tl.trans(keys))
        if R > 0:
            behind = tl.load(base[:, None] + D + tail[None, :], mask=valid[:, None], other=0.0)
            score += tl.dot(rope, tl.trans(behind))
        score = tl.where(valid[None, :], score * scale, -1.0e30)
        higher = tl.maximum(top, tl.max(score, 1))
        shrink = tl.exp2(top - higher)
        p = tl.where(valid[None, :], tl.exp2(score - higher[:, None]), 0.0)
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None]
        if SHARED:
            acc = tl.dot(p.to(keys.dtype), keys, acc)
        else:
            there = v + seq * v_seq + kv * v_kv + token * v_token
            values = tl.load(there[:, None] + at[None, :], mask=valid[:, None], other=0.0)
            acc = tl.dot(p.to(values.dtype), values, acc)
        top = higher
    safe = tl.where(total > 0.0, total, 1.0)
    result = acc / safe[:, None]
    if splits == 1:
        target = out + (row * groups + head[:, None]) * D + at[None, :]
        tl.store(target, result.to(tl.bfloat16), mask=real[:, None])
    else:
        slot = (row * splits + split) * groups + head
        tl.store(partial + slot[:, None] * D + at[None, :], result, mask=real[:, None])
        tl.store(weights + slot, tl.where(total > 0.0, top + tl.log2(safe), -1.0e30), mask=real)


@triton.jit(do_not_specialize=["splits", "groups"])
def combine(partial, weights, out, splits, groups, D: tl.constexpr, SPLITS: tl.constexpr):
    """The splits of one head of one row, summed by their weights."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    which = tl.arange(0, SPLITS)
    w = tl.load(weights + (row * splits + which) * groups + head, mask=which < splits, other=-1.0e30)
    top = tl.max(w, 0)
    total = tl.sum(tl.where(which < splits, tl.exp2(w - top), 0.0), 0)
    at = tl.arange(0, D)
    acc = tl.zeros([D], tl.float32)
    for split in range(splits):
        here = tl.load(weights + (row * splits + split) * groups + head)
        acc += tl.exp2(here - top) * tl.load(partial + ((row * splits + split) * groups + head) * D + at)
    tl.store(out + (row * groups + head) * D + at, (acc / total).to(tl.bfloat16))


@triton.jit(do_not_specialize=["first", "step"])
def score_index(
    q, gates, keys, scales, out, first, step, width, k_seq, s_seq,
    HEADS: tl.constexpr, D: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """The indexer: ``sum_h gate_h * relu(q_h . k_s)`` in fp8, times the key's scale; -inf past the row's tokens."""
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    seen = first + row.to(tl.int32) * step
    place = block * TOKENS + tl.arange(0, TOKENS)
    target = out + row * width + place
    if block * TOKENS >= seen:
        tl.store(target, tl.full([TOKENS], float("-inf"), tl.float32), mask=place < width)
    else:
        head, at = tl.arange(0, HEADS), tl.arange(0, D)
        query = tl.load(q + (row * HEADS + head[:, None]) * D + at[None, :])
        w = tl.load(gates + row * HEADS + head).to(tl.float32)
        valid = place < seen
        key = tl.load(
            keys + row * k_seq + place[:, None].to(tl.int64) * D + at[None, :], mask=valid[:, None], other=0.0
        )
        score = tl.maximum(tl.dot(query, tl.trans(key)), 0.0)
        found = tl.sum(score * w[:, None], 0) * tl.load(scales + row * s_seq + place, mask=valid, other=0.0)
        tl.store(target, tl.where(valid, found, float("-inf")), mask=place < width)


@triton.jit(do_not_specialize=["top_k"])
def experts_matmul(
    x, w, out, order, offsets, tiles, shares, outputs, inputs, top_k,
    E: tl.constexpr, FIRST: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """One tile of rows sorted by expert through the expert's matrix (outputs x inputs).

    ``tiles`` counts tiles up to and with each expert. FIRST gathers tokens and leaves rows sorted; otherwise rows are
    taken sorted, weighted by ``shares`` and put back.
    """
    column, tile = tl.program_id(0), tl.program_id(1)
    expert = tl.arange(0, E)
    upto = tl.load(tiles + expert)
    e = tl.sum((upto <= tile).to(tl.int32), 0)
    if e < E:
        before = tl.sum(tl.where(expert == e - 1, upto, 0), 0)
        begin, end = tl.load(offsets + e), tl.load(offsets + e + 1)
        place = begin + (tile - before).to(tl.int64) * M + tl.arange(0, M)
        valid = place < end
        pair = tl.load(order + place, mask=valid, other=0)
        if FIRST:
            source = pair // top_k
        else:
            source = place
        n = column * N + tl.arange(0, N)
        at = tl.arange(0, K)
        left = x + source[:, None] * inputs + at[None, :]
        right = w + e.to(tl.int64) * outputs * inputs + n[None, :] * inputs + at[:, None]
        acc = tl.zeros([M, N], tl.float32)
        for start in range(0, inputs, K):
            a = tl.load(left + start, mask=valid[:, None], other=0.0)
            b = tl.load(right + start)
            acc = tl.dot(a, b, acc)
        if FIRST:
            target = place
        else:
            acc = acc * tl.load(shares + pair, mask=valid, other=0.0).to(tl.float32)[:, None]
            target = pair
        tl.store(out + target[:, None] * outputs + n[None, :], acc.to(tl.bfloat16), mask=valid[:, None])


@triton.jit
def read_all(x, sink, size, BLOCK: tl.constexpr):
    """Reads all of x and keeps a sum a program: bandwidth of reads alone."""
    program, programs = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    at = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(program * BLOCK, size, programs * BLOCK):
        total += tl.load(x + start + at, mask=start + at < size, other=0.0).to(tl.float32)
    tl.store(sink + program, tl.sum(total, 0))
