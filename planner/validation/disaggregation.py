"""Disaggregated benchmarks as they were run: a closed loop over a prefill pool and a decode pool."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from planner.cost.acceptance import alpha_from_length
from planner.cost.memory import CacheLayout
from planner.cost.speculation import Drafter, draft_model
from planner.documents import number, only_keys, read_toml, string
from planner.errors import InputError
from planner.hardware import Database
from planner.hardware.database import database_root
from planner.hardware.transfer import load_transfer
from planner.serving.model_step_time import model_step_time
from planner.serving.speculative_steps import draw_steps, step_lengths
from planner.serving.statistics import distribution
from planner.sizing.configuration import Setup, machine_of
from planner.sizing.footprint import footprint
from planner.validation.comparison import Comparison, Skipped
from planner.validation.labels import format_named
from planner.validation.points import MeasuredPoint
from planner.validation.protocols import NONE, Prediction, lengths, set_up_point
from planner.validation.speculation_loop import (
    DRAFT_VOCABULARY,
    draft_tokens,
    host_per_rank,
    implementation_of,
    random_token_length,
)
from planner.validation.two_pools import DecodeWorkers, PrefillWorkers, run_pools

Vector = npt.NDArray[np.float64]
#: streams simulated one by one; beyond, a simulated request stands for several
STREAMS = 256
#: batches a decode step is priced at, the others between
GRID = 48
#: tokens of a rank's prefill step: max_num_tokens of TensorRT-LLM's context workers and a rank's share of SGLang's
#: chunked-prefill-size in NVIDIA/srt-slurm recipes
PREFILL_TOKENS = 16384
#: share of memory SGLang's recipes let a worker use where weights leave little (mem-fraction-static up to 0.95)
MEMORY = 0.95
#: sequences of a rank from which TensorRT-LLM's decode batches are multiples of this instead of powers of two
LARGE = 256
#: sequences of a tensor-parallel worker in fp4 without drafts, at least: one recipe serves a list of concurrencies
#: (four workers with 12, 44 and 76 streams decode 2.8, 10 and 16.0 each, by Little's law; InferenceX, GB200)
SWEPT = 16
UNKNOWN = "speculation not recorded, predicted without"
UNITS = {"admission": "steps", "prefill": "1", "ranks": "1", "drafts": "1"}
GENERIC = {"admission": 0.0, "prefill": 1.0}


@lru_cache(maxsize=4)
def pool_constants(root: Path) -> dict[str, dict[str, float]]:
    """What two pools cost besides their steps, by engine and "any"; units as in the file, [steps] or [1].

    Source: ``hardware_db/disaggregation.toml``; InputError with key and line for a mistake in it.
    """
    document = read_toml(root / "disaggregation.toml")
    found: dict[str, dict[str, float]] = {}
    for owner, table in document.data.items():
        if owner == "schema":
            continue
        only_keys(document, table, (owner,), UNITS)
        for name, fact in table.items():
            path = (owner, name)
            only_keys(document, fact, path, ("value", "unit", "kind", "source", "date"))
            string(document, fact, path, "unit", choices=(UNITS[name],))
            string(document, fact, path, "kind", choices=("fitted",))
            found.setdefault(owner, {})[name] = number(document, fact, path, "value")
    return found


def compare_disaggregated(
    points: Sequence[MeasuredPoint], database: Database, constants: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[list[Comparison], list[Skipped]]:
    """Time per output token and to the first one of disaggregated points beside the measured ones, [s].

    Mean where given, else median, and the 99th percentile. Points that are none are left out without a word.
    ``constants`` as of :func:`pool_constants`, which they are by default.
    Source: :func:`predict_disaggregated`.
    """
    found: list[Comparison] = []
    skipped: list[Skipped] = []
    known: dict[tuple[object, ...], Prediction | InputError] = {}
    for row in points:
        if row.prefill is None:
            continue
        point = _as_run(row, database)
        key = _key(point)
        if key not in known:
            try:
                known[key] = predict_disaggregated(point, database, constants=constants)
            except InputError as error:
                known[key] = error
        predicted = known[key]
        if isinstance(predicted, InputError):
            skipped.append(Skipped(point.id, point.file, str(predicted.problem)))
            continue
        for metric, statistic, value in _figures(point):
            found.append(
                Comparison(
                    point.id, point.file, metric, value, predicted.value(metric, statistic), "s", statistic,
                    point.accelerator, point.model, point.engine, point.weights, str(point.concurrency),
                    "disaggregated, mtp" if point.speculation == "mtp" else "disaggregated",
                    extrapolates=UNKNOWN if point.speculation == "unknown" else "",
                )
            )  # fmt: skip
    return found, skipped


def _key(point: MeasuredPoint) -> tuple[object, ...]:
    """All that a prediction depends on."""
    return (
        point.accelerator, point.model, point.engine, point.labels.get("engine", ""), point.weights, point.kv,
        point.labels.get("weight_precision", ""),
        point.workers, point.prefill, point.pipeline, point.input_tokens, point.output_tokens, point.spread,
        point.concurrency, point.prompts, point.speculation, point.date if point.speculation == "mtp" else "",
    )  # fmt: skip


def _figures(point: MeasuredPoint) -> list[tuple[str, str, float]]:
    found = []
    for metric in ("tpot", "ttft"):
        for choices in (("mean", "p50"), ("p99",)):
            given = [(metric, s, v) for s in choices if (v := point.value(metric, s)) is not None]
            found += given[:1]
    return found


def predict_disaggregated(
    point: MeasuredPoint,
    database: Database,
    seed: int = 0,
    constants: Mapping[str, Mapping[str, float]] | None = None,
) -> Prediction:
    """Run the point's closed loop over both pools; InputError when the configuration cannot be, [s].

    Output throughput is over all accelerators of both pools, [tokens/s]. Source:
    :func:`planner.validation.two_pools.run_pools`; constants of ``hardware_db/disaggregation.toml``.
    """
    prompts = point.prefill
    if prompts is None:
        raise InputError("not disaggregated")
    if point.speculation not in ("", "mtp", "unknown"):
        raise InputError(f"speculation {point.speculation!r} is none we can run in two pools")
    point = _as_run(point, database)
    constants = constants or pool_constants(database_root())
    own = {**GENERIC, **constants["any"], **constants.get(point.engine, {})}
    each = max(1.0, point.concurrency / STREAMS)
    streams = min(point.concurrency, STREAMS)
    count = max(streams, int(point.requests / each))
    inputs, outputs = (np.array(x, dtype=float) for x in lengths(point, count, seed))
    mean_input, mean_output = ((1 + point.spread) / 2 * x for x in (point.input_tokens, point.output_tokens))
    drafted = draft_tokens(point, database) if point.speculation == "mtp" else 0
    steps = _steps(point, outputs, drafted, own["drafts"], seed)
    decode, overhead = _decode(point, database, drafted, mean_input + mean_output / 2, own)
    run = run_pools(
        _prefill(point, database, mean_input, own["prefill"]), decode, steps=steps.tolist(),
        work=(inputs / mean_input).tolist(), streams=streams, each=each, before_s=overhead,
        between_s=_transfer(point, database, mean_input),
    )  # fmt: skip
    several = outputs > 1
    tpot = (run.end - run.first)[several] / (outputs[several] - 1)
    accelerators = point.workers.accelerators + prompts.accelerators
    return Prediction(
        distribution(run.first - run.sent), distribution(tpot), distribution(run.end - run.sent),
        float(outputs.sum()) * each / float(run.end.max()) / accelerators,
    )  # fmt: skip


def _steps(point: MeasuredPoint, outputs: Vector, drafted: int, spread: float, seed: int) -> Vector:
    """Decode steps of every request: its drafts are accepted as such requests' are on average, more or less."""
    if not drafted:
        return outputs - 1
    rng = np.random.default_rng(seed)
    accepted = (alpha_from_length(random_token_length(point, drafted), drafted),) * drafted
    steps = draw_steps(outputs.astype(int) - 1, step_lengths(accepted), rng).astype(float)
    return np.minimum(outputs - 1, steps * np.exp(spread * rng.standard_normal(len(outputs))))


