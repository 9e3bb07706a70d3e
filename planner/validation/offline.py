"""Benchmarks with everything queued, and static batches, in closed form: waves of a full batch.

Requests of one length that all wait run in waves: while a batch decodes once through, every slot is
filled once more, so a wave takes the batch's decode steps at the mean context and its prompts beside
them. Long prompts with attention data parallelism come in on one rank while the others wait, which no
closed form here holds; those are simulated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from planner.cost.memory import CacheLayout, weight_bytes_per_device
from planner.cost.speculation import Drafter
from planner.errors import InputError
from planner.hardware import Database
from planner.models.formats import FORMATS
from planner.models.layers import FullAttention
from planner.serving.engine_limits import EngineLimits
from planner.serving.model_step_time import model_step_time
from planner.serving.requests import Requests
from planner.serving.simulator import run_replica
from planner.serving.step_time import PiecewiseStepTime
from planner.sizing.candidates import attention_heads
from planner.sizing.configuration import EstimateRequest, Setup, machine_of, set_up
from planner.validation.comparison import Comparison, Skipped
from planner.validation.points import MeasuredPoint, Row, Workers, read_point

NONE = Drafter("none", 0)
#: contexts a decode pass is summed over
PASS_POINTS = 8
#: requests of TensorRT-LLM's own benchmarks by input and output tokens, from the tables of the performance
#: overview: NVIDIA/TensorRT-LLM docs/source/performance/perf-overview.md, v0.15 to v1.2
REQUESTS = {
    (128, 128): 30000, (128, 2048): 3000, (128, 4096): 1500, (2048, 128): 3000, (2048, 2048): 1500,
    (5000, 500): 1500, (1000, 1000): 3000, (500, 2000): 3000, (20000, 2000): 1000,
    (1024, 1024): 3000, (8192, 1024): 1500, (1024, 8192): 1500, (32768, 1024): 1000,
    (1024, 32768): 1000,
}  # fmt: skip
OTHER_REQUESTS = 3000  # of lengths the tables we read leave out: as many as of 1000/1000
#: share of the free memory TensorRT-LLM's tables give the cache "in most cases", as above
CACHE_FRACTION = 0.95
#: formats the benchmark's tuning knows, and what it takes an element for, B; others get the engine's defaults
TUNED_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp8-block": 1.0, "nvfp4": 0.5}
#: most sequences and tokens of a step of an engine nobody tuned: TensorRT-LLM BuildConfig
UNTUNED = (2048, 8192)
#: waves that show a simulated benchmark's steady rate
WAVES = 2
#: the oldest version whose engine is the present one: before it engines were compiled (TensorRT)
PRESENT = (1, 0)


@dataclass(frozen=True)
class Batching:
    """What bounds the steps of a benchmark: sequences at once, tokens of a rank's step, requests in all."""

    sequences: int
    budget: int
    requests: int


@lru_cache(maxsize=512)
def setup_of(request: EstimateRequest, database: Database) -> Setup:
    """Everything a configuration names, looked up once. Source: none needed; a lookup."""
    return set_up(request, database, ())


def request_for(point: MeasuredPoint, workers: Workers) -> EstimateRequest:
    """What the planner is asked for the point's model on ``workers``. Source: the point."""
    return EstimateRequest(
        point.model, point.accelerator, workers.tensor, point.pipeline, workers.expert, workers.data,
        point.weights, point.kv, point.engine,
    )  # fmt: skip


def tuned_limits(sequences: float, inputs: float, outputs: float, stages: int = 1) -> tuple[int, int]:
    """Most sequences and tokens of a step that trtllm-bench tunes an engine to, [1] and [tokens].

    ``sequences`` the cache is thought to hold [1], ``inputs`` and ``outputs`` [tokens], pipeline
    ``stages`` [1]: at most 4096 sequences, and the tokens that a full batch decodes and prefills in
    its steady state, at most 32768, both rounded up.

    Source: NVIDIA/TensorRT-LLM tensorrt_llm/bench/build/tuning.py, finetune_setting.

    >>> tuned_limits(500, 1000, 1000), tuned_limits(9000, 2048, 128)
    ((512, 2048), (4096, 32768))
    """
    raw = min(sequences, 4096) / stages
    tokens = min(raw * (1 + inputs / outputs), 32768)
    grain = 32 if raw < 256 else 128 if raw < 1024 else 256
    step = 256 if tokens < 4096 else 512 if tokens < 8192 else 1024
    return max(64, grain * math.ceil(raw / grain)), max(2048, step * math.ceil(tokens / step))


