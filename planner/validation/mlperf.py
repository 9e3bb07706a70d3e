"""MLPerf Inference: offline throughput, and the highest Poisson rate within the latency limits.

A queue that never empties has a steady state: as many sequences as the cache holds at the contexts
residents have on average, and prompts for those that leave. Server runs are that state with fewer
sequences, as many as the 99th percentiles of first token and time per token allow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from planner.documents import read_toml
from planner.errors import InputError
from planner.hardware import Database
from planner.serving.engine_limits import EngineLimits
from planner.serving.requests import Requests
from planner.serving.simulator import run_replica
from planner.serving.step_time import PiecewiseStepTime
from planner.sizing.candidates import attention_heads
from planner.sizing.configuration import EstimateRequest, Setup, set_up
from planner.validation.comparison import Comparison, Skipped
from planner.validation.labels import model_named
from planner.validation.offline import cache_tokens, request_for, step_of
from planner.validation.points import MeasuredPoint, Row, Workers, read_point

Vector = npt.NDArray[np.float64]
#: degrees a replica's tensor and pipeline parallelism are tried at when a row records none
TENSOR = (1, 2, 4, 8)
STAGES = (1, 2)
#: most sequences of a replica and accelerator, and tokens of a rank's step, that submitters tune engines to
MOST_SEQUENCES = 2048
BUDGET = 8192
#: share of memory submitters give the engine: NVIDIA's and AMD's published configurations, 0.90 to 0.97
CACHE_FRACTION = 0.95
#: requests of a simulated server run that count, and most before them that fill the replica
COUNTED = 2400
PERCENTILE = 0.99
#: 99th percentile over mean of the time per token that a search starts from
FIRST_GUESS = 1.15
TRIALS = 3
#: how close two estimates of the sequences are when the search ends, and how many fewer are tried when it must
CLOSE = 0.05
FEWER = 0.9
#: standard deviations of a Poisson number of requests up to its 99th percentile
CROWD = 2.33
#: first round whose submissions may spread a replica over pipeline stages: NVIDIA's configurations have one
#: stage and two tensor-parallel ranks on H100 in v4.1, two stages and one rank in v5.0
STAGED = "2025"


@dataclass(frozen=True)
class Lengths:
    """A data set's prompts and answers: means [tokens], spreads (standard deviation over mean) [1].

    ``most`` output tokens of an answer; ``beams`` answers decoded at once, of which one counts [1];
    ``latency`` of a whole request at the 99th percentile, [s], where the benchmark bounds that.
    """

    input: float
    input_cv: float
    output: float
    output_cv: float
    most: float
    beams: int = 1
    latency: float = math.inf

    def resident(self) -> float:
        """Mean context of a sequence being decoded, [tokens]: the longer ones are there more often.

        ``I + O/2 * (1 + cv^2)``. Source: length-biased sampling, Cox, "Renewal Theory" (1962).

        >>> round(Lengths(222, 0.8, 292, 0.0, 1024).resident())
        368
        """
        return self.input + self.output / 2 * (1 + self.output_cv**2)


@lru_cache(maxsize=4)
def data_sets(database: Database) -> Mapping[str, Mapping[str, float]]:
    """Lengths by benchmark, [tokens], [1] and [s]. Source: ``benchmarks.toml``, each value's own."""
    data = read_toml(database.root / "benchmarks.toml").data
    return {
        name: {key: float(entry["value"]) for key, entry in table.items() if isinstance(entry, dict)}
        for name, table in data.items()
        if isinstance(table, dict)
    }


def lengths_of(benchmark: str, output: float, database: Database) -> Lengths | None:
    """The data set of a benchmark, with its measured mean ``output`` [tokens]; None when it is not known.

    Source: :func:`data_sets`.
    """
    known = data_sets(database).get(benchmark.replace(".", "-"))
    if known is None:
        return None
    return Lengths(
        known["input_mean"], known["input_cv"], output, known["output_cv"], known["output_most"],
        int(known.get("beams", 1)), known.get("latency", math.inf),
    )  # fmt: skip


