"""Results of benchmark tools as rows of a table of measurements: one row for each closed loop that was run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from planner.documents import read_text
from planner.errors import InputError
from planner.validation.comparison import Skipped

Json = Any
Row = dict[str, str]
KNOWN = "results of vllm bench serve, AIPerf, GuideLLM or inference-perf in JSON, or a .csv table"
#: columns of a configuration, and the keys by which a file's own metadata may say them
SAID = {
    "gpu": ("gpu", "accelerator", "hardware", "gpu_name", "gpu_type"),
    "n_gpus": ("n_gpus", "num_gpus", "gpus", "gpu_count"),
    "model": ("model",),
    "engine": ("engine", "framework"),
    "tp": ("tp", "tensor_parallel", "tensor_parallel_size", "tensor-parallel-size", "tp_size"),
    "pp": ("pp", "pipeline_parallel", "pipeline_parallel_size", "pipeline-parallel-size"),
    "ep": ("ep", "expert_parallel", "expert_parallel_size"),
    "dp": ("dp", "data_parallel", "data_parallel_size", "data-parallel-size"),
    "weight_precision": ("weight_precision", "weights", "quantization", "precision"),
    "kv_precision": ("kv_precision", "kv", "kv_cache_dtype"),
}
#: how far below its limit the mean number in flight of a run with a request rate may be
BUSY = 0.9
OPEN = "ran at a request rate without a limit of concurrency, which is no closed loop"
AT_ONCE = "sent everything at once without a limit of concurrency, which is no closed loop"
IDLE = "ran at a request rate below its limit of concurrency, which is no closed loop"


def rows_from_results(path: Path, given: Mapping[str, str]) -> tuple[list[Row], list[Skipped]]:
    """Rows of a file of results, and the runs in it that are none, with the reason.

    ``given``: columns the file doesn't say or says otherwise, as ``gpu``, ``tp``. Lengths are means in tokens, times in
    ms, rates in tokens/s. InputError for a file that is none of :data:`KNOWN`.
    """
    text, name = read_text(path)
    rows: list[Row] = []
    skipped: list[Skipped] = []
    documents = _documents(text, name)
    for number, data in enumerate(documents, 1):
        client, runs = _runs(data)
        if not client:
            line = number if len(documents) > 1 else None
            raise InputError("holds no results we know", file=name, line=line, expected=KNOWN)
        for i, run in enumerate(runs, 1):
            place = i if len(runs) > 1 else number if len(documents) > 1 else 0
            label = Path(name).name + (f" #{place}" if place else "")
            try:
                row = run()
                _configure(row, data, given)
            except InputError as error:
                skipped.append(Skipped(label, name, error.problem))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError):
                skipped.append(Skipped(label, name, "is malformed, or holds no finished request"))
            else:
                rows.append({"id": label, "scenario": "fixed-concurrency", "client": client, **row})
    return rows, skipped


def _documents(text: str, name: str) -> list[Json]:
    """One JSON object, or those of JSON lines."""
    try:
        return [json.loads(text)]
    except (json.JSONDecodeError, RecursionError) as error:
        whole = error
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except (json.JSONDecodeError, RecursionError):
                at = number if found else getattr(whole, "lineno", number)
                raise InputError("is not valid JSON", file=name, line=at, expected=KNOWN) from None
    if not found:
        raise InputError("is empty", file=name, expected=KNOWN)
    return found


def _runs(data: Json) -> tuple[str, list[Callable[[], Row]]]:
    """The tool that wrote a document, nothing where we know none, and a reader for each run of it."""
    if not isinstance(data, dict):
        return "", []
    if "total_input_tokens" in data and "completed" in data:
        return "vllm bench serve", [lambda: _vllm(data)]
    if isinstance(data.get("benchmarks"), list):
        return "GuideLLM", [lambda one=one: _guidellm(one, data) for one in data["benchmarks"]]  # type: ignore[misc]
    if "input_sequence_length" in data and "output_sequence_length" in data:
        return "AIPerf", [lambda: _aiperf(data)]
    if "successes" in data:
        return "inference-perf", [lambda: _inference_perf(data)]
    return "", []


def _vllm(data: Json) -> Row:
    """``vllm bench serve``: its tpot leaves the first token out, as ours. Source: vLLM's serve.py."""
    done = _whole(data.get("completed"))
    if not done:
        raise InputError("finished no request")
    rate = _positive(data.get("request_rate"))
    limit = _whole(data.get("max_concurrency"))
    if not limit:
        raise InputError(OPEN if rate else AT_ONCE)
    served, each = _positive(data.get("request_throughput")), _positive(data.get("mean_e2el_ms"))
    _closed(limit, rate, served and each and served * each / 1e3)
    row = {
        "model": _text(data.get("model_id")),
        "engine": _engine(_text(data.get("backend"))),
        "isl": _figure(data["total_input_tokens"] / done),
        "osl": _figure(data["total_output_tokens"] / done),
        "concurrency_or_batch": str(limit),
        "completed": str(done),
        "output_tok_s_total": _figure(data.get("output_throughput")),
    }
    for metric, key in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "e2el")):
        row[f"{metric}_ms"] = _figure(data.get(f"mean_{key}_ms"))
        row[f"{metric}_p50_ms"] = _figure(data.get(f"median_{key}_ms") or data.get(f"p50_{key}_ms"))
        row[f"{metric}_p99_ms"] = _figure(data.get(f"p99_{key}_ms"))
    if _positive(data.get("spec_decode_acceptance_length")):
        row["speculation"] = "drafts"
    date = _text(data.get("date"))
    if date[:8].isdigit() and len(date) >= 8:
        row["source_date"] = f"{date[:4]}-{date[4:6]}-{date[6:8]}"
    return row


