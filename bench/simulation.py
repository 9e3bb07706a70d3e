"""How fast the simulator is: ``python bench/simulation.py [AZURE_CSV]``. Process time on one core, best of three.

Without a path to the Azure conversation trace, requests of the same number and lengths are drawn.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.serving import LinearStepTime, RequestRecord
from planner.serving.engine_limits import EngineLimits
from planner.serving.fleet import simulate_fleet
from planner.serving.requests import Requests, read_requests
from planner.serving.simulator import Run, run_replica
from planner.serving.step_time import StepTime

RUNS = 3
#: [requests/s] on one core
TARGET, WORST = 50_000, 10_000
#: Llama-3.1-8B on one H100, the fit of SpecDecode-Bench, arXiv 2601.11580
H100_8B = LinearStepTime(7.093e-3, 2.101e-5, 3.926e-8, 2.101e-5, 1e-10)
PLAIN = EngineLimits(2048, 256)
MILLION = 1_000_000


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    requests: Requests
    run: Callable[[Requests], Run]
    target: int = WORST


def lognormal(rng: np.random.Generator, n: int, mean: float, p50: float, p90: float) -> list[int]:
    """Lengths of a mean, spread as the two percentiles say."""
    sigma = np.log(p90 / p50) / 1.2816
    drawn = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, n)
    return np.maximum(1, drawn.round()).astype(int).tolist()


def drawn(n: int, rate: float, lengths: Sequence[float], outputs: Sequence[float], seed: int = 1) -> Requests:
    """Poisson arrivals [1/s]; lengths by their mean, p50 and p90 [tokens]."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, n)).tolist()
    return Requests(arrivals, lognormal(rng, n, *lengths), lognormal(rng, n, *outputs), [0] * n)


def conversation(n: int = 19_366, rate: float = 5.4) -> Requests:
    """As the Azure conversation trace of 2023: number, rate and lengths."""
    return drawn(n, rate, (1155, 1020, 2734), (211, 129, 424))


def azure(path: str) -> Requests:
    """Requests of an Azure CSV."""
    from planner.workload.traces import read_trace

    trace = read_trace(path)
    n = len(trace.arrival)
    lengths, outputs = np.maximum(1, trace.input).astype(int), np.maximum(1, trace.output).astype(int)
    return Requests(trace.arrival.tolist(), lengths.tolist(), outputs.tolist(), [0] * n)


def long_prompts(n: int = 5000) -> Requests:
    """A prompt of 32k tokens every 1.2 s."""
    return Requests([1.2 * i for i in range(n)], [32_000] * n, [200] * n, [0] * n)


def crowded(n: int = 5000) -> Requests:
    """Short prompts and long answers, for a cache that holds a dozen of them."""
    rng = np.random.default_rng(1)
    lengths, outputs = rng.integers(100, 600, n).tolist(), rng.integers(200, 1000, n).tolist()
    return Requests([i / 30 for i in range(n)], lengths, outputs, [0] * n)


