"""Eleven things people say about serving, each judged at one plan with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.decisions.explained_step import CACHES, ExplainedStep
from planner.decisions.explanation_result import (
    AttentionComparison,
    Caching,
    Claim,
    CurvePoint,
    Regimes,
    Verdict,
    whose,
)
from planner.serving.fanout import expected_maximum, useful_work
from planner.sizing.result import Plan
from planner.units import format_bytes, format_duration
from planner.workload import Workload
from planner.workload.schema import Subagents

#: what is claimed of speculation and of fast tiers
TARGET = 2.5
#: subagents of a workload that has none, to have numbers all the same
SUPPOSED = 4
#: share of a whole that is most of it
MOST = 0.5
#: a difference of this much is one
NOTICED = 0.02


@dataclass(frozen=True)
class Ground:
    """What the claims are judged on: a plan, its step and what was found of it."""

    workload: Workload
    plan: Plan
    step: ExplainedStep
    batch: float
    most: float
    regimes: Regimes
    caching: Caching
    attention: AttentionComparison | None
    curve: Sequence[CurvePoint]

    def at(self, batch: float) -> CurvePoint:
        """The point of the curve at a batch that is on it, [sequences]. Source: none needed; a selection."""
        return next(p for p in self.curve if p.batch == batch)


def claims(ground: Ground) -> tuple[Claim, ...]:
    """All eleven in the order of the design's table; units in the keys of their numbers."""
    return tuple(judge(ground) for judge in (
        _batching_is_free, _cache_is_per_user, _sparse_fixes, _prompts_are_shared, _caching_fixes, _chains_diverge,
        _independent_avenues, _memory_bound_at_low_batch, _batch_slows, _speculation_is_it, _small_batch_is_it,
    ))  # fmt: skip


def _batching_is_free(g: Ground) -> Claim:
    one, here = g.at(1.0), g.at(g.batch)
    ends = [b for b in (g.regimes.kv_overtakes_weights_batch, g.regimes.step_grows_quarter_batch) if b is not None]
    until = min(ends) - 1 if ends else None
    dominate = here.weights_bytes > here.cache_bytes
    growth = here.step_s / one.step_s
    free = g.regimes.step_grows_quarter_batch is None or g.batch < g.regimes.step_grows_quarter_batch
    verdict: Verdict = "true" if dominate and free else "partly" if dominate or free else "false"
    limit = "at every batch" if until is None else f"up to batch {until:.0f}" if until >= 1 else "not even alone"
    return Claim(
        number=1, claim="Weights dominate memory traffic, so batching is free", verdict=verdict, here=limit,
        statement=f"At batch {g.batch:.3g} a step reads {format_bytes(here.weights_bytes)} of weights and "
        f"{format_bytes(here.cache_bytes)} of cache and takes {growth:.2f} times the step of one sequence; "
        f"{_crossing(g.regimes.kv_overtakes_weights_batch, 'cache overtakes weights')}, "
        f"{_crossing(g.regimes.step_grows_quarter_batch, 'a step is 1.25 times as long')}, "
        f"{_crossing(g.regimes.compute_bound_batch, 'weight matmuls turn compute-bound')}.",
        numbers={
            "batch": g.batch, "weights_bytes": here.weights_bytes, "cache_bytes": here.cache_bytes,
            "step_growth": growth, "kv_overtakes_weights_batch": g.regimes.kv_overtakes_weights_batch,
            "step_grows_quarter_batch": g.regimes.step_grows_quarter_batch,
            "compute_bound_batch": g.regimes.compute_bound_batch,
        },
        command="planner recommend",
    )  # fmt: skip


def _crossing(at: float | None, what: str) -> str:
    return f"at no batch {what}" if at is None else f"from batch {at:.0f} {what}"