def sample(mean: float, cv: float, most: float, count: int, rng: np.random.Generator) -> list[int]:
    """``count`` lengths of a log-normal with ``mean`` and ``most`` [tokens] and ``cv`` [1], [tokens].

    Scaled to the mean after the cut. Source: none needed; a two-parameter shape for positive lengths.
    """
    if cv <= 0:
        return [max(1, round(mean))] * count
    spread = math.log1p(cv**2)
    drawn = np.minimum(rng.lognormal(math.log(mean) - spread / 2, math.sqrt(spread), count), most)
    scaled: list[int] = np.maximum(1, np.rint(drawn * mean / drawn.mean())).astype(int).tolist()
    return scaled


@dataclass(frozen=True, eq=False)
class Steady:
    """One replica's steady state as a function of the sequences in it."""

    setup: Setup
    step: PiecewiseStepTime
    lengths: Lengths
    most: int
    tokens: float

    def seconds(self, sequences: float) -> float:
        """Mean step with ``sequences`` [1] decoding and the prompts that replace those that leave, [s].

        Source: the step at the residents' mean context; a prompt joins for every answer that ends.
        """
        n = max(1, round(sequences))
        batch, context = n * self.lengths.beams, self.lengths.resident()
        totals = [batch * context, *(batch * min(context, limit) for limit in self.step.limits)]
        decode = self.step.decode(batch, totals, [0.0] * len(totals))[0]
        joining = sequences / self.lengths.output * self.lengths.input / self.step.ranks
        inputs = round(self.lengths.input)
        whole, rest = divmod(round(joining), inputs)
        chunks = [(inputs, 0)] * whole + ([(rest, 0)] if rest else [])
        if not chunks:
            one = self.step.prefill(batch, [(inputs, 0)] * self.step.ranks)
            return decode + one * joining / inputs
        return decode + self.step.prefill(batch, chunks * self.step.ranks)

    def rate(self, sequences: float) -> float:
        """Output tokens per second and accelerator, [tokens/s]. Source: a token of each every step."""
        return sequences / self.seconds(sequences) / float(self.setup.layout.devices)


