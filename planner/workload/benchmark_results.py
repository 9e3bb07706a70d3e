"""Results of benchmark tools as traces: per request where they are kept, else rebuilt from percentiles."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from planner.errors import InputError
from planner.workload.percentiles import lengths_from_statistics
from planner.workload.traces import KNOWN, Rows, Source

Json = Any
MOST = 100_000  # lengths rebuilt from percentiles
UNPAIRED = "only percentiles are in the file: input and output are taken as independent"
MEANS = "only mean lengths are in the file: all requests are taken as equally long"


def read_document(source: Source) -> Rows:
    """Rows of a JSON result; which tool wrote it is told by its keys. InputError otherwise."""
    text = source.text()
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        data = _last_line(text)
        if data is None:
            line = getattr(error, "lineno", None)
            raise InputError("is not valid JSON", file=source.name, line=line) from None
    first = data[0] if isinstance(data, list) and data else data
    for kind, keys, expected, read in DOCUMENTS:
        if isinstance(first, dict) and all(k in first for k in keys):
            try:
                rows = read(data)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError):
                problem = "is malformed, or holds no finished request"
                raise InputError(problem, file=source.name, expected=expected) from None
            rows.stated["format"] = kind
            return rows
    raise InputError("is no trace known", file=source.name, line=1, expected=KNOWN)


def _last_line(text: str) -> Json:
    """The last object of a file of JSON lines, as vLLM appends its results; None when it is none."""
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        found = [json.loads(line) for line in lines]
    except (json.JSONDecodeError, RecursionError):
        return None
    return found[-1] if len(found) > 1 and all(isinstance(f, dict) for f in found) else None


def _vllm_detailed(data: Json) -> Rows:
    inputs, outputs = np.array(data["input_lens"], dtype=float), np.array(data["output_lens"], dtype=float)
    if inputs.shape != outputs.shape or inputs.ndim != 1:
        raise ValueError
    starts = data.get("start_times")
    errors = data.get("errors") or []
    arrival = np.array(starts, dtype=float) if starts and len(starts) == len(inputs) else None
    if len(errors) == len(inputs):
        outputs = np.where([bool(e) for e in errors], 0.0, outputs)
    rows = Rows(arrival, inputs, outputs)
    rows.stated["concurrency"] = _whole(data.get("max_concurrency"))
    if arrival is None:
        rows.stated["rate"] = _whole(data.get("request_throughput"))
    return rows


def _vllm_aggregate(data: Json) -> Rows:
    done = int(data["completed"])
    mean_in, mean_out = data["total_input_tokens"] / done, data["total_output_tokens"] / done
    rows = Rows(None, np.full(min(done, MOST), mean_in), np.full(min(done, MOST), mean_out))
    rows.dropped = int(data.get("failed") or 0)
    rows.stated.update(
        rate=_whole(data.get("request_throughput")), concurrency=_whole(data.get("max_concurrency")), notes=(MEANS,)
    )
    return rows


def _guidellm(data: Json) -> Rows:
    starts, inputs, outputs, dropped = [], [], [], 0
    for benchmark in data["benchmarks"]:
        requests = benchmark["requests"]
        for request in requests["successful"]:
            starts.append(_guidellm_start(request))
            inputs.append(_tokens(request, "prompt_tokens", "input_metrics"))
            outputs.append(_tokens(request, "output_tokens", "output_metrics"))
        dropped += len(requests.get("errored") or ()) + len(requests.get("incomplete") or ())
    rows = Rows(np.array(starts, dtype=float), np.array(inputs, dtype=float), np.array(outputs, dtype=float))
    rows.dropped = dropped
    if len(data["benchmarks"]) == 1:
        strategy = (data["benchmarks"][0].get("config") or {}).get("strategy") or {}
        rows.stated["concurrency"] = _whole(strategy.get("streams"))
    else:
        rows.stated["notes"] = ("several benchmarks in one file: their requests follow one another",)
    return rows


def _guidellm_start(request: Json) -> float:
    timings = (request.get("info") or {}).get("timings") or {}
    return float(request.get("request_start_time") or timings["request_start"])


def _tokens(request: Json, name: str, metrics: str) -> float:
    found = request.get(name)
    if found is None:
        found = (request.get(metrics) or {}).get("total_tokens")
    return float(found or 0)


def _aiperf_summary(data: Json) -> Rows:
    keys = {"min": 0.0, "max": 1.0, **{f"p{p}": p / 100 for p in (1, 5, 10, 25, 50, 75, 90, 95, 99)}}
    lengths = (data["input_sequence_length"], data["output_sequence_length"])
    count = int((data.get("request_count") or {}).get("avg") or lengths[0]["count"])
    rows = _rebuilt([({q: s[k] for k, q in keys.items() if k in s}, float(s["avg"])) for s in lengths], count)
    rows.dropped = int((data.get("error_request_count") or {}).get("avg") or 0)
    rows.stated["rate"] = _whole((data.get("request_throughput") or {}).get("avg"))
    phases = (data.get("input_config") or {}).get("phases") or [{}]
    rows.stated["concurrency"] = _whole(phases[-1].get("concurrency"))
    return rows


def _inference_perf_summary(data: Json) -> Rows:
    done = data["successes"]
    lengths = [_first(done, "prompt_len", "prompt_tokens"), _first(done, "output_len", "output_tokens")]
    rows = _rebuilt([(_quantiles(s), float(s["mean"])) for s in lengths], int(done["count"]))
    rows.dropped = int((data.get("failures") or {}).get("count") or 0)
    rows.stated["rate"] = _whole((done.get("throughput") or {}).get("requests_per_sec"))
    rows.stated["concurrency"] = _whole((data.get("load_summary") or {}).get("concurrency"))
    cached = (done.get("prompt_tokens") or {}).get("cached")
    total = (done.get("prompt_tokens") or {}).get("total")
    if isinstance(cached, int | float) and isinstance(total, int | float) and total > 0:
        rows.cached = rows.input * min(1.0, cached / total)
    return rows


def _first(table: Json, *names: str) -> Json:
    """The first of ``names`` that holds statistics."""
    found = next((table[n] for n in names if isinstance(table.get(n), dict) and "mean" in table[n]), None)
    if found is None:
        raise KeyError(names[0])
    return found


def _quantiles(table: Mapping[str, Json]) -> dict[float, float]:
    found = {"min": 0.0, "max": 1.0, "median": 0.5}
    found.update({k: float(k[1:]) / 100 for k in table if k.startswith("p") and k[1:].replace(".", "").isdigit()})
    return {q: float(table[k]) for k, q in found.items() if isinstance(table.get(k), int | float)}


def _inference_perf_requests(data: Json) -> Rows:
    starts, inputs, outputs, dropped = [], [], [], 0
    for request in data:
        if request.get("error") or not request.get("info"):
            dropped += 1
            continue
        info = request["info"]
        starts.append(float(request["start_time"]))
        if "request_metrics" in info:
            response = info.get("response_metrics") or {}
            inputs.append(float(info["request_metrics"]["text"]["input_tokens"]))
            usage = (response.get("server_usage") or {}).get("completion_tokens")
            outputs.append(float(usage if usage is not None else response.get("output_tokens") or 0))
        else:
            inputs.append(float(info["input_tokens"]))
            outputs.append(float(info.get("output_tokens") or 0))
    rows = Rows(np.array(starts), np.array(inputs), np.array(outputs))
    rows.dropped = dropped
    return rows


def _rebuilt(lengths: Sequence[tuple[Mapping[float, float], float]], count: int) -> Rows:
    """Rows of lengths rebuilt apart, the outputs in an order that has nothing to do with the inputs."""
    from planner.workload.lengths import shuffled

    n = min(max(count, 1000), MOST)
    inputs, outputs = (lengths_from_statistics(known, mean, n) for known, mean in lengths)
    rows = Rows(None, inputs[shuffled(n, 0)], outputs[shuffled(n, 1)])
    rows.stated.update(paired=False, requests=count, notes=(UNPAIRED,))
    return rows


def _whole(value: Json) -> float | None:
    found = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return found if found is not None and np.isfinite(found) and found > 0 else None


# -- results in CSV ------------------------------------------------------------------------------


def read_guidellm_csv(source: Source) -> Rows:
    """GuideLLM's CSV: three header rows, one row per benchmark; statistics of successful requests.

    Source: GuideLLM 0.8.
    """
    table = _csv(source)
    if len(table) < 4:
        raise InputError("has no benchmark", file=source.name, expected="three header rows and one row per benchmark")
    columns = [" ".join(c.strip() for c in column).strip() for column in zip(*table[:3], strict=False)]
    row = dict(zip(columns, table[-1], strict=False))
    try:
        lengths = []
        for side in ("Input", "Output"):
            start = f"Token Metrics Successful {side} Tokens "
            found = {k.removeprefix(start).lower(): v for k, v in row.items() if k.startswith(start)}
            known = {0.5: float(found["median"])} if found.get("median") else {}
            for name, value in found.items():
                if name.startswith("percentiles"):
                    known.update(_guidellm_percentiles(value))
            lengths.append((known, float(found["mean"])))
        rows = _rebuilt(lengths, int(float(row["Request Counts Successful"])))
        rows.dropped = int(float(row["Request Counts Errored"] or 0) + float(row["Request Counts Incomplete"] or 0))
        rows.stated["rate"] = _whole(float(row["Server Throughput Successful Requests/Sec Mean"] or 0))
        profile, _, streams = row.get("Benchmark Strategy", "").partition("@")
        rows.stated["concurrency"] = _whole(float(streams)) if profile == "concurrent" else None
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"is malformed ({error})", file=source.name, expected="GuideLLM's CSV") from None
    if len(table) > 4:
        rows.stated["notes"] = (*rows.stated["notes"], f"the last of {len(table) - 3} benchmarks is read")
    return rows


GUIDELLM_PERCENTILES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


def _guidellm_percentiles(text: str) -> dict[float, float]:
    values = json.loads(text) if text.strip() else []
    if isinstance(values, dict):
        return {float("0." + k.removeprefix("p")): float(v) for k, v in values.items() if v is not None}
    if len(values) != len(GUIDELLM_PERCENTILES):
        return {}
    return dict(zip(GUIDELLM_PERCENTILES, (float(v) for v in values), strict=True))


def read_aiperf_csv(source: Source) -> Rows:
    """AIPerf's CSV: one row of statistics per metric, then a table of single values.

    Source: AIPerf 0.13.
    """
    table = _csv(source)
    header = table[0]
    named = {row[0].split(" (")[0]: row for row in table[1:] if row}
    data: dict[str, Any] = {}
    try:
        for metric, name in (("input_sequence_length", "Input Sequence Length"),
                             ("output_sequence_length", "Output Sequence Length")):  # fmt: skip
            data[metric] = {k: float(v) for k, v in zip(header[1:], named[name][1:], strict=False) if v != ""}
        data["request_count"] = {"avg": float(named["Request Count"][1])}
        for metric, name in (("request_throughput", "Request Throughput"),
                             ("error_request_count", "Error Request Count")):  # fmt: skip
            if name in named:
                data[metric] = {"avg": float(named[name][1])}
        return _aiperf_summary(data)
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"is malformed (no {error})", file=source.name, expected="AIPerf's CSV") from None


def _csv(source: Source) -> list[list[str]]:
    try:
        return [r for r in csv.reader(source.text().splitlines()) if any(c.strip() for c in r)]
    except csv.Error as error:
        raise InputError(f"is not a CSV file ({error})", file=source.name) from None


DOCUMENTS = (
    ("vllm-bench", ("input_lens", "output_lens"), "results of vllm bench serve --save-detailed", _vllm_detailed),
    ("vllm-bench", ("total_input_tokens", "total_output_tokens", "completed"), "results of vllm bench serve",
     _vllm_aggregate),
    ("guidellm", ("benchmarks",), "GuideLLM benchmarks with requests", _guidellm),
    ("aiperf", ("input_sequence_length", "output_sequence_length"), "AIPerf's summary", _aiperf_summary),
    ("inference-perf", ("successes",), "inference-perf's summary", _inference_perf_summary),
    ("inference-perf", ("start_time", "info"), "inference-perf's requests", _inference_perf_requests),
)  # fmt: skip
TABLE_READERS = (
    ("guidellm", ("Run Info", "Token Metrics"), read_guidellm_csv),
    ("aiperf", ("Metric", "avg", "p50"), read_aiperf_csv),
)