def _as_run(point: MeasuredPoint, database: Database) -> MeasuredPoint:
    """The point with what tables of disaggregated rows leave out.

    Their images' versions are Dynamo's, so the engine is today's. Recipes keep an fp8 cache, but for SGLang on
    chips without fp4. Source: kv_cache_config and kv-cache-dtype in NVIDIA/srt-slurm recipes.
    """
    engine = point.engine.split("-")[0]
    kv = point.kv
    if kv == "native" and (engine == "trtllm" or database.accelerator(point.accelerator).peak("fp4")):
        kv = "fp8"
    return dataclasses.replace(point, engine=engine, kv=kv)


def _prefill(point: MeasuredPoint, database: Database, tokens: float, factor: float) -> PrefillWorkers:
    """The prefill workers with the time of their steps by prompts of the busiest rank."""
    assert point.prefill is not None
    setup = set_up_point(point, point.prefill, database)
    machine = host_per_rank(machine_of(setup), setup.layout, None)
    step = model_step_time(
        setup.step, NONE, machine, setup.layout, sequences=1, budget=float(PREFILL_TOKENS), longest=point.input_tokens
    )
    none = (0.0,) * (1 + len(step.limits))
    base, length, ranks = step.decode(0, none, none)[0], round(tokens), point.prefill.data
    most = max(1, PREFILL_TOKENS // length)
    seconds = [factor * (base + step.prefill(0, [(length, 0)] * (k * ranks))) for k in range(1, most + 1)]
    return PrefillWorkers(point.prefill.count, ranks, (0.0, *seconds))


def _decode(
    point: MeasuredPoint, database: Database, drafted: int, context: float, constants: dict[str, float]
) -> tuple[DecodeWorkers, float]:
    """The decode workers with the time of their steps by batch, and the host's time for a request [s]."""
    workers = point.workers
    setup = set_up_point(point, workers, database)
    drafter, implementation = NONE, None
    if drafted:
        implementation = implementation_of(point.engine)
        small = draft_model(setup.model, "mtp", DRAFT_VOCABULARY, setup.step.formats)
        if small is None:
            raise InputError(f"{setup.model.name} has no module of mtp")
        drafter = Drafter("mtp", drafted, small, implementation.token, 0.0, setup.precision.kv)
    machine = host_per_rank(machine_of(setup), setup.layout, implementation)
    longest = point.input_tokens + point.output_tokens
    slots = min(decode_slots(point), _fitting(setup, longest))
    step = model_step_time(
        setup.step, drafter, machine, setup.layout, sequences=slots, budget=float(PREFILL_TOKENS), longest=longest
    )
    batches = np.unique(np.geomspace(1, slots, GRID).round().astype(int))
    each = (context, *(min(context, limit) for limit in step.limits))
    still = (0.0,) * len(each)
    seconds = [step.decode(int(n), [n * c for c in each], still)[0] for n in batches]
    table = np.interp(np.arange(slots + 1), batches, seconds) * (constants["ranks"] if workers.data > 1 else 1.0)
    return DecodeWorkers(workers.count, slots, table, constants["admission"]), float(
        np.asarray(machine.request_overhead)
    )


def _fitting(setup: Setup, context: float) -> int:
    """Sequences of ``context`` [tokens] whose caches a decode worker holds."""
    fraction = MEMORY if setup.engine.memory_semantics == "total" else None
    room = footprint(setup.step, setup.chip, setup.engine, setup.layout, fraction).kv_room
    cache = CacheLayout(setup.model.layers, setup.precision.kv, setup.engine.hybrid_kv_manager)
    each = float(np.asarray(cache.allocated(context, setup.layout) + cache.state(setup.layout)))
    fitting = int(max(room, 0.0) / each * float(setup.layout.data))
    if not fitting:
        raise InputError(f"{setup.model.name} does not fit {setup.chip.name} as the decode workers are laid out")
    return fitting


def decode_slots(point: MeasuredPoint) -> int:
    """Sequences a decode worker serves at once, memory aside, [1].

    TensorRT-LLM's recipes capture a batch of a rank a little below its share of the streams, a power of two or
    from 512 on a multiple of :data:`LARGE`, and one where the share is two: ctx1_gen4_tep8_batch8_eplb0_mtp0_36
    serves 36 streams with four workers of eight. In fp4 one recipe is for many concurrencies, see :data:`SWEPT`.
    Other engines take what comes.

    Source: names of NVIDIA/srt-slurm recipes/trtllm/gb300-fp8.
    """
    workers = point.workers
    if point.engine != "trtllm":
        return math.ceil(point.concurrency / workers.count)
    share = point.concurrency / (workers.count * workers.data)
    if share >= 2 * LARGE:
        return LARGE * int(share / LARGE) * workers.data
    batch = 1 if share <= 2 else 2 ** int(math.log2(share))
    if (
        workers.data == 1
        and point.speculation != "mtp"
        and format_named(point.labels.get("weight_precision", "")) == "nvfp4"
    ):
        batch = max(batch, SWEPT)
    return batch * workers.data


def _transfer(point: MeasuredPoint, database: Database, tokens: float) -> float:
    """Time of a prompt's cache between the pools, [s]: each rank of the decode side takes its own."""
    assert point.prefill is not None
    constants = load_transfer(database_root())
    setup = set_up_point(point, point.workers, database)
    fleet = point.workers.accelerators + point.prefill.accelerators
    inside = fleet <= setup.chip.scale_up_domain
    link = setup.chip.scale_up_bandwidth if inside else setup.chip.scale_out_bandwidth
    if not link:
        raise InputError(f"no bandwidth between the pools of {setup.chip.name} is known")
    cache = CacheLayout(setup.model.layers, setup.precision.kv, setup.engine.hybrid_kv_manager)
    held = float(np.asarray(cache.stored(tokens, setup.layout)))
    return constants.latency_s + held / (link * constants.efficiency)
