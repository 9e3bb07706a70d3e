"""The one object every face prints: what ``recommend`` and ``estimate`` found, and why.

Frozen pydantic models; their JSON is the public contract and carries ``schema_version``. Units are
in the key names; times are seconds, sizes bytes, rates per second. No face computes anything.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from planner.sizing.frozen_result import Result
from planner.sizing.interval_result import Interval
from planner.sizing.retention_result import Retention

SCHEMA_VERSION = "1.0"


class Percentiles(Result):
    """A latency over requests, [s]."""

    mean: float
    p50: float
    p95: float
    p99: float
    mean_interval: Interval | None = None
    p95_interval: Interval | None = None


class Latency(Result):
    """The three latencies of a request."""

    ttft_s: Percentiles
    time_per_output_token_s: Percentiles
    e2e_s: Percentiles


class Throughput(Result):
    """Of the whole fleet at the workload's peak demand, and per accelerator."""

    requests_per_second: float
    output_tokens_per_second: float
    output_tokens_per_second_per_gpu: float
    max_requests_per_second: float  # the fleet's highest rate inside the SLOs (spares excluded)
    output_tokens_per_second_interval: Interval | None = None  # where the load is not given as a rate
    max_requests_per_second_interval: Interval | None = None


class Cost(Result):
    """What the fleet costs, spares included."""

    usd_per_hour: float
    usd_per_month: float  # 730 hours
    usd_per_million_output_tokens: float  # all cost on output tokens, input included in the price
    price_per_gpu_hour: float
    price_source: str  # provider, term and date


class SpeculationFlip(Result):
    """A batch or a context at which the best speed-up crosses one."""

    at: float  # sequences in a replica, or tokens
    pays_beyond: bool  # speculation pays above this, or up to it


class Speculation(Result):
    """Whether to speculate, how, and what it gains."""

    enabled: bool
    method: str  # none, n-gram, suffix, eagle, eagle3, mtp, dspark, draft-model, sparse-kv
    draft_tokens: int
    acceptance_length: float  # tokens per verification step, the bonus token included
    speedup: float  # of time per output token at the plan's operating point
    margin: float  # speedup of the best method considered, minus one, minus the required margin
    considered: dict[str, float] = Field(default_factory=dict)  # method@k -> speedup at the plan's batch
    flip_batches: tuple[SpeculationFlip, ...] = ()  # of the best method, at the workload's contexts


class Memory(Result):
    """Bytes on one accelerator."""

    capacity: float  # what the driver shows
    usable: float  # the engine's share of it
    weights: float
    kv: float  # resident KV at the plan's mean, as the engine allocates it
    kv_capacity: float  # bytes left for KV
    kv_capacity_tokens: int
    kv_bytes_per_token_formula: float  # summed over layers and accelerators of one replica's shard
    kv_bytes_per_token_allocated: float
    state: float
    activations: float
    graphs: float
    collectives: float
    draft: float
    max_context_tokens: int  # one sequence alone
    max_batch_that_fits: int  # sequences of the mean resident context


class Sharing(Result):
    """What sharing a prefix among a group of subagents saves: two numbers, never one."""

    fan_out: int
    shared_prefix_tokens: float
    kv_tokens_without_sharing: float
    kv_tokens_stored: float
    tokens_read_per_step: float  # what the plan assumes (no cascade kernel by default)
    tokens_read_with_cascade: float
    join_tokens_mean: float  # expected longest of the group, output tokens
    join_latency_s: float
    useful_work: float  # probability that at least one avenue succeeds


class Simulated(Result):
    """One replica of a plan in discrete events, at its share of the peak."""

    sequences: int  # whose latencies count
    seed: int
    utilisation: float  # share of the time spent in steps
    preemptions_per_sequence: float
    ttft_mean_half_width_s: float | None  # 95 % interval of the mean, by batch means
    ttft_p95_band_s: tuple[float, float] | None  # with steps at both ends of step_time_factors
    step_time_error: float  # the larger of both deviations
    step_time_factors: tuple[float, float]  # interval of a step's time over the predicted one
    closed_form: Latency  # what the closed forms said of the same operating point