def estimated_sequences(setup: Setup, inputs: float, outputs: float) -> float | None:
    """Sequences trtllm-bench thinks the cache holds, [1]; None for models and formats it does not tune.

    Lengths in [tokens]. All memory less the parameters, over keys and values of every layer, with one
    KV head at least on every accelerator. Source: tuning.py as above, calc_engine_setting.
    """
    model, layout = setup.model, setup.layout
    weight = TUNED_BYTES.get(setup.precision.weights)
    layers = [layer for layer in model.layers if layer.attention is not None]
    if weight is None or not all(isinstance(layer.attention, FullAttention) for layer in layers):
        return None
    ranks = int(layout.stage_devices)
    token = sum(
        2 * layer.count * max(ranks, a.kv_heads) * a.head_dim * FORMATS[setup.precision.kv].bytes_per_element
        for layer in layers
        if isinstance(a := layer.attention, FullAttention)
    )
    room = setup.chip.memory_bytes * int(layout.devices) - weight * model.total_parameters
    return CACHE_FRACTION * room / (token * (inputs + outputs))


def cache_tokens(setup: Setup, budget: float, longest: float, fraction: float | None = None) -> float:
    """Tokens the caches of all ranks hold together in sequences of ``longest`` [tokens], [tokens].

    ``budget`` [tokens] of a rank's step sizes the activations; ``fraction`` [1] of what is free after the
    weights, or of all memory where the engine means that. Source: :mod:`planner.sizing.footprint`.
    """
    engine, chip, layout = setup.engine, setup.chip, setup.layout
    fraction = fraction or engine.memory_fraction
    weights = float(np.asarray(weight_bytes_per_device(setup.model, setup.step.formats, layout)))
    other = engine.activation_bytes(budget, attention_heads(setup.model) * 128, int(layout.tensor))
    other += engine.graph_bytes + engine.collective_bytes(int(layout.stage_devices))
    if engine.memory_semantics == "free":
        room = fraction * (chip.memory_bytes - weights - other)
    else:
        room = fraction * chip.memory_bytes - weights - other
    cache = CacheLayout(setup.model.layers, setup.precision.kv, engine.hybrid_kv_manager)
    each = float(np.asarray(cache.allocated(longest, layout) + cache.state(layout)))
    return max(room, 0.0) / each * longest * float(layout.data)


def step_of(setup: Setup, sequences: int, budget: float, longest: float) -> PiecewiseStepTime:
    """The setup's step for up to ``sequences`` [1], ``budget`` and ``longest`` [tokens].

    Source: :func:`planner.serving.model_step_time.model_step_time`.
    """
    return model_step_time(
        setup.step, NONE, machine_of(setup), setup.layout, sequences=sequences, budget=budget, longest=longest
    )


def decode_seconds(step: PiecewiseStepTime, batch: int, inputs: float, outputs: float) -> float:
    """Mean step of ``batch`` [1] sequences while they decode ``outputs`` after ``inputs`` [tokens], [s].

    Source: the step at evenly spaced contexts of the pass.
    """
    total = 0.0
    for at in range(PASS_POINTS):
        context = inputs + outputs * (at + 0.5) / PASS_POINTS
        totals = [batch * context, *(batch * min(context, limit) for limit in step.limits)]
        total += step.decode(batch, totals, [0.0] * len(totals))[0]
    return total / PASS_POINTS


