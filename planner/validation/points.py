"""Measured serving points: a configuration, the benchmark that ran, and what it measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from planner.errors import InputError
from planner.hardware import Database
from planner.models import load_model
from planner.models.formats import KV_FORMATS
from planner.models.model import Model
from planner.validation.comparison import Skipped
from planner.validation.labels import (
    accelerator_named,
    engine_named,
    format_named,
    model_named,
    weight_choice,
)
from planner.validation.recipes import DEFAULT, Recipe, recipe_of

Protocol = Literal["closed loop", "offline", "static batch", "server"]
Row = Mapping[str, str]
#: prompts per concurrent stream where a source does not say: what InferenceX sends, and common elsewhere
PROMPTS_PER_STREAM = 10
RANGE_RATIO = re.compile(r"range ratio (0?\.\d+)")
#: accelerators of a tensor-parallel worker at most
NODE = 8
DESCRIBED = re.compile(r"(\d+)x(TP\d+)?EP(\d+) (prefill|decode)")
UNKNOWN_SPECULATION = "spec_method not recorded"
SCALES = {"ttft": 1e-3, "tpot": 1e-3, "e2e": 1e-3}


@dataclass(frozen=True)
class Measured:
    """One measured figure in SI: seconds, or tokens per second and accelerator."""

    metric: str
    statistic: str
    value: float


@dataclass(frozen=True)
class Workers:
    """``count`` workers of one kind, each of ``tensor`` x ``data`` accelerators with experts over ``expert``."""

    count: int
    tensor: int
    data: int = 1
    expert: int = 1

    @property
    def accelerators(self) -> int:
        """All of them, [1]. Source: definition."""
        return self.count * self.tensor * self.data


@dataclass(frozen=True)
class MeasuredPoint:
    """What was run and measured. Lengths in tokens; ``spread`` is the least length over the greatest [1].

    ``weights`` and ``kv``: formats as the planner is asked for them. ``workers``: one aggregated replica,
    or ``prefill`` beside it where the point is disaggregated. ``concurrency``: requests in flight, or the
    static batch; ``prompts`` requests in all, 0 when the source does not say. ``recipe``: how the benchmark is
    known to have set the server.
    """

    id: str
    file: str
    accelerator: str
    model: str
    engine: str
    version: str
    weights: str
    kv: str
    workers: Workers
    input_tokens: float
    output_tokens: float
    protocol: Protocol
    measured: tuple[Measured, ...]
    pipeline: int = 1
    spread: float = 1.0
    concurrency: int = 0
    prompts: int = 0
    prefill: Workers | None = None
    speculation: str = ""
    date: str = ""
    flags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    recipe: Recipe = DEFAULT

    @property
    def group(self) -> tuple[str, str]:
        """Model and accelerator: what is left out of a fit together. Source: definition."""
        return (self.model, self.accelerator)

    @property
    def in_step(self) -> bool:
        """Whether streams all start at once with requests of one length, and so end and begin together.

        Known only of clients whose results are read: published closed loops of one length without a client
        (TensorRT-LLM's, SGLang's) are predicted better with streams apart. Source: bench/data/live_engine.
        """
        return self.protocol == "closed loop" and self.spread == 1 and bool(self.labels.get("client"))

    @property
    def requests(self) -> int:
        """Requests of the whole benchmark, [1]. Source: the row, else the common number a stream."""
        return self.prompts or self.concurrency * PROMPTS_PER_STREAM

    def value(self, metric: str, statistic: str = "mean") -> float | None:
        """The measured figure, or None. Source: the row."""
        return next((m.value for m in self.measured if (m.metric, m.statistic) == (metric, statistic)), None)


def read_point(row: Row, file: str, database: Database) -> MeasuredPoint | Skipped:
    """The point a row describes, or why it is none we can run.

    ``row``: the columns of a results table (see ``docs/guides/validate.md``). Names are looked up in
    ``database`` and the catalogue; lengths in tokens, times in ms, rates in tokens/s as the columns say.
    """
    name = row.get("id") or row.get("name") or "?"
    try:
        return _read(row, name, file, database)
    except InputError as error:
        return Skipped(name, file, str(error.problem))


def _read(row: Row, name: str, file: str, database: Database) -> MeasuredPoint | Skipped:
    measured = _measured(row)
    if not measured:
        return Skipped(name, file, "holds no measured latency or throughput")
    chip = accelerator_named(row.get("gpu", ""), database)
    engine, version = engine_named(row.get("engine", "") or row.get("backend", ""))
    image = row.get("image", "")
    if image and "dynamo" not in image:  # Dynamo's images carry its own version
        version = image.split(":")[-1]
    engine = database.generation(engine, version.lstrip("v")).name
    model, said = _named(row.get("model", ""))
    said = format_named(row.get("weight_precision", "")) or said
    model = _checkpoint(model, said)
    weights = weight_choice(model, said)
    protocol = _protocol(row)
    if protocol is None:
        return Skipped(name, file, f"scenario {row.get('scenario')!r} is none we can run")
    workers, prefill = _workers(row)
    lengths = _lengths(row)
    if lengths is None:
        return Skipped(name, file, "input or output length not recorded")
    concurrency = int(_number(row.get("concurrency_or_batch", "")) or 0)
    each = re.search(r"batch_size col=(\d+)", row.get("notes", ""))
    if each and prefill is None and 0 < int(each.group(1)) < concurrency:
        concurrency = int(each.group(1))  # of one of several replicas
    if protocol in ("closed loop", "static batch") and not concurrency:
        return Skipped(name, file, "concurrency or batch not recorded")
    spread = RANGE_RATIO.search(row.get("length_kind", "") + " " + row.get("notes", ""))
    completed = _number(row.get("completed", ""))
    prompts = int(completed) if completed else concurrency * PROMPTS_PER_STREAM if spread else 0
    known = recipe_of("InferenceX", model.name, chip.name, database.engine(engine).family, database)
    recipe = known if spread else DEFAULT  # a recorded range ratio is InferenceX's mark
    return MeasuredPoint(
        id=name, file=file, accelerator=chip.name, model=_place(row["model"]) or model.name, engine=engine,
        version=version, weights=weights, kv=_kv(row, weights, recipe),
        workers=workers, input_tokens=lengths[0], output_tokens=lengths[1], protocol=protocol, measured=measured,
        pipeline=_whole(row.get("pp", "")) or 1, spread=float(spread.group(1)) if spread else 1.0,
        concurrency=concurrency, prompts=prompts, prefill=prefill, speculation=_speculation(row),
        date=row.get("source_date", ""), flags=tuple(f for f in re.split(r";\s*", row.get("flag", "")) if f),
        labels=dict(row), recipe=recipe,
    )  # fmt: skip


def _checkpoint(model: Model, said: str) -> Model:
    """The catalogue's own entry of a quantised checkpoint where it has one: some layers stay as they were."""
    short = {"nvfp4": "nvfp4", "mxfp4": "nvfp4", "fp8-block": "fp8"}.get(said)
    if short is None or said in model.formats.values():
        return model
    return _entry(f"{model.name}-{short}") or model