class DisaggregatedPool(Result):
    """Replicas that only prefill, or only decode."""

    replicas: int  # serving replicas plus spares
    spare_replicas: int
    gpus_per_replica: int
    tensor_parallel: int
    pipeline_parallel: int
    data_parallel: int
    expert_parallel: int
    max_batch: int  # prompts or sequences per replica (max-num-seqs)
    mean_batch: float
    utilisation: float  # share of the rate a replica can sustain for ever


class Transfer(Result):
    """A prompt's cache on its way from a prefill to a decode replica."""

    bytes_per_token: float  # of all ranks of the decode side, at the mean prompt
    seconds_per_token: float
    latency_s: float  # of each transfer besides
    mean_prompt_s: float  # all of it, of a mean prompt


class Disaggregation(Result):
    """Prompts and answers in pools of their own: the best such candidate, whether or not the plan is it."""

    accelerator: str
    prefill: DisaggregatedPool
    decode: DisaggregatedPool
    transfer: Transfer
    speculation: str  # method@draft tokens of the decode pool, or none
    latency: Latency
    latency_source: Literal["closed form", "simulated"]
    busy: tuple[float, float] | None = None  # share of time in steps of both pools, where simulated
    gpus: int  # of both pools, spares included
    usd_per_hour: float
    max_requests_per_second: float  # of both pools inside the limits (spares excluded)
    against_aggregated: float | None  # cost over that of the best plan whose replicas do both
    statement: str


class Plan(Result):
    """What to buy and how to run it.

    Of a disaggregated plan replicas, layout, batch and memory are the decode pool's; accelerators, cost,
    latency, throughput and power those of both pools.
    """

    accelerator: str
    gpus: int
    gpus_interval: Interval | None = None  # of the same accelerator, were steps as fast or slow as theirs says
    replicas: int  # serving replicas plus spares
    spare_replicas: int
    gpus_per_replica: int
    tensor_parallel: int
    pipeline_parallel: int
    expert_parallel: int
    data_parallel: int  # attention data parallelism inside a replica
    engine: str
    weight_dtype: str
    kv_dtype: str
    max_batch: int  # sequences per replica (max-num-seqs)
    mean_batch: float
    speculation: Speculation
    cost: Cost
    latency: Latency
    throughput: Throughput
    memory: Memory
    power_w: float
    verdict: Literal["stable", "backlogged", "overloaded"] = "stable"  # does the queue stay bounded at peak
    latency_source: Literal["closed form", "simulated"] = "closed form"
    simulated: Simulated | None = None
    sharing: Sharing | None = None
    retention: Retention | None = None
    serving: Literal["aggregated", "disaggregated"] = "aggregated"  # do replicas both prefill and decode
    disaggregation: Disaggregation | None = None


class BytesPerStep(Result):
    """Bytes one accelerator reads and writes in one decode step at the mean batch."""

    weights: float
    kv: float
    indexer: float
    state: float
    activations: float


class SecondsPerStep(Result):
    """One decode step at the mean batch, split by what it waits for; the parts add up."""

    compute: float
    memory: float
    network: float
    overhead: float


class Crossovers(Result):
    """Where the regime changes."""

    compute_bound_batch: float | None  # tokens per step at which the weight matmuls turn compute-bound
    kv_exceeds_weights_context: float | None  # context at which KV bytes exceed weight bytes


class Operator(Result):
    """One operator of the step on one accelerator, all layers together."""

    name: str
    flops: float
    bytes: float
    seconds: float
    bound_by: Literal["compute", "memory", "network", "overhead"]


class Why(Result):
    """The reasons behind a plan."""

    binding_constraint: str  # which limit set the size: an SLO, KV memory, throughput, one replica
    bound_by: Literal["compute", "memory", "network", "overhead"]
    bytes_per_step: BytesPerStep
    seconds_per_step: SecondsPerStep
    crossovers: Crossovers
    operators: tuple[Operator, ...] = ()
    statement: str = ""  # one or two sentences a person can repeat
    prefill_saved_by_cache: float = 0.0  # fraction of prefill work the cached prefix removes
    decode_saved_by_cache: float = 0.0  # always 0: caching removes prefill, not decode