def prompt_seconds(step: PiecewiseStepTime, batch: int, inputs: int, budget: int) -> float:
    """What a prompt of ``inputs`` [tokens] adds beside ``batch`` [1] decoding sequences, [s].

    Every rank prefills what its ``budget`` [tokens] leaves, several prompts or a part of one at a time.
    Source: :meth:`planner.serving.step_time.PiecewiseStepTime.prefill`.
    """
    ranks = step.ranks
    room = max(1, budget - math.ceil(batch / ranks))
    if inputs > room:
        whole, rest = divmod(inputs, room)
        seconds = step.prefill_run(batch, [(room, 0)] * ranks, whole)
        if rest:
            seconds += step.prefill(batch, [(rest, whole * room)] * ranks)
        return seconds / ranks
    whole, rest = divmod(room, inputs)
    chunks = [(inputs, 0)] * whole + ([(rest, 0)] if rest else [])
    return step.prefill(batch, chunks * ranks) / (room / inputs * ranks)


def waves_seconds(step: PiecewiseStepTime, bounds: Batching, inputs: int, outputs: int) -> float:
    """Seconds all requests of one length take, [s]; lengths in [tokens].

    No more sequences decode than the budget's share of prompts can keep supplied:
    ``budget * O / (I + O)`` on each rank. Source: the module; within 3 % of the simulator where
    prompts are shorter than a step.
    """
    supplied = bounds.budget * step.ranks * outputs / (inputs + outputs)
    batch = max(1, min(bounds.sequences, int(supplied), bounds.requests))

    def wave(sequences: int) -> float:
        prompts = sequences * prompt_seconds(step, sequences, inputs, bounds.budget)
        return prompts + (outputs - 1) * decode_seconds(step, sequences, inputs, outputs)

    full, rest = divmod(bounds.requests, batch)
    return full * wave(batch) + (wave(rest) if rest else 0.0)


def simulated_rate(step: PiecewiseStepTime, bounds: Batching, inputs: int, outputs: int) -> float:
    """Output tokens per second of the same benchmark in the simulator, [tokens/s]; lengths in [tokens].

    Source: :func:`planner.serving.simulator.run_replica`.
    """
    count = min(bounds.requests, WAVES * bounds.sequences)
    limits = EngineLimits(
        max(bounds.budget * step.ranks, bounds.sequences + 1), bounds.sequences, max_chunk_tokens=bounds.budget
    )
    requests = Requests([0.0] * count, [inputs] * count, [outputs] * count, [0] * count)
    return count * outputs / run_replica(requests, step, limits).duration_s


def as_run(point: MeasuredPoint, database: Database) -> MeasuredPoint:
    """The point with what its table's commands say beside its columns.

    Mixtures of experts run with attention data parallelism (``enable_attention_dp``); a cache in the
    checkpoint's own scheme is fp8 in checkpoints of NVIDIA's quantiser, and on Hopper gpt-oss keeps it
    in bf16. Source: perf-overview.md as above, "Running the Benchmark".
    """
    notes, cache = point.labels.get("notes", ""), point.labels.get("kv_precision", "")
    workers = point.workers
    if "enable_attention_dp" in notes and workers.data == 1 and workers.tensor > 1:
        point = replace(point, workers=Workers(1, 1, workers.tensor, workers.tensor))
    quantised = point.weights in ("fp8", "nvfp4") or point.model.endswith(("-fp8", "-nvfp4"))
    if cache.startswith("auto") and quantised:
        point = replace(point, kv="fp8")
    if "auto on Hopper" in cache and "Hopper" in database.accelerator(point.accelerator).architecture:
        point = replace(point, kv="native")
    return point