@lru_cache(maxsize=1024)
def _named(label: str) -> tuple[Model, str]:
    """Tables name a handful of models thousands of times."""
    return model_named(label)


def _place(label: str) -> str:
    """The path of a model that is a file of its own, which look-ups by its name would not find."""
    return label if label.endswith((".json", ".toml")) or Path(label).is_dir() else ""


@lru_cache(maxsize=1024)
def _entry(name: str) -> Model | None:
    try:
        return load_model(name)
    except InputError:
        return None


def _number(text: str) -> float | None:
    match = re.match(r"\s*([\d.]+(?:e[+-]?\d+)?)", text)
    return float(match.group(1)) if match else None


def _whole(text: str) -> int:
    """A degree of parallelism, 0 when there is none."""
    match = re.fullmatch(r"\s*(\d+)(\.0)?\s*", text)
    return int(match.group(1)) if match else 0


def _measured(row: Row) -> tuple[Measured, ...]:
    found = []
    median = row.get("notes", "").startswith("MEDIAN")
    for metric, scale in SCALES.items():
        for statistic, column in (("mean", f"{metric}_ms"), ("p50", f"{metric}_p50_ms"), ("p99", f"{metric}_p99_ms")):
            value = _number(row.get(column, ""))
            if value:
                found.append(Measured(metric, "p50" if statistic == "mean" and median else statistic, value * scale))
    rate = _number(row.get("output_tok_s_per_gpu", ""))
    if not rate and (total := _number(row.get("output_tok_s_total", ""))) and (gpus := _number(row.get("n_gpus", ""))):
        rate = total / gpus
    if rate:
        found.append(Measured("throughput", "mean", rate))
    return tuple(found)