class Alternative(Result):
    """A rival: the best plan of another accelerator or configuration, or why there is none."""

    accelerator: str
    feasible: bool
    reason: str = ""
    plan: Plan | None = None


class NearestMiss(Result):
    """What came closest when nothing fits: the constraint that failed, wanted and got."""

    accelerator: str
    constraint: str
    wanted: float
    got: float
    statement: str
    configuration: dict[str, Any] = Field(default_factory=dict)


class Assumption(Result):
    """A value nobody gave, and where it came from."""

    key: str
    value: str
    origin: str  # workload, default, database, flag


class Recommendation(Result):
    """What ``planner recommend`` prints."""

    schema_version: str = SCHEMA_VERSION
    workload: dict[str, Any]
    plan: Plan | None
    why: Why | None
    alternatives: tuple[Alternative, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    warnings: tuple[str, ...] = ()
    nearest_miss: NearestMiss | None = None
    what_would_change: tuple[str, ...] = ()


class Step(Result):
    """One bare decode step of a fixed configuration."""

    seconds: float
    bytes: float
    flops: float
    bound_by: Literal["compute", "memory", "network", "overhead"]
    bytes_per_step: BytesPerStep
    seconds_per_step: SecondsPerStep
    operators: tuple[Operator, ...]
    time_per_output_token_s: float
    output_tokens_per_second: float
    output_tokens_per_second_per_gpu: float
    time_per_output_token_s_interval: Interval | None = None
    output_tokens_per_second_interval: Interval | None = None


class Pool(Result):
    """Replicas of one kind in a simulation."""

    replicas: int
    utilisation: float  # share of the time spent in steps
    mean_batch: float  # sequences decoding on a replica


class ClassLatency(Result):
    """Latencies of one class of requests."""

    request_class: str
    requests: int
    latency: Latency


class Simulation(Result):
    """Replicas of a plan in discrete events, at the peak or under a trace."""

    schema_version: str = SCHEMA_VERSION
    plan: Plan
    requests: int
    seed: int
    trace: str | None
    routing: str
    duration_s: float
    requests_per_second: float  # sequences of all replicas simulated
    output_tokens_per_second: float
    pools: tuple[Pool, ...]
    preemptions: int
    cached_fraction: float  # of input tokens found in a cache
    latency: Latency
    classes: tuple[ClassLatency, ...] = ()
    ttft_mean_half_width_s: float | None  # 95 % interval by batch means
    verdict: Literal["stable", "backlogged", "overloaded"]
    max_requests_per_second: float  # of the fleet inside the limits, closed form


class DatasheetRow(Result):
    """One accelerator as its datasheet has it; dense peaks, SI units."""

    accelerator: str
    vendor: str
    released: int | None
    status: str
    memory_bytes: float
    bandwidth: float  # B/s
    peak_bf16: float | None  # FLOP/s, dense
    peak_fp8: float | None
    peak_fp4: float | None
    ridge_point_bf16: float | None  # FLOP/B
    scale_up_domain: int
    scale_up_bandwidth: float  # B/s, one direction
    tdp_w: float | None
    usd_per_hour: float | None
    price_source: str
    bandwidth_per_usd: float | None  # B/s per $/h
    efficiencies: str  # measured or derived


class Estimate(Result):
    """One fixed configuration: a bare step, or a served load."""

    schema_version: str = SCHEMA_VERSION
    configuration: dict[str, Any]
    step: Step | None = None
    latency: Latency | None = None
    throughput: Throughput | None = None
    memory: Memory | None = None
    mean_batch: float | None = None
    verdict: Literal["stable", "backlogged", "overloaded"] | None = None
    fits: bool = True
    assumptions: tuple[Assumption, ...] = ()
    warnings: tuple[str, ...] = ()
