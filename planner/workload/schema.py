"""The workload file: every field with its type, default, unit and one line of meaning.

The same classes validate input, supply defaults and are the reference page.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from planner.units import UnitError, parse_duration, parse_tokens

TASKS = (
    "chat", "code", "code-edit", "math", "rag", "summarise", "qa", "translation", "creative",
)  # fmt: skip
METRICS = ("ttft", "tpot", "itl", "e2e")
STATISTICS = ("mean", "p50", "p95", "p99")


def _duration(value: Any) -> float:
    return _positive(parse_duration, value)


def _pause(value: Any) -> float:
    return parse_duration(value)


def _tokens(value: Any) -> float:
    return parse_tokens(value)


def _positive(parse: Any, value: Any) -> float:
    seconds: float = parse(value)
    if seconds <= 0:
        raise UnitError(f"is {value!r}", "more than zero")
    return seconds


Duration = Annotated[float, BeforeValidator(_duration)]
Pause = Annotated[float, BeforeValidator(_pause), Field(ge=0)]
Tokens = Annotated[float, BeforeValidator(_tokens), Field(gt=0)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1)]


class Table(BaseModel):
    """A closed table: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Histogram(Table):
    """Binned lengths."""

    edges: list[Tokens] = Field(description="Bin edges in tokens, increasing, one more than weights")
    weights: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        description="Weight of each bin; need not sum to one"
    )