def conversations_with_prefixes(n: int = 12_000) -> Requests:
    """As the Mooncake conversation trace: turns of 12k tokens that repeat what went before, in blocks of 512."""
    rng = np.random.default_rng(2)
    requests = drawn(n, 3.0, (12_000, 6900, 27_600), (343, 350, 600), seed=2)
    requests.input = [min(length, 120_000) for length in requests.input]
    sessions: list[list[tuple[int, int]]] = [[] for _ in range(n // 4)]
    requests.prefix = []
    for i, length in enumerate(requests.input):
        so_far = sessions[int(rng.integers(len(sessions)))]
        so_far += [(i, k) for k in range(length // 512 - len(so_far))]
        requests.prefix.append(tuple(so_far[: length // 512]))
    return requests


def sparse_step() -> StepTime:
    """A model with windows, a top-k, and compressed entries on eight B200."""
    from planner.cost.layout import Layout
    from planner.cost.machine import machine
    from planner.cost.speculation import Drafter
    from planner.cost.step import StepModel
    from planner.hardware import load_database
    from planner.models import load_model
    from planner.serving.model_step_time import model_step_time
    from planner.sizing.candidates import weight_formats

    model, database = load_model("deepseek-v4-pro"), load_database()
    formats = weight_formats(model, "native")
    eight = machine(
        database.accelerator("b200"), database.engine("vllm"), tuple(sorted(set(formats.values()))),
        model.kv_format, 8, 8,
    )  # fmt: skip
    step = StepModel(model, formats, model.kv_format)
    return model_step_time(step, Drafter("none", 0), eight, Layout(8), sequences=256, budget=8192, longest=200_000)


def cases(path: str | None) -> list[Case]:
    """Every line of the table but the million."""
    trace = azure(path) if path else conversation()
    name = "Azure conversation trace" if path else "requests like Azure's conversations"
    sparse = sparse_step()
    mappings = [
        {"arrival_s": a, "input_tokens": i, "output_tokens": o}
        for a, i, o in zip(trace.arrival, trace.input, trace.output, strict=True)
    ]
    replica = run_replica

    def with_limits(step: StepTime, limits: EngineLimits, **more: Any) -> Callable[[Requests], Run]:
        return lambda requests: replica(requests, step, limits, **more)

    def fleet(**more: Any) -> Callable[[Requests], Run]:
        return lambda requests: simulate_fleet(requests, H100_8B, PLAIN, replicas=8, **more)

    return [
        Case(name, trace, with_limits(H100_8B, PLAIN), TARGET),
        Case("  read from mappings", trace, lambda _: replica(read_requests(mappings), H100_8B, PLAIN), TARGET),
        Case("  a cache of 200k tokens", trace, with_limits(H100_8B, EngineLimits(2048, 256, 200_000)), TARGET),
        Case("prompts of 32k, 512 tokens a step", long_prompts(),
             with_limits(H100_8B, EngineLimits(512, 256, 2_000_000))),
        Case("  of at most 512 of one prompt", long_prompts(),
             with_limits(H100_8B, EngineLimits(4096, 256, 2_000_000, max_chunk_tokens=512))),
        Case("  windows and top-k", long_prompts(), with_limits(sparse, EngineLimits(512, 256, 2_000_000))),
        Case("  both", long_prompts(),
             with_limits(sparse, EngineLimits(2048, 256, 2_000_000, max_chunk_tokens=512))),
        Case("preemptions", crowded(), with_limits(H100_8B, EngineLimits(2048, 256, 12_000))),
        Case("windows and top-k", drawn(10_000, 8, (4000, 2500, 9000), (600, 400, 1200)), with_limits(sparse, PLAIN)),
        Case("prefix hashes", conversations_with_prefixes(), with_limits(H100_8B, EngineLimits(8192, 256, 400_000))),
        Case("speculation", trace, with_limits(H100_8B, EngineLimits(2048, 256, 200_000, sequence_tokens=4),
                                               acceptance=(0.8, 0.7, 0.6))),
        Case("closed loop of 128", trace, with_limits(H100_8B, PLAIN, concurrency=128)),
        Case("fleet of 8, least loaded", conversation(rate=60.0), fleet()),
        Case("fleet of 8, closed loop of 512", conversation(), fleet(concurrency=512)),
    ]  # fmt: skip


def speed(case: Case) -> tuple[float, Run]:
    """Requests a second of process time, best of a few runs, [1/s]."""
    best, run = float("inf"), None
    for _ in range(RUNS):
        started = time.process_time()
        run = case.run(case.requests)
        best = min(best, time.process_time() - started)
    assert run is not None
    return len(case.requests) / best, run


def record_bytes(records: Sequence[RequestRecord]) -> int:
    """Memory of the list of records and of the times only they hold, [B]."""
    times = sum(sys.getsizeof(x) for r in records[:1000] for x in (r.first_token_s, r.completion_s)) / 1000
    return sys.getsizeof(records) + int(len(records) * (sys.getsizeof(records[0]) + times))


def resident() -> int:
    """Peak resident memory of this process so far, [B]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def million() -> None:
    """Run a million requests and print requests/s, and bytes of inputs, of records, and of the peak beyond inputs."""
    before = resident()
    requests = conversation(MILLION, rate=10.0)
    inputs = resident()
    started = time.process_time()
    run = run_replica(requests, H100_8B, EngineLimits(2048, 256, 400_000))
    taken = time.process_time() - started
    print(MILLION / taken, inputs - before, record_bytes(run.records), resident() - inputs)


def main() -> None:
    """Print the table."""
    if "--million" in sys.argv:
        return million()
    for case in cases(sys.argv[1] if len(sys.argv) > 1 else None):
        rate, run = speed(case)
        preempted = sum(r.preemptions for r in run.records)
        note = f"{len(case.requests)} requests, {run.utilisation:.0%} busy, {preempted} preemptions"
        print(f"{case.name:40} {rate:>10,.0f}/s   limit {case.target:>6,}/s   {note}", flush=True)
    said = subprocess.run([sys.executable, __file__, "--million"], capture_output=True, text=True, check=True).stdout
    rate, inputs, records, peak = (float(x) for x in said.split())
    print(f"{'a million requests':40} {rate:>10,.0f}/s   limit {TARGET:>6,}/s")
    note = f"inputs {inputs / 1e6:.0f} MB, records {records / 1e6:.0f} MB, peak beyond inputs {peak / 1e6:.0f} MB"
    print(f"{'  memory beyond inputs and records':40} {(peak - records) / 1e6:>10,.0f} MB  {note}")
    return None


if __name__ == "__main__":
    main()