@lru_cache(maxsize=1024)
def steady(request: EstimateRequest, lengths: Lengths, slots: int, database: Database) -> Steady:
    """The replica of a configuration with up to ``slots`` sequences [1]; InputError when it holds none.

    The cache holds residents at their mean context and half a block each; beams share their prompt.
    Source: :func:`planner.validation.offline.cache_tokens`.
    """
    setup = set_up(request, database, ())
    context, beams = lengths.resident(), lengths.beams
    each = lengths.input + beams * (context - lengths.input) + beams * setup.engine.block_tokens / 2
    room = cache_tokens(setup, BUDGET, context, CACHE_FRACTION)
    holds = int(room // each)
    if holds < 8:
        raise InputError(f"{setup.model.name} does not fit {setup.chip.name} {int(setup.layout.devices)} at a time")
    most = min(holds, slots * int(setup.layout.data) * int(setup.layout.pipeline))
    longest = lengths.input + lengths.most
    return Steady(setup, step_of(setup, most * beams, BUDGET, longest), lengths, most, room)


def percentiles(state: Steady, sequences: float, seed: int = 0) -> tuple[float, float, float]:
    """99th percentiles of first token, time per token and whole request at a Poisson rate, [s] each.

    The rate that keeps ``sequences`` [1] in the replica on average, over :data:`COUNTED` requests after
    it has filled. Source: :func:`planner.serving.simulator.run_replica`.
    """
    lengths, rng = state.lengths, np.random.default_rng(seed)
    rate = sequences / state.seconds(sequences) / lengths.output
    filling = round(1.5 * sequences)
    count = filling + COUNTED
    arrivals = np.cumsum(rng.exponential(1 / rate, count))
    inputs = sample(lengths.input, lengths.input_cv, 4 * lengths.input, count, rng)
    outputs = sample(lengths.output, lengths.output_cv, lengths.most, count, rng)
    limits = EngineLimits(
        max(BUDGET * state.step.ranks, state.most + 1), state.most, int(state.tokens), state.setup.engine.block_tokens,
        max_chunk_tokens=BUDGET,
    )  # fmt: skip
    run = run_replica(Requests(arrivals.tolist(), inputs, outputs, [0] * count), state.step, limits)
    kept = run.records[filling:]
    first = np.array([r.first_token_s - r.arrival_s for r in kept])
    whole = np.array([r.completion_s - r.arrival_s for r in kept])
    several = [r for r in kept if r.output_tokens > 1]
    each = np.array([(r.completion_s - r.first_token_s) / (r.output_tokens - 1) for r in several])
    quantiles = (np.quantile(x, PERCENTILE, method="inverted_cdf") for x in (first, each, whole))
    one, two, three = (float(q) for q in quantiles)
    return one + float(np.asarray(state.setup.engine.request_overhead_s)), two, three


def _within(state: Steady, limit: float) -> float:
    """Most sequences whose mean step stays within ``limit`` [s], with room for a Poisson crowd's 99th percentile."""
    most = float(state.most)
    low, high = 0.5, max(1.0, most - CROWD * math.sqrt(most))
    if state.seconds(high) <= limit:
        return high
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if state.seconds(middle) <= limit else (low, middle)
    return low


@lru_cache(maxsize=1024)
def served_rate(state: Steady, first_limit: float, token_limit: float) -> float:
    """Output tokens per second and accelerator at the highest rate within the limits, [tokens/s].

    ``first_limit`` and ``token_limit`` [s] at the 99th percentile. From the steady state with a guessed
    tail of the time per token, which simulated runs correct; those that miss the first token are tried
    again with fewer sequences. Beams are not simulated: their benchmark bounds whole requests.
    Source: :func:`percentiles`.
    """
    lengths = state.lengths
    if lengths.beams > 1:
        return state.rate(_within(state, lengths.latency / lengths.output))
    sequences = _within(state, token_limit / FIRST_GUESS)
    for _ in range(TRIALS):
        first, token, _whole = percentiles(state, sequences)
        if first > first_limit:
            sequences *= FEWER
            continue
        following = _within(state, token_limit * state.seconds(sequences) / token)
        if abs(following / sequences - 1) < CLOSE:
            return state.rate(following)
        sequences = following
    return state.rate(sequences)


def layouts(point: MeasuredPoint, heads: int, moe: bool) -> list[tuple[Workers, int]]:
    """Workers and pipeline stages the point may have run with: as recorded, else all that divide its system.

    Source: none needed; an enumeration.
    """
    gpus = int(float(point.labels.get("n_gpus") or 1))
    tensor = int(float(point.labels.get("tp") or 0))
    if tensor:
        expert = int(float(point.labels.get("ep") or 1))
        stages = int(float(point.labels.get("pp") or 1))
        found = [(Workers(1, tensor, 1, expert), stages)]
        if expert > 1:
            found.append((Workers(1, 1, tensor, expert), stages))
        return found
    stages_tried = STAGES if point.date >= STAGED else (1,)
    found = [
        (Workers(1, t), p)
        for t in TENSOR
        for p in stages_tried
        if gpus % (t * p) == 0 and t * p <= 8 and heads % t == 0
    ]
    if moe and gpus % 8 == 0:
        found.append((Workers(1, 1, 8, 8), 1))
    return found


def best_state(point: MeasuredPoint, lengths: Lengths, database: Database) -> tuple[Steady, MeasuredPoint]:
    """The layout with the highest offline rate, which is what submitters run, and the point in it.

    InputError when none fits. Source: :meth:`Steady.rate`.
    """
    recorded = re.match(r"max batch (\d+)", point.labels.get("concurrency_or_batch", ""))
    slots = int(recorded[1]) if recorded else MOST_SEQUENCES
    model = model_named(point.model)[0]
    best: tuple[float, Steady, MeasuredPoint] | None = None
    problem = InputError(f"{point.model} fits none of the layouts of {point.labels.get('n_gpus')} accelerators")
    for workers, stages in layouts(point, attention_heads(model), model.is_moe):
        tried = replace(point, workers=workers, pipeline=stages)
        try:
            state = steady(request_for(tried, workers), lengths, slots, database)
        except InputError as error:
            problem = error
            continue
        rate = state.rate(state.most)
        if best is None or rate > best[0]:
            best = (rate, state, tried)
    if best is None:
        raise problem
    return best[1], best[2]


def mlperf(rows: Sequence[Row], file: str, database: Database) -> tuple[list[Comparison], list[Skipped]]:
    """Every MLPerf row predicted and compared, in output tokens per second and accelerator, or why not.

    ``rows``: the columns of the rounds' tables, limits as ``slo_ttft_ms_log`` and ``slo_tpot_ms_log`` [ms].
    Source: :meth:`Steady.rate`, :func:`served_rate`.
    """
    compared: list[Comparison] = []
    skipped: list[Skipped] = []
    for row in rows:
        try:
            found = _compare(row, file, database)
        except InputError as error:
            found = Skipped(row.get("id") or "?", file, str(error.problem))
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            compared.append(found)
    return compared, skipped


def _compare(row: Row, file: str, database: Database) -> Comparison | Skipped:
    name = row.get("id") or "?"
    benchmark = re.sub(r"-99(\.9)?$", "", row.get("model", ""))
    output = _number(row.get("mean_osl_from_log", ""))
    if output is None:
        return Skipped(name, file, "mean output length not in the log")
    lengths = lengths_of(benchmark, _rounded(output), database)
    if lengths is None:
        return Skipped(name, file, f"mean prompt length of {benchmark} has no source")
    if "doubtful" in row.get("weight_precision", "") or row.get("weight_precision", "") in ("", "UNSET"):
        return Skipped(name, file, "weight format not recorded")
    row = {**row, **_chips(row)}
    point = read_point({**row, "isl": f"{lengths.input:g}", "osl": f"{output:g}", "model": benchmark}, file, database)
    if isinstance(point, Skipped):
        return point
    measured = point.value("throughput")
    if measured is None or point.protocol not in ("offline", "server"):
        return Skipped(name, file, "holds no throughput")
    state, point = best_state(point, lengths, database)
    if point.protocol == "offline":
        predicted, load = state.rate(state.most), "queued"
    else:
        first, token = _number(row.get("slo_ttft_ms_log", "")), _number(row.get("slo_tpot_ms_log", ""))
        if (first is None or token is None) and not math.isfinite(lengths.latency):
            return Skipped(name, file, "latency limits not in the log")
        predicted = served_rate(state, (first or math.inf) * 1e-3, (token or math.inf) * 1e-3)
        load = "poisson, " + (f"p99 within {first:g}/{token:g} ms" if first and token else f"{lengths.latency:g} s")
    reasons = [] if row.get("tp") else ["parallelism not recorded: the layout with the highest predicted rate"]
    if point.engine == "generic":
        reasons.append("engine without constants")
    return Comparison(
        name, file, "throughput", measured, predicted, "tokens/s", accelerator=point.accelerator,
        model=point.model, engine=f"{point.engine} {point.version}".strip(),
        precision=row.get("weight_precision", "").split(" (")[0], load=load,
        kind=row.get("scenario", ""), extrapolates="; ".join(reasons),
    )  # fmt: skip


def _chips(row: Row) -> Mapping[str, str]:
    """Cards with two accelerators ("Dual") are counted as cards: their accelerators and an accelerator's rate."""
    gpus = _number(row.get("n_gpus", ""))
    rate = _number(row.get("output_tok_s_per_gpu", ""))
    if not re.search(r"\bDual\b", row.get("gpu", "")) or gpus is None or rate is None:
        return {}
    return {"n_gpus": f"{2 * gpus:g}", "output_tok_s_per_gpu": repr(rate / 2)}


def _number(text: str) -> float | None:
    match = re.match(r"\s*(\d+(?:\.\d+)?)", text)
    return float(match[1]) if match else None


def _rounded(output: float) -> float:
    """Mean outputs of submissions differ in the third digit: one state serves them all."""
    grain = 10 ** max(0, math.floor(math.log10(output)) - 1)
    return max(1.0, round(output / grain) * grain)