def _protocol(row: Row) -> Protocol | None:
    scenario = row.get("scenario", "") or ("fixed-concurrency" if row.get("mode") else "")
    if "static" in scenario or "first-token" in scenario:
        return "static batch"
    if scenario in ("server", "interactive"):
        return "server"
    if "offline" in scenario or "max-throughput" in scenario:
        return "offline"
    if scenario.startswith("fixed-concurrency") or scenario in ("disaggregated", "min-latency", "singlestream"):
        return "closed loop"
    return None if scenario else "closed loop"


def _workers(row: Row) -> tuple[Workers, Workers | None]:
    tensor, data, expert = (_whole(row.get(k, "")) or 1 for k in ("tp", "dp", "ep"))
    gpus = _whole(row.get("n_gpus", ""))
    if row.get("mode") == "disagg" or row.get("scenario", "").startswith(("disagg", "fixed-concurrency-disagg")):
        pools = _pools(row)
        if pools is None:
            raise InputError("disaggregated, and the pools' workers are not recorded")
        return pools
    if "dp_attention" in row:  # InferenceX: tp is the accelerators of a replica
        attention = row["dp_attention"].lower() == "true"
        return (Workers(1, 1, tensor, expert) if attention else Workers(1, tensor, 1, expert)), None
    if "replicas" in row.get("dp", ""):
        return Workers(int(_number(row["dp"]) or 1), tensor, 1, expert), None
    pipeline = _whole(row.get("pp", "")) or 1
    trusted = not row.get("parallelism_trust", "").startswith(("suspect", "corrected"))
    if not trusted and gpus and tensor * data != gpus:
        tensor, data = (1, gpus) if data > 1 else (gpus, 1)
    if data > 1 and tensor * data > gpus > 0 and tensor % data == 0:  # TP8 with 8 attention ranks on 8
        tensor //= data
    experts = (_whole(row.get("moe_tp", "")) or 1) * expert
    if trusted and experts > tensor * data and experts % tensor == 0:  # attention ranks were left out
        data = experts // tensor
    if not row.get("tp") and gpus:
        tensor = max(1, gpus // data // pipeline)
    expert = min(max(expert, 1), tensor * data)
    return Workers(1, tensor, data, expert), None


def _pools(row: Row) -> tuple[Workers, Workers] | None:
    """Decode and prefill workers, from columns or from what notes say; None where they don't."""
    if row.get("decode_workers"):
        return _recorded_pools(row)
    notes = row.get("notes", "")
    match = re.search(r"=(\d+),(\d+),(\d+),(\d+),(\d+),(\d+) decode=(\d+),(\d+),(\d+),(\d+),(\d+),(\d+)", notes)
    if match is None:
        return _described_pools(row)
    pools = []
    for first in (6, 0):
        count, tensor, _, data, _, expert = (max(1, int(g)) for g in match.groups()[first : first + 6])
        pools.append(Workers(count, tensor, data, expert))
    return pools[0], pools[1]


def _recorded_pools(row: Row) -> tuple[Workers, Workers] | None:
    """From columns of their own. One flag says attention data parallelism for both pools.

    Wide rows of 2025 say 1 where the degrees are those of the worker; rows of a node with 1 and 1 are tensor
    parallel as their recipes in NVIDIA/srt-slurm.
    """
    sizes = {}
    for kind in ("decode", "prefill"):
        count, gpus = _whole(row.get(f"{kind}_workers", "")), _whole(row.get(f"{kind}_gpus", ""))
        if not count or gpus < count:
            return None
        sizes[kind] = (count, gpus // count)
    flag = row.get("dp_attention", "").lower() == "true"
    made = []
    for kind, (count, each) in sizes.items():
        tensor, expert = (_whole(row.get(f"{kind}_{k}", "")) or 1 for k in ("tp", "ep"))
        blank = tensor == expert == 1 < each
        attention = flag and expert > 1
        if blank:
            attention = flag and sizes["decode"][1] > NODE
        elif tensor < each:  # the degree of one rank
            attention = True
        if attention:
            made.append(Workers(count, 1, each, each))
        else:
            made.append(Workers(count, each, 1, min(expert, each)))
    return made[0], made[1]


def _described_pools(row: Row) -> tuple[Workers, Workers] | None:
    """From a sentence: "1xEP8 prefill, 2xTP8EP8 decode", or "1P(8 GPU TP8EP8)+2D(16 GPU)".

    Experts named without tensor parallelism mean attention data parallelism.
    """
    text = row.get("notes", "") + " " + row.get("engine", "")
    flag = "attention DP" in text or "DEP" in text
    found = {kind: (int(n), tensor, int(size)) for n, tensor, size, kind in DESCRIBED.findall(text)}
    if set(found) != {"prefill", "decode"}:
        short = re.search(r"(\d+)P\b.*?\+ ?(\d+)D\b", text)
        gpus = _whole(row.get("n_gpus", ""))
        if short is None or gpus % (several := int(short[1]) + int(short[2])):
            return None
        found = {kind: (int(short[k]), "TP", gpus // several) for k, kind in ((1, "prefill"), (2, "decode"))}
    made = []
    for kind in ("decode", "prefill"):
        count, tensor, each = found[kind]
        made.append(Workers(count, each, 1, each) if tensor and not flag else Workers(count, 1, each, each))
    return made[0], made[1]


def _lengths(row: Row) -> tuple[float, float] | None:
    inputs, outputs = _number(row.get("isl", "")), _number(row.get("osl", ""))
    if outputs is None:
        outputs = _number(row.get("mean_osl_from_log", ""))
    if inputs is None or outputs is None or outputs < 1:
        return None
    return inputs, outputs


def _kv(row: Row, weights: str, recipe: Recipe) -> str:
    """The cache's format: recorded, else the recipe's, else fp8 for weights quantised after training, else the model's.

    Checkpoints quantised to fp8 or nvfp4 by NVIDIA's tools carry scales for an fp8 cache.
    """
    cache = format_named(row.get("kv_precision", ""))
    if cache in KV_FORMATS:
        return cache
    if recipe.kv:
        return recipe.kv
    return "fp8" if weights in ("fp8", "nvfp4") else "native"


def _speculation(row: Row) -> str:
    said = row.get("speculation", "")
    if said and said != "none":
        return said
    notes = row.get("notes", "").lower()
    if "no mtp" in notes or "no speculative" in notes or "spec=none" in notes or said == "none":
        return ""
    if UNKNOWN_SPECULATION in row.get("flag", ""):
        return "unknown"
    return "mtp" if re.search(r"\bmtp\b", notes) else ""