def _cache_is_per_user(g: Ground) -> Claim:
    here = g.at(g.batch)
    each = here.cache_bytes / g.batch
    shared = g.step.read_share < 1
    context = g.regimes.kv_overtakes_weights_context
    return Claim(
        number=2, claim="The KV cache is per user and can't be batched", verdict="partly" if shared else "true",
        here=f"{format_bytes(each)} a sequence" + (f", {1 - g.step.read_share:.0%} of reads shared" if shared else ""),
        statement=f"Every sequence adds {format_bytes(each)} to a step at {g.step.contexts.mean():.0f} tokens of mean "
        f"context, {format_bytes(here.cache_bytes)} at batch {g.batch:.3g}"
        + (f"; it overtakes the weights from {context:.0f} tokens of context at that batch." if context
           else "; it overtakes the weights at no context at that batch."),
        numbers={
            "cache_bytes_per_sequence": each, "cache_bytes": here.cache_bytes, "weights_bytes": here.weights_bytes,
            "mean_context_tokens": float(g.step.contexts.mean()), "kv_overtakes_weights_context": context,
            "read_share": g.step.read_share,
        },
        command="planner recommend",
    )  # fmt: skip


def _sparse_fixes(g: Ground) -> Claim:
    claim, a = "Sparse attention fixes that", g.attention
    if a is None:
        return Claim(
            number=3, claim=claim, verdict="true", here="no cache that grows",
            statement="All layers keep a recurrent state instead of a cache.",
            numbers={"sparse_speedup": None, "sparse_wins_context": None, "sparse_wins_batch": None,
                     "cache_share_of_bytes": None}, command="planner compare models",
        )  # fmt: skip
    here = g.at(g.batch)
    cost = g.step.cost(g.batch)
    cache = sum(float(np.squeeze(cost.bytes_by(c))) for c in CACHES) / g.step.stages
    share = cache / (cache + here.weights_bytes)
    wins = a.sparse_speedup > 1 + NOTICED
    verdict: Verdict = "false" if not wins else "partly" if a.kind == "sparse" and share > MOST else "true"
    has = f"{a.sparse_speedup:.2f}x" if a.kind == "sparse" else f"{a.sparse_speedup:.2f}x if it had it"
    index = f", indexer ({a.indexer_share:.0%}) included" if a.indexer_share else ""
    drafts = g.step.drafter.queries
    each = f" (each of {drafts} tokens verified selects its own)" if drafts > 1 else ""
    return Claim(
        number=3, claim=claim, verdict=verdict, here=has,
        statement=f"A step takes {format_duration(a.at[0].dense_s)} reading everything and "
        f"{format_duration(a.at[0].sparse_s)} reading a selection{each}{index}; sparse wins "
        + ("at no context" if a.sparse_wins_context is None else f"from {a.sparse_wins_context:.0f} tokens")
        + " at this batch and "
        + ("at no batch" if a.sparse_wins_batch is None else f"from batch {a.sparse_wins_batch:.0f}")
        + " at these contexts.",
        numbers={
            "dense_step_s": a.at[0].dense_s, "sparse_step_s": a.at[0].sparse_s, "sparse_speedup": a.sparse_speedup,
            "indexer_share": a.indexer_share, "sparse_wins_context": a.sparse_wins_context,
            "sparse_wins_batch": a.sparse_wins_batch, "cache_share_of_bytes": share,
        },
        command="planner compare models",
    )  # fmt: skip


def _prompts_are_shared(g: Ground) -> Claim:
    claim, s = "Subagents share their prompt, so it can be batched", g.plan.sharing
    if s is None:
        return Claim(
            number=4, claim=claim, verdict="false", here="one sequence a request",
            statement="Nothing forks here: every request is one sequence.",
            numbers={"fan_out": 1.0, "stored_saved": 0.0, "read_saved": 0.0, "read_saved_with_cascade": 0.0},
            command="planner fanout",
        )  # fmt: skip
    all_tokens = s.kv_tokens_without_sharing
    stored, read, could = (1 - x / all_tokens for x in
                           (s.kv_tokens_stored, s.tokens_read_per_step, s.tokens_read_with_cascade))  # fmt: skip
    verdict: Verdict = "false" if stored < NOTICED else "true" if read > NOTICED else "partly"
    return Claim(
        number=4, claim=claim, verdict=verdict,
        here=f"stored once: {stored:.0%} saved; read once: {read:.0%} saved",
        statement=f"{s.fan_out} sequences share {s.shared_prefix_tokens:.0f} tokens: {stored:.0%} of the cache is not "
        f"stored again, {read:.0%} of its reads go away as planned and {could:.0%} with a cascade kernel.",
        numbers={"fan_out": float(s.fan_out), "stored_saved": stored, "read_saved": read,
                 "read_saved_with_cascade": could}, command="planner fanout",
    )  # fmt: skip