class LengthTable(Table):
    """A distribution of token counts: two percentiles, or mean and cv, a histogram, or samples."""

    distribution: Literal["lognormal", "gamma", "constant", "empirical"] | None = Field(
        None, description="Shape; lognormal unless values are given"
    )
    p50: Tokens | None = Field(None, description="Median, tokens")
    p90: Tokens | None = Field(None, description="90th percentile, tokens")
    p95: Tokens | None = Field(None, description="95th percentile, tokens")
    p99: Tokens | None = Field(None, description="99th percentile, tokens")
    mean: Tokens | None = Field(None, description="Mean, tokens")
    cv: Annotated[float, Field(gt=0, le=20, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Standard deviation over mean"
    )
    values: list[Tokens] | None = Field(None, description="Observed lengths, tokens")
    samples: str | None = Field(None, description="CSV file of observed lengths, beside this file")
    column: str | None = Field(None, description="Column of the CSV file")
    histogram: Histogram | None = Field(None, description="Binned lengths")
    min: Tokens | None = Field(None, description="Shortest length, tokens")
    max: Tokens | None = Field(None, description="Longest length, tokens")


class ContextTable(LengthTable):
    """Input tokens of a request, cached ones included."""

    cached_fraction: Share = Field(0.0, description="Share of input tokens found in the prefix cache")


class Demand(Table):
    """How much traffic: exactly one of the five ways to say it."""

    requests_per_second: Annotated[float, Field(gt=0, le=1e7, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Mean request rate; a request with subagents is one task"
    )
    concurrent_users: Annotated[float, Field(gt=0, le=1e9, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Users who wait for an answer, think, and ask again"
    )
    sessions: Annotated[float, Field(gt=0, le=1e9, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Open agent sessions; [session] says how they go"
    )
    tokens_per_day: Annotated[float, Field(gt=0, le=1e16, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Output tokens per day"
    )
    trace: str | None = Field(
        None, description="Recorded trace beside this file: rate, peak, burstiness and, unless given, lengths"
    )
    think_time: Pause = Field(0.0, description="Mean pause between answer and next request")
    peak_to_mean: Annotated[float, Field(ge=1, le=1000, strict=True, allow_inf_nan=False)] = Field(
        1.0, description="Peak demand over mean demand; the fleet is sized for the peak"
    )
    arrival_cv: Annotated[float, Field(ge=0, le=100, strict=True, allow_inf_nan=False)] = Field(
        1.0, description="Coefficient of variation of the times between arrivals; 1 is Poisson"
    )
    arrivals: Literal["poisson", "gamma", "weibull"] | None = Field(
        None, description="Process of the arrivals; poisson when arrival_cv is 1, else gamma"
    )
    forecast_cv: Annotated[float, Field(ge=0, le=5, strict=True, allow_inf_nan=False)] | None = Field(
        None,
        description="Uncertainty of the demand itself, standard deviation over mean; `planner sensitivity` draws it",
    )


class PauseTable(Table):
    """A distribution of pauses: lognormal by mean and cv."""

    mean: Pause = Field(description="Mean pause")
    cv: Annotated[float, Field(ge=0, le=20, strict=True, allow_inf_nan=False)] = Field(
        1.0, description="Standard deviation over mean"
    )


class Session(Table):
    """How an agent session goes: [context] is its first prompt, then turns append to what is there."""

    turns: LengthTable | Annotated[float, BeforeValidator(_tokens), Field(ge=1)] = Field(
        description="Turns per session, a table or one number"
    )
    appended: LengthTable | Tokens = Field(
        description="Tokens each later turn appends: a tool's result, a person's words"
    )
    pause: PauseTable | Pause = Field(
        0.0, description="Pause between answer and next prompt, a table of mean and cv or one duration"
    )
    cache_ttl: Duration | None = Field(
        None, description="How long an idle context stays cached; as long as memory lasts by default"
    )
    pinned: Annotated[float, BeforeValidator(_tokens), Field(ge=0)] = Field(
        0.0, description="Tokens of the first prompt that all sessions share and that stay cached"
    )
    kept_output: Share = Field(
        1.0, description="Share of an answer that later prompts repeat; less where reasoning is dropped"
    )
    max_context: Tokens | None = Field(
        None, description="Input tokens at which a session starts over from its first prompt"
    )


class Subagents(Table):
    """A request that fans out into several sequences sharing a prefix."""

    fan_out: Annotated[int, Field(strict=True, ge=1, le=10_000)] = Field(1, description="Sequences per request")
    shared_prefix: Annotated[float, BeforeValidator(_tokens), Field(ge=0)] = Field(
        0.0, description="Tokens all of them share"
    )
    independent_avenues: Count | None = Field(
        None, description="Avenues that are really different; further sequences repeat one"
    )
    success: Share = Field(0.3, description="Probability that one sequence alone succeeds")
    correlation: Annotated[float, Field(ge=0, lt=1, strict=True, allow_inf_nan=False)] = Field(
        0.3, description="Correlation of success between sequences"
    )
    cascade: Literal["off", "ideal"] = Field(
        "off", description="Whether the engine reads a shared prefix once per step"
    )
    value: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="What a solved task is worth, $; decides how many sequences pay"
    )
    next_turn_quality: Share = Field(0.6, description="Probability that a predicted next turn is the one that comes")
    waiting_hour_value: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="What an hour not waited is worth, $; decides how many turns ahead pay"
    )


class Slos(Table):
    """Limits on latency; each is a duration and must hold for that statistic over requests."""

    ttft_mean: Duration | None = Field(None, description="Mean time to first token")
    ttft_p50: Duration | None = Field(None, description="Median time to first token")
    ttft_p95: Duration | None = Field(None, description="95th percentile of time to first token")
    ttft_p99: Duration | None = Field(None, description="99th percentile of time to first token")
    tpot_mean: Duration | None = Field(None, description="Mean time per output token")
    tpot_p50: Duration | None = Field(None, description="Median time per output token")
    tpot_p95: Duration | None = Field(None, description="95th percentile of time per output token")
    tpot_p99: Duration | None = Field(None, description="99th percentile of time per output token")
    itl_mean: Duration | None = Field(None, description="Mean gap between tokens")
    e2e_mean: Duration | None = Field(None, description="Mean time from arrival to last token")
    e2e_p50: Duration | None = Field(None, description="Median time from arrival to last token")
    e2e_p95: Duration | None = Field(None, description="95th percentile of it")
    e2e_p99: Duration | None = Field(None, description="99th percentile of it")


class Speculation(Table):
    """Speculative decoding: left to the planner, forced, or forbidden."""

    enabled: Literal["auto"] | bool = Field("auto", description='"auto", true or false')
    task: Literal["chat", "code", "code-edit", "math", "rag", "summarise", "qa", "translation", "creative"] = Field(
        "chat", description="Task the acceptance defaults are taken for"
    )
    methods: (
        list[Literal["none", "n-gram", "suffix", "eagle", "eagle3", "mtp", "dspark", "draft-model", "sparse-kv"]] | None
    ) = Field(None, description="Methods to consider; all the model supports by default")
    draft_model: str | None = Field(None, description="Model used to draft")
    acceptance: list[Share] | None = Field(
        None, description="Measured acceptance by position, each given the ones before"
    )
    acceptance_per_position: list[Share] | None = Field(
        None, description="Measured acceptance rate by position over all drafts, as vLLM logs it"
    )
    acceptance_length: Annotated[float, Field(ge=1, le=64, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Measured tokens per verification step, the bonus token included"
    )
    acceptance_factor: Annotated[float, Field(ge=0, le=10, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Factor on the tokens accepted beyond the first, of whatever acceptance is used"
    )
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] = Field(1.0, description="Sampling temperature")
    draft_domain: Literal["in-domain", "generic"] = Field(
        "in-domain", description="Whether a learned drafter was trained on such text, or on general text alone"
    )
    margin: Annotated[float, Field(ge=0, le=1, strict=True)] = Field(
        0.05, description="Speed-up required beyond one before speculation is recommended"
    )


class Precision(Table):
    """Number formats the planner may use."""

    weights: list[Literal["native", "bf16", "fp8", "fp8-block", "int8", "int4", "mxfp4", "nvfp4"]] = Field(
        ["native"], min_length=1, description="Weight formats; native is the checkpoint's own"
    )
    kv: list[Literal["native", "bf16", "fp8"]] = Field(["native"], min_length=1, description="KV cache formats")


class Hardware(Table):
    """Which accelerators may be bought, and at whose price."""

    allow: list[str] = Field([], description="Accelerators to consider; all by default")
    deny: list[str] = Field([], description="Accelerators to leave out")
    max_gpus: Count | None = Field(None, description="Most accelerators in the fleet")
    gpus_per_replica: Count | None = Field(None, description="Fixed size of a replica")
    providers: list[str] = Field([], description="Providers whose prices count; all by default")
    price_term: Literal["on-demand", "spot", "3yr rental", "owning TCO", "default"] = Field(
        "on-demand", description="Terms under which accelerators are paid; never mixed"
    )
    prices: dict[str, Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]] = Field(
        {}, description="Own prices, accelerator to $ per accelerator-hour"
    )


class Cost(Table):
    """How accelerators are paid, and what their power costs and emits."""

    term: Literal["on-demand", "spot", "reserved", "owned"] | None = Field(
        None, description="Term; hardware.price_term unless given. Owned: from capex_per_gpu, else models of ownership"
    )
    capex_per_gpu: dict[str, Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]] = Field(
        {}, description="Owned: price of an accelerator with its share of server and network, accelerator to $"
    )
    amortisation_years: Annotated[float, Field(gt=0, le=30, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Owned: years over which capex is paid back"
    )
    cost_of_capital: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)] = Field(
        0.0, description="Owned: interest on capex per year, as a share"
    )
    power_price_per_kwh: Annotated[float, Field(ge=0, le=10, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Owned: price of electricity, $ per kWh"
    )
    pue: Annotated[float, Field(ge=1, le=4, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Energy of the site over that of its machines; the industry's average by default"
    )
    watts_per_gpu: Annotated[float, Field(gt=0, le=30_000, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Power drawn per accelerator, its share of the server included; its limit alone by default"
    )
    hosting_per_gpu_month: Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)] = Field(
        0.0, description="Owned: space, staff and service per accelerator and month of 730 hours, $"
    )
    grid_intensity: Annotated[float, Field(ge=0, le=2000, strict=True, allow_inf_nan=False)] | None = Field(
        None, description="Carbon of the electricity, g CO2e per kWh"
    )


class Parallelism(Table):
    """Degrees of parallelism to restrict the search to."""

    tensor: list[Count] | None = Field(None, description="Tensor-parallel degrees")
    pipeline: list[Count] | None = Field(None, description="Pipeline-parallel degrees")
    data: list[Count] | None = Field(None, description="Attention data-parallel degrees")
    expert: list[Count] | None = Field(None, description="Expert-parallel degrees")


class EngineTable(Table):
    """The inference engine and its limits."""

    name: Literal["vllm", "sglang", "trtllm", "generic"] = Field("vllm", description="Engine")
    max_num_seqs: Count | None = Field(None, description="Most sequences per replica")
    max_batched_tokens: Count | None = Field(None, description="Token budget of a step")
    memory_fraction: Annotated[float, Field(gt=0, le=1, strict=True)] | None = Field(
        None, description="Share of memory the engine takes"
    )


class Serving(Table):
    """Whether replicas do both, prefill and decode, or each has a pool of its own."""

    mode: Literal["auto", "aggregated", "disaggregated"] = Field(
        "auto", description="One kind of replica, two, or whichever the objective prefers"
    )


class Reliability(Table):
    """Room for failures and growth."""

    spare_replicas: Annotated[int, Field(ge=0, strict=True)] | None = Field(
        None, description="Replicas beyond the peak; one by default, two from twenty replicas"
    )
    headroom: Annotated[float, Field(ge=0, le=10, strict=True)] = Field(
        0.0, description="Extra capacity over the peak, as a share"
    )


class Objective(Table):
    """What the best plan has least of."""

    minimise: Literal["cost", "gpus", "energy", "latency"] = Field("cost", description="Objective")


class RequestTable(Table):
    """One class of requests."""

    name: str = Field(description="Name of the class")
    share: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] = Field(
        1.0, description="Weight among the classes"
    )
    context: ContextTable | Tokens = Field(description="Input tokens, a table or one number")
    reasoning: LengthTable | Tokens | None = Field(None, description="Reasoning tokens")
    answer: LengthTable | Tokens | None = Field(None, description="Answer tokens")
    slo: Slos = Field(Slos(), description="Limits for this class alone")


class WorkloadFile(Table):
    """A workload: what is asked of the fleet, and what may be used."""

    model: str = Field(min_length=1, description="Catalogue name, Hugging Face id, or path of a config.json")
    name: str | None = Field(None, description="Name of the workload")
    description: str | None = Field(None, description="One line about it")
    demand: Demand = Field(description="How much traffic")
    context: ContextTable | Tokens | None = Field(None, description="Input tokens of a request")
    reasoning: LengthTable | Tokens | None = Field(None, description="Reasoning tokens of a request")
    answer: LengthTable | Tokens | None = Field(None, description="Answer tokens of a request")
    requests: list[RequestTable] | None = Field(None, description="Classes of requests instead of one")
    session: Session | None = Field(None, description="How the sessions of demand.sessions go")
    subagents: Subagents | None = Field(None, description="Fan-out into subagents")
    slo: Slos = Field(Slos(), description="Limits on latency")
    speculation: Speculation = Field(Speculation(), description="Speculative decoding")
    precision: Precision = Field(Precision(), description="Number formats allowed")
    hardware: Hardware = Field(Hardware(), description="Accelerators and prices")
    cost: Cost | None = Field(None, description="Terms of payment, ownership, power and carbon")
    parallelism: Parallelism = Field(Parallelism(), description="Restrict the layouts")
    engine: EngineTable = Field(EngineTable(), description="Inference engine")
    serving: Serving = Field(Serving(), description="One kind of replica, or pools for prefill and decode")
    reliability: Reliability = Field(Reliability(), description="Spares and headroom")
    objective: Objective = Field(Objective(), description="What to minimise")