def batching(point: MeasuredPoint, setup: Setup) -> Batching:
    """How many sequences, tokens and requests the point's benchmark ran; InputError when none fits.

    Static batches run as printed. TensorRT-LLM reserves the whole output of a request when it admits
    it (GUARANTEED_NO_EVICT). Source: :func:`tuned_limits`, :func:`cache_tokens`.
    """
    inputs, outputs = round(point.input_tokens), round(point.output_tokens)
    data, stages = int(setup.layout.data), int(setup.layout.pipeline)
    guess = estimated_sequences(setup, inputs, outputs)
    most, budget = UNTUNED if guess is None else tuned_limits(guess, inputs, outputs, stages)
    if point.protocol == "static batch":
        return Batching(point.concurrency, UNTUNED[1], point.concurrency)
    block = 2 * setup.engine.block_tokens
    each = block * math.ceil((inputs + outputs) / block)
    holds = int(cache_tokens(setup, budget, inputs + outputs, CACHE_FRACTION) // each)
    if holds < 1:
        raise InputError(f"{point.model} does not fit {setup.chip.name} with {point.workers.tensor} to a replica")
    requests = REQUESTS.get((inputs, outputs), OTHER_REQUESTS)
    if point.concurrency:
        most, requests = point.concurrency, max(requests, WAVES * point.concurrency)
    return Batching(min(holds, most * data * stages, requests), budget, requests)


def predict_queued(point: MeasuredPoint, database: Database) -> float:
    """Output tokens per second and accelerator of an offline or static benchmark, [tokens/s].

    InputError when the configuration cannot be. Source: :func:`waves_seconds`, :func:`simulated_rate`.
    """
    setup = setup_of(request_for(point, point.workers), database)
    bounds = batching(point, setup)
    inputs, outputs = round(point.input_tokens), round(point.output_tokens)
    step = step_of(setup, bounds.sequences, bounds.budget, inputs + outputs)
    if int(setup.layout.data) > 1 and inputs >= bounds.budget:
        return simulated_rate(step, bounds, inputs, outputs) / float(setup.layout.devices)
    seconds = waves_seconds(step, bounds, inputs, outputs)
    return bounds.requests * outputs / seconds / float(setup.layout.devices)


def first_token_seconds(point: MeasuredPoint, database: Database) -> float:
    """First token of a static batch, all prompts in steps of their own, [s]. Source: :func:`prompt_seconds`."""
    setup = setup_of(request_for(point, point.workers), database)
    inputs = round(point.input_tokens)
    step = step_of(setup, point.concurrency, UNTUNED[1], inputs + 1)
    idle = step.decode(0, [0.0] * (1 + len(step.limits)), [0.0] * (1 + len(step.limits)))[0]
    budget = min(UNTUNED[1], inputs * point.concurrency)
    steps = math.ceil(point.concurrency * inputs / UNTUNED[1])
    return point.concurrency * prompt_seconds(step, 0, inputs, budget) * step.ranks + steps * idle


def offline(rows: Sequence[Row], file: str, database: Database) -> tuple[list[Comparison], list[Skipped]]:
    """Every row of a table of offline or static benchmarks, predicted and compared, or why not.

    ``rows``: as :func:`planner.validation.points.read_point` reads them; rates in output tokens per
    second and accelerator, first tokens in seconds. Source: :func:`predict_queued`.
    """
    compared: list[Comparison] = []
    skipped: list[Skipped] = []
    for row in rows:
        found = _compare(row, file, database)
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            compared += found
    return compared, skipped


def one_phase_rate(point: MeasuredPoint, database: Database, phase: str) -> float:
    """Tokens per second and accelerator of prefill or decode alone, on attention ranks of their own, [tokens/s].

    ``point.concurrency`` [1] sequences decode at their prompt's context, or are prefilled in one step.
    Source: the step's own decode and prefill.
    """
    setup = setup_of(request_for(point, point.workers), database)
    inputs, batch, devices = round(point.input_tokens), point.concurrency, float(setup.layout.devices)
    step = step_of(setup, batch, inputs * batch / float(setup.layout.data), inputs)
    if phase == "decode":
        return batch / decode_seconds(step, batch, inputs, 1) / devices
    nobody = [0.0] * (1 + len(step.limits))
    seconds = step.decode(0, nobody, nobody)[0] + step.prefill(0, [(inputs, 0)] * batch)
    return batch * inputs / seconds / devices


def _one_phase(row: Row, file: str, database: Database) -> list[Comparison] | Skipped:
    """Rows of prefill or decode alone print tokens or sequences of an accelerator."""
    phase = row["scenario"].removesuffix("-only")
    each = re.match(r"([\d,]+)( tokens)? per (?:GPU|device)", row.get("concurrency_or_batch", ""))
    gpus, name = float(row.get("n_gpus") or 0), row.get("id") or "?"
    if each is None or not gpus or "SIMULATED" in row.get("notes", ""):
        return Skipped(name, file, "simulated speculation, or a batch that is not recorded")
    count = float(each[1].replace(",", "")) / (float(row["isl"]) if each[2] else 1.0) * gpus
    total = row.get("total_tok_s") if phase == "prefill" else row.get("output_tok_s_total")
    said = {
        "osl": "1",
        "concurrency_or_batch": f"{count:g}",
        "scenario": "static-batch",
        "output_tok_s_total": total or "",
    }
    point = read_point({**row, **said, "output_tok_s_per_gpu": ""}, file, database)
    if isinstance(point, Skipped):
        return point
    made = _comparison(point, "throughput", float(total or 0) / gpus, one_phase_rate(point, database, phase))
    return [replace(made, kind=phase, extrapolates="experts spread over several nodes" if gpus > 8 else "")]


def _compare(row: Row, file: str, database: Database) -> list[Comparison] | Skipped:
    row = {**row, "model": row.get("model", "").removesuffix("/R1")}  # "DeepSeek-V3/R1": one shape
    if row.get("scenario") in ("prefill-only", "decode-only"):
        try:
            return _one_phase(row, file, database)
        except (InputError, ValueError) as error:
            return Skipped(row.get("id") or "?", file, str(error))
    point = read_point(row, file, database)
    if isinstance(point, Skipped):
        return point
    reason = why_not(point)
    if reason:
        return Skipped(point.id, file, reason)
    point = as_run(point, database)
    made = []
    try:
        for measured in point.measured:
            if measured.metric == "throughput":
                if point.output_tokens > 1:
                    made.append(_comparison(point, "throughput", measured.value, predict_queued(point, database)))
            elif measured.metric == "ttft" and point.protocol == "static batch":
                made.append(_comparison(point, "ttft", measured.value, first_token_seconds(point, database)))
    except InputError as error:
        return Skipped(point.id, file, str(error.problem))
    return made or Skipped(point.id, file, "holds no throughput or first token of a static batch")


def why_not(point: MeasuredPoint) -> str:
    """Why a point is no plain offline or static benchmark, or nothing. Source: its notes."""
    notes = point.labels.get("notes", "")
    if point.speculation or "EAGLE" in notes or re.search(r"\bMTP[1-9]|length [1-9]", notes):
        return "ran with speculative decoding, whose acceptance is another question"
    if "not printed" in notes and not point.labels.get("tp"):
        return "parallelism of the replica is not printed"
    if "without XQA" in point.labels.get("engine", ""):
        return "an attention kernel switched off for comparison"
    if point.protocol not in ("offline", "static batch", "closed loop"):
        return f"protocol {point.protocol!r} is not an offline one"
    return ""


def _comparison(point: MeasuredPoint, metric: str, measured: float, predicted: float) -> Comparison:
    lengths = f"{point.input_tokens:g}/{point.output_tokens:g}"
    static = point.protocol == "static batch"
    precision = point.labels.get("weight_precision", point.weights).split(" (")[0]
    return Comparison(
        point.id, point.file, metric, measured, predicted, "s" if metric == "ttft" else "tokens/s",
        accelerator=point.accelerator, model=point.model, engine=f"{point.engine} {point.version}".strip(),
        precision=precision, load=f"batch {point.concurrency}" if static else "queued",
        kind="static batch" if static else "offline",
        configuration="" if static else " ".join(
            (point.file, point.accelerator, point.model, precision, point.version, lengths)
        ),
        extrapolates=_generation(point),
    )  # fmt: skip


def _generation(point: MeasuredPoint) -> str:
    """Why an engine's constants are not those it is predicted with, or nothing."""
    numbers = re.match(r"(\d+)\.(\d+)", point.version)
    if point.engine == "trtllm" and numbers and (int(numbers[1]), int(numbers[2])) < PRESENT:
        return f"engine of another generation ({point.version})"
    return ""