def _caching_fixes(g: Ground) -> Claim:
    c = g.caching
    verdict: Verdict = "true" if c.replica_time_saved > MOST else "partly" if c.prefill_saved > NOTICED else "false"
    return Claim(
        number=5, claim="Input caching fixes it", verdict=verdict,
        here=f"prefill {c.prefill_saved:.0%} saved, decode 0 %",
        statement=f"{c.cached_fraction:.0%} of input tokens are cached, which saves {c.prefill_saved:.0%} of prefill "
        f"and nothing of decode: {c.replica_time_saved:.0%} of {whose(g.plan)} time; prefill takes "
        f"{c.prefill_share:.0%} of what is left.",
        numbers=c.model_dump(), command="planner recommend",
    )  # fmt: skip


def _chains_diverge(g: Ground) -> Claim:
    m = g.workload.moments
    own = m.second_output / (2 * m.mean_output)
    share = own / m.resident_context
    bias = m.second_output / m.mean_output**2
    return Claim(
        number=6, claim="Reasoning chains are long and diverge", verdict="true" if share > MOST else "false",
        here=f"{share:.0%} of a resident context is its own output",
        statement=f"Of {m.resident_context:.0f} resident tokens {own:.0f} were decoded past the prompt, which nothing "
        f"shares: mean output {m.mean_output:.0f}, {bias:.2f} times half of it resident, as long chains stay longer.",
        numbers={"resident_context_tokens": m.resident_context, "mean_input_tokens": m.mean_input,
                 "mean_output_tokens": m.mean_output, "decoded_resident_tokens": own, "decoded_share": share,
                 "length_bias": bias}, command="planner recommend",
    )  # fmt: skip


def _independent_avenues(g: Ground) -> Claim:
    agents = g.workload.subagents
    supposed = agents is None or agents.fan_out < 2
    k = SUPPOSED if agents is None or agents.fan_out < 2 else agents.fan_out
    agents = agents or Subagents()
    alone = agents.success
    useful = useful_work(k, alone, agents.correlation, agents.independent_avenues)
    independent = useful_work(k, alone)
    last = useful - useful_work(k - 1, alone, agents.correlation, agents.independent_avenues)
    slowest = expected_maximum(g.workload.output_quantile, k) / g.workload.moments.mean_output
    lost = independent - useful
    return Claim(
        number=7, claim="K subagents: only if there are K independent avenues",
        verdict="true" if lost > NOTICED else "false",
        here=f"{f'if there were {k}: ' if supposed else ''}{useful:.0%} solved, {independent:.0%} if independent",
        statement=f"{k} attempts that succeed {alone:.0%} of the time alone solve {useful:.0%}, {independent:.0%} were "
        f"they independent; the last one adds {last:.1%}, and the join waits for {slowest:.2f} times a mean output.",
        numbers={"fan_out": float(k), "supposed": float(supposed), "useful_work": useful,
                 "useful_work_independent": independent, "last_adds": last, "slowest_over_mean": slowest},
        command="planner fanout",
    )  # fmt: skip