def _guidellm(one: Json, data: Json) -> Row:
    """One benchmark of GuideLLM. Its time per output token holds the first; its inter-token latency is our tpot.

    Source: GuideLLM 0.8.
    """
    strategy = one["config"]["strategy"] if "config" in one else one["args"]["strategy"]
    kind = strategy.get("type_")
    limit = 1 if kind == "synchronous" else _whole(strategy.get("streams")) if kind == "concurrent" else None
    if limit is None:
        raise InputError(AT_ONCE if kind == "throughput" else OPEN)
    metrics = one["metrics"]
    means = {k: metrics[f"{k}_token_count"]["successful"]["mean"] for k in ("prompt", "output")}
    row = {
        "model": _text(_find(data, "model") or _find(one.get("config"), "model")),
        "isl": _figure(means["prompt"]),
        "osl": _figure(means["output"]),
        "concurrency_or_batch": str(limit),
        "completed": str(_whole(metrics["request_totals"]["successful"])),
        "output_tok_s_total": _figure(metrics["output_tokens_per_second"]["successful"]["mean"]),
    }
    for metric, key, scale in (
        ("ttft", "time_to_first_token_ms", 1.0), ("tpot", "inter_token_latency_ms", 1.0),
        ("e2e", "request_latency", 1e3),
    ):  # fmt: skip
        found = (metrics.get(key) or {}).get("successful") or {}
        row[f"{metric}_ms"] = _figure(found.get("mean"), scale)
        row[f"{metric}_p50_ms"] = _figure(found.get("median"), scale)
        row[f"{metric}_p99_ms"] = _figure((found.get("percentiles") or {}).get("p99"), scale)
    started = _positive(one.get("start_time"))
    if started:
        row["source_date"] = datetime.fromtimestamp(started, UTC).date().isoformat()
    return row


def _aiperf(data: Json) -> Row:
    """AIPerf's or genai-perf's summary. Source: AIPerf 0.13."""
    asked = data.get("input_config") or {}
    phases = asked.get("phases") if isinstance(asked.get("phases"), list) else None
    phase = phases[-1] if phases else (asked.get("loadgen") or asked)
    limit, rate = _whole(phase.get("concurrency")), _positive(phase.get("rate") or phase.get("request_rate"))
    if not limit:
        raise InputError(OPEN if rate else "doesn't say its concurrency")
    _closed(limit, rate, _positive((data.get("effective_concurrency") or {}).get("avg")))
    models = (asked.get("models") or {}).get("items") if isinstance(asked.get("models"), dict) else None
    model = models[0].get("name") if models else next(iter(asked.get("model_names") or [asked.get("model")]), "")
    done = (data.get("request_count") or {}).get("avg") or data["input_sequence_length"].get("count")
    row = {
        "model": _text(model),
        "isl": _figure(data["input_sequence_length"]["avg"]),
        "osl": _figure(data["output_sequence_length"]["avg"]),
        "concurrency_or_batch": str(limit),
        "completed": str(_whole(done) or ""),
        "output_tok_s_total": _figure((data.get("output_token_throughput") or {}).get("avg")),
        "source_date": _text(data.get("start_time"))[:10],
    }
    for metric, key in (("ttft", "time_to_first_token"), ("tpot", "inter_token_latency"), ("e2e", "request_latency")):
        found = data.get(key) or {}
        scale = {"ms": 1.0, "sec": 1e3, "s": 1e3, "us": 1e-3, "ns": 1e-6}[found.get("unit", "ms")]
        for ending, statistic in (("", "avg"), ("_p50", "p50"), ("_p99", "p99")):
            row[f"{metric}{ending}_ms"] = _figure(found.get(statistic), scale)
    return row


