"""Speculation in served benchmarks: the same closed loop with and without drafts, and rows that pair so."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import date

import numpy as np

from planner.cost.acceptance import alpha_from_length, measured_length
from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.speculation import Drafter, draft_model
from planner.errors import InputError
from planner.hardware import Database
from planner.hardware.acceptance import Implementation, load_acceptance, load_speculation
from planner.serving.model_step_time import model_step_time
from planner.serving.requests import Requests
from planner.serving.simulator import run_replica
from planner.sizing.configuration import machine_of
from planner.validation.comparison import Comparison, Skipped
from planner.validation.points import MeasuredPoint, Workers
from planner.validation.protocols import NONE, lengths, replica_of

#: most requests of one simulated loop; a speed-up needs no tails
MOST = 400
WAVES = 4
#: days between the rows of a pair from which they aren't of the same software
APART = 60
DRAFT_VOCABULARY = 32_000  # of public EAGLE-3 heads
#: tokens of an answer to random tokens until it ends on its own; benchmarks make the model go on, and what
#: it repeats then is accepted as raw random tokens are. Fitted to TensorRT-LLM rows of 1k/8k beside 1k/1k.
NATURAL_TOKENS = 2700.0
#: sequences of an accelerator from which TensorRT-LLM recipes with attention data parallelism draft one
#: token instead of three: NVIDIA/srt-slurm recipes/trtllm/gb300-fp8 (batch 32 has mtp3, 128 and more mtp1)
WIDE = 32.0
#: from this day srt-slurm's SGLang recipes send random tokens in the chat template, their default is not
#: to: SemiAnalysisAI/InferenceX pull requests 2113 and 1907
TEMPLATED = "2026-05-01"


@dataclasses.dataclass(frozen=True)
class Drafting:
    """What is drafted in a loop: tokens a step, the length accepted [tokens], and host time [s]."""

    method: str
    tokens: int
    length: float
    implementation: Implementation


@dataclasses.dataclass(frozen=True)
class Loop:
    """Mean time per output token [s], and output tokens per second of a replica."""

    tpot: float
    throughput: float


def implementation_of(engine: str, version: str = "") -> Implementation:
    """How an engine speculates; "v0" names vLLM before its V1 could draft. Source: the data files."""
    known = load_speculation().implementations
    name = "vllm-v0" if (engine, version) == ("vllm", "v0") else engine
    return known.get(name, known["vllm"])


def host_per_rank(machine: Machine, layout: Layout, implementation: Implementation | None) -> Machine:
    """The machine whose host looks after its own rank's sequences only, with an implementation's own constant.

    Each rank of attention data parallelism has a scheduler; a step waits for one, not for all in turn.
    Source: the process layout of SGLang, vLLM and TensorRT-LLM.
    """
    verified = machine.verify_overhead
    if implementation is not None and (implementation.verified_token or implementation.layer):
        verified = implementation.verified_token
    return dataclasses.replace(
        machine, verify_overhead=verified, sequence_overhead=machine.sequence_overhead / layout.data
    )


def run_loop(point: MeasuredPoint, database: Database, drafting: Drafting | None = None, seed: int = 0) -> Loop:
    """The point's closed loop on its (decode) workers, drafting or not, [s] and [tokens/s].

    Prompts of a disaggregated point come with their cache. InputError when it cannot be run. Source:
    :func:`planner.serving.simulator.run_replica`.
    """
    workers = _decode_workers(point)
    each = max(1, point.concurrency // workers.count)
    replica = replica_of(point, workers, database, each)
    setup = replica.setup
    drafter: Drafter = NONE
    accepted: tuple[float, ...] = ()
    machine = host_per_rank(machine_of(setup), setup.layout, drafting.implementation if drafting else None)
    if drafting is not None:
        small = draft_model(setup.model, drafting.method, DRAFT_VOCABULARY, setup.step.formats)
        if small is None and drafting.method != "n-gram":
            raise InputError(f"{setup.model.name} has no module of {drafting.method}")
        share = 0.0 if small else load_acceptance().ngram_verify_share
        token = drafting.implementation.token if small else 0.0
        row = drafting.implementation.logit * small.vocab if small else 0.0
        drafter = Drafter(drafting.method, drafting.tokens, small, token, share, setup.precision.kv, row_overhead=row)
        accepted = (alpha_from_length(drafting.length, drafting.tokens),) * drafting.tokens
    limits = dataclasses.replace(replica.limits, sequence_tokens=drafter.queries)
    limits = dataclasses.replace(limits, token_budget=max(limits.token_budget, limits.max_sequences * drafter.queries))
    step = model_step_time(
        setup.step, drafter, machine, setup.layout, sequences=limits.max_sequences,
        budget=float(limits.max_chunk_tokens or limits.token_budget), longest=point.input_tokens + point.output_tokens,
    )  # fmt: skip
    count = max(each, min(WAVES * each, MOST))
    inputs, outputs = lengths(point, count, seed)
    run = run_replica(
        Requests([0.0] * count, inputs, outputs, [0] * count), step, limits, acceptance=accepted, concurrency=each,
        prefilled=point.prefill is not None, seed=seed,
    )  # fmt: skip
    spans = [(r.completion_s - r.first_token_s) / (r.output_tokens - 1) for r in run.records if r.output_tokens > 1]
    return Loop(float(np.mean(spans)), sum(outputs) / run.duration_s)


def _decode_workers(point: MeasuredPoint) -> Workers:
    """The decode workers; tables that record attention data parallelism once mean them."""
    workers = point.workers
    attention = point.labels.get("dp_attention", "").lower() == "true"
    if point.prefill is not None and attention and workers.data == 1:
        return Workers(workers.count, 1, workers.tensor, workers.expert)
    return workers


def draft_tokens(point: MeasuredPoint, database: Database) -> int:
    """Draft tokens of InferenceX's DeepSeek-R1 recipes, [tokens], by engine, accelerator and parallelism.

    SGLang 2 on NVIDIA (benchmarks/single_node/dsr1_fp8_b200_mtp.sh, fixed_seq_len/dsr1_fp8_h200_mtp.sh;
    srt-slurm recipes/b200-fp8/1k1k-mtp.yaml) and 3 on AMD (InferenceX pull request 1521); TensorRT-LLM 3,
    or 1 with attention data parallelism (dsr1_fp8_b200_trt_mtp.sh), where it is disaggregated 1 only from
    a large batch on (NVIDIA/srt-slurm recipes/trtllm/gb300-fp8). InputError for another engine.
    """
    workers = _decode_workers(point)
    if point.engine == "sglang":
        return 2 if database.accelerator(point.accelerator).vendor == "NVIDIA" else 3
    if point.engine == "trtllm":
        batch = point.concurrency / max(1, workers.count * workers.data)
        wide = workers.data > 1 and (point.prefill is None or batch > WIDE)
        return 1 if wide else 3
    raise InputError(f"how many tokens {point.labels.get('engine') or point.engine} drafts is not recorded")


def random_token_length(point: MeasuredPoint, tokens: int) -> float:
    """Acceptance length of DeepSeek-R1's module on random tokens at ``tokens`` drafts, [tokens].

    In the chat template an answer is accepted as real ones are until it would end, and as raw random
    tokens are from there on. Source: InferenceX pull request 649 for both; the rest as in the constants.
    """
    data = load_speculation()
    model = "deepseek-r1"
    templated, raw = (data.find(model, "mtp", f"random, {kind}") for kind in ("chat template", "raw"))
    assert templated is not None and raw is not None
    inflated = measured_length(raw.curve, tokens)
    if point.labels.get("engine") == "dynamo-sglang" and point.date < TEMPLATED:
        return inflated
    total = (1 + point.spread) / 2 * point.output_tokens
    natural = min(total, NATURAL_TOKENS)
    steps = natural / measured_length(templated.curve, tokens) + (total - natural) / inflated
    return total / steps


def compare_paired(points: Sequence[MeasuredPoint], database: Database) -> tuple[list[Comparison], list[Skipped]]:
    """The speed-up of drafting beside the measured one, for every row with MTP that has a row without.

    A pair shares all but speculation and date; of several partners the nearest in date is taken. Speed-up is
    the time per output token without over with, [1].
    """
    plain: dict[tuple[object, ...], list[MeasuredPoint]] = {}
    for point in points:
        if not point.speculation and _tpot(point):
            plain.setdefault(_pair(point), []).append(point)
    loops: dict[tuple[object, ...], Loop] = {}

    def loop(point: MeasuredPoint, drafting: Drafting | None) -> Loop:
        key = (*_pair(point), drafting)
        if key not in loops:
            loops[key] = run_loop(point, database, drafting)
        return loops[key]

    found: list[Comparison] = []
    skipped: list[Skipped] = []
    for point in points:
        if point.speculation != "mtp":
            continue
        partners = plain.get(_pair(point), [])
        if not partners or not _tpot(point):
            reason = "no row without MTP of the same configuration" if _tpot(point) else "holds no time per token"
            skipped.append(Skipped(point.id, point.file, reason))
            continue
        partner = min(partners, key=lambda one: _days(one, point))
        shared = next((s for s in ("mean", "p50") if s in _tpot(point) and s in _tpot(partner)), None)
        if shared is None:
            skipped.append(Skipped(point.id, point.file, "its partner holds another statistic"))
            continue
        try:
            tokens = draft_tokens(point, database)
            drafting = Drafting("mtp", tokens, random_token_length(point, tokens), implementation_of(point.engine))
            predicted = loop(point, None).tpot / loop(point, drafting).tpot
        except InputError as error:
            skipped.append(Skipped(point.id, point.file, str(error.problem)))
            continue
        apart = _days(partner, point)
        found.append(
            Comparison(
                point.id, point.file, "speedup", _tpot(partner)[shared] / _tpot(point)[shared], predicted, "1", shared,
                point.accelerator, point.model, point.engine, point.weights, str(point.concurrency), "MTP, paired",
                extrapolates=f"measured {apart} days apart, software between them" if apart > APART else "",
            )
        )  # fmt: skip
    return found, skipped


def _pair(point: MeasuredPoint) -> tuple[object, ...]:
    """All that a row with drafts and its partner share."""
    return (
        point.accelerator, point.model, point.weights, point.labels.get("engine", point.engine), point.workers,
        point.prefill, point.labels.get("dp_attention", ""), point.input_tokens, point.output_tokens,
        point.concurrency, point.pipeline,
    )  # fmt: skip


def _tpot(point: MeasuredPoint) -> dict[str, float]:
    return {m.statistic: m.value for m in point.measured if m.metric == "tpot"}


def _days(one: MeasuredPoint, other: MeasuredPoint) -> int:
    try:
        return abs((date.fromisoformat(one.date) - date.fromisoformat(other.date)).days)
    except ValueError:
        return 0