def _memory_bound_at_low_batch(g: Ground) -> Claim:
    r, top = g.regimes, g.at(g.most)
    step, matmuls = r.step_compute_bound_batch, r.compute_bound_batch
    crosses = [b for b in (step, matmuls) if b is not None and b <= g.most]
    verdict: Verdict = "true" if step is not None and step <= g.most else "partly" if crosses else "false"
    here = (
        f"memory-bound up to batch {step - 1:.0f}" if step is not None and step <= g.most
        else f"matmuls up to batch {matmuls - 1:.0f}, the step always" if crosses and matmuls
        else f"memory-bound at every batch that fits ({g.most:.0f})"
    )  # fmt: skip
    return Claim(
        number=8, claim="It's memory-bound only at low batch", verdict=verdict, here=here,
        statement=f"{_crossing(matmuls, 'weight matmuls are compute-bound').capitalize()}, "
        f"{_crossing(step, 'the step spends more on arithmetic than on memory')}; at batch {g.most:.0f}, the most "
        f"that fits, it spends {format_duration(top.memory_s)} on memory and {format_duration(top.compute_s)} on "
        "arithmetic. Every operator has its own crossing.",
        numbers={"compute_bound_batch": matmuls, "step_compute_bound_batch": step, "max_batch": g.most,
                 "memory_s_at_max": top.memory_s, "compute_s_at_max": top.compute_s}, command="planner estimate",
    )  # fmt: skip


def _batch_slows(g: Ground) -> Claim:
    speeds = np.array([p.tokens_per_second_per_user for p in g.curve])
    one, here, top = (g.at(b).tokens_per_second_per_user for b in (1.0, g.batch, g.most))
    falls = bool(np.all(np.diff(speeds) < 0))
    return Claim(
        number=9, claim="Any batch above 1 slows each request", verdict="true" if falls else "partly",
        here=f"{one:.0f} tok/s alone, {here:.0f} here, {top:.0f} at most",
        statement=f"A request alone makes {one:.1f} tokens a second, {here:.1f} at batch {g.batch:.3g} and {top:.1f} "
        f"at batch {g.most:.0f}; speed {'falls with every sequence' if falls else 'is level in places'}.",
        numbers={"tokens_per_second_alone": one, "tokens_per_second": here, "tokens_per_second_at_max": top,
                 "strictly_decreasing": float(falls)}, command="planner estimate",
    )  # fmt: skip


def _speculation_is_it(g: Ground) -> Claim:
    s = g.plan.speculation
    best = max(s.considered.values(), default=1.0)
    method = max(s.considered, key=lambda m: s.considered[m]) if s.considered else "none"
    verdict: Verdict = "true" if best >= TARGET else "partly" if best > 1 + NOTICED else "false"
    flips = [f"{'from' if f.pays_beyond else 'up to'} batch {f.at:.0f}" for f in s.flip_batches]
    return Claim(
        number=10, claim="2.5x is speculative decoding", verdict=verdict, here=f"{best:.2f}x with {method}",
        statement=f"At batch {g.batch:.3g} the best way to draft, {method}, makes {best:.2f}x for "
        f"{g.workload.speculation.task}; it pays {' and '.join(flips) if flips else 'at all batches or none'}.",
        numbers={"best_speedup": best, "target": TARGET, "acceptance_length": s.acceptance_length,
                 "flip_batch": s.flip_batches[0].at if s.flip_batches else None}, command="planner speculate",
    )  # fmt: skip


def _small_batch_is_it(g: Ground) -> Claim:
    one, here = g.at(1.0), g.at(g.batch)
    gain = one.tokens_per_second_per_user / here.tokens_per_second_per_user
    cost = here.tokens_per_second / one.tokens_per_second
    return Claim(
        number=11, claim="Fast mode is just a small batch", verdict="true" if gain >= TARGET else "false",
        here=f"batch 1 makes {gain:.2f}x at {cost:.3g} times the cost",
        statement=f"A batch of one makes a request {gain:.2f} times as fast as batch {g.batch:.3g} at {cost:.3g} times "
        f"the cost of a token{'' if gain >= TARGET else f', not {TARGET} times'}; drafts, precision, parallelism and "
        "other accelerators are priced by planner speed.",
        numbers={"speed_multiple": gain, "cost_multiple": cost, "target": TARGET}, command="planner speed",
    )  # fmt: skip