def _inference_perf(data: Json) -> Row:
    """A stage of inference-perf, whose times are seconds. Source: inference-perf's report."""
    done, load = data["successes"], data.get("load_summary") or {}
    limit = _whole(load.get("concurrency"))
    if not limit:
        raise InputError(OPEN)
    lengths = []
    for names in (("prompt_len", "prompt_tokens"), ("output_len", "output_tokens")):
        lengths.append(next(done[n]["mean"] for n in names if isinstance(done.get(n), dict) and "mean" in done[n]))
    row = {
        "isl": _figure(lengths[0]),
        "osl": _figure(lengths[1]),
        "concurrency_or_batch": str(limit),
        "completed": str(_whole(done.get("count")) or ""),
        "output_tok_s_total": _figure((done.get("throughput") or {}).get("output_tokens_per_sec")),
    }
    latency = done.get("latency") or {}
    for metric, keys in (
        ("ttft", ("time_to_first_token",)), ("tpot", ("time_per_output_token", "inter_token_latency")),
        ("e2e", ("request_latency",)),
    ):  # fmt: skip
        found: dict[str, Json] = next((latency[k] for k in keys if latency.get(k)), {})
        row[f"{metric}_ms"] = _figure(found.get("mean"), 1e3)
        row[f"{metric}_p50_ms"] = _figure(found.get("median") or found.get("p50"), 1e3)
        row[f"{metric}_p99_ms"] = _figure(found.get("p99"), 1e3)
    return row


def _closed(limit: int, rate: float | None, in_flight: float | None) -> None:
    """InputError when a run with a request rate wasn't held back by its limit of concurrency."""
    if rate and (not in_flight or in_flight < BUSY * limit):
        raise InputError(IDLE)


def _configure(row: Row, data: Json, given: Mapping[str, str]) -> None:
    """Fill in what ran: what the command says, else the file's metadata; InputError for what neither says."""
    places: Sequence[Json] = (data, data.get("metadata"), data.get("labels"))
    for column, keys in SAID.items():
        said = next((_text(p[k]) for p in places if isinstance(p, dict) for k in keys if _text(p.get(k))), "")
        row[column] = given.get(column) or (
            row.get(column) or said if column == "model" else said or row.get(column, "")
        )
    for column in ("gpu", "model"):
        if not row[column]:
            raise InputError(f"doesn't say its {'accelerator' if column == 'gpu' else column}: --{column} does")
    if not row["n_gpus"]:
        row["n_gpus"] = str(math.prod(max(1, _whole(row[k]) or 1) for k in ("tp", "pp", "dp")))
    for column in [c for c, value in row.items() if not value]:
        del row[column]


def _find(data: Json, key: str, depth: int = 5) -> Json:
    """The first text under ``key`` in nested tables."""
    if not isinstance(data, dict) or not depth:
        return None
    if isinstance(data.get(key), str):
        return data[key]
    nested = (_find(v, key, depth - 1) for k, v in data.items() if k != "benchmarks")
    return next((found for found in nested if found), None)


def _engine(backend: str) -> str:
    """The engine a backend's name says; one that speaks to any server says none."""
    return next((e for e in ("vllm", "sglang", "tensorrt-llm") if backend.startswith(e)), "")


def _text(value: Json) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).strip()


def _positive(value: Json) -> float | None:
    """A finite number above zero, as a number or as text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and found > 0 else None


def _whole(value: Json) -> int | None:
    found = _positive(value)
    return int(found) if found is not None and found == int(found) else None


def _figure(value: Json, scale: float = 1.0) -> str:
    found = _positive(value)
    return "" if found is None else f"{found * scale:.10g}"
