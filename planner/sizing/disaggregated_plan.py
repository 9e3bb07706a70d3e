"""From a disaggregated candidate to the plan a person reads, and whether it is the better one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from planner.serving.latency import LatencyCurve
from planner.sizing.disaggregated import Pair, disaggregate
from planner.sizing.fleet_range import with_range_of_pair
from planner.sizing.intervals import known_of, latency_with_intervals
from planner.sizing.plan import build_plan, build_why, max_batch
from planner.sizing.result import DisaggregatedPool, Disaggregation, Latency, Percentiles, Plan, Transfer, Why
from planner.sizing.search import Search, Sized
from planner.units import format_duration

if TYPE_CHECKING:
    from planner.sizing.disaggregated_simulation import ConfirmedPair

#: what pools of their own must save of the objective before they are preferred: two things to run instead of one
MARGIN = 0.05
#: pairs put to the simulator at most, when the first ones turn out to need more replicas
CONFIRMED = 3


@dataclass(frozen=True)
class Choice:
    """What became of the plan: ``found`` with its candidate first, ``why`` None where the plan's own holds.

    ``pair``: the pools, where the plan is of them.
    """

    found: Search
    plan: Plan | None
    why: Why | None = None
    notes: tuple[str, ...] = ()
    pair: Pair | None = None


def consider_disaggregation(found: Search, plan: Plan | None, *, simulate: bool = True, seed: int = 0) -> Choice:
    """The plan with the best disaggregated candidate beside it, or that candidate's plan where it is better.

    ``plan``: the aggregated one, None where there is none. The workload's ``serving.mode`` may ask for
    either. A candidate is simulated before it is preferred. Units as in the results.

    Source: the workload's objective.
    """
    mode = found.workload.serving.mode
    if mode == "aggregated":
        return Choice(found, plan)
    forced = mode == "disaggregated"
    rival = (1 - MARGIN) * found.found[0].objective if found.found and plan is not None and not forced else np.inf
    pairs = disaggregate(found, worth=rival)
    best, confirmed = _best(found, list(pairs.found), rival, simulate, seed)
    if best is None:
        if not forced:
            return Choice(found, plan)
        reasons = [f"{name}: {reason}" for name, reason in sorted(pairs.rejected.items())]
        return Choice(found, None, None, ("no pools of prefill and decode replicas keep every limit", *reasons))
    described = build_disaggregation(found, best, confirmed)
    if best.objective >= rival or (confirmed is not None and confirmed.broken and rival < np.inf):
        assert plan is not None
        return Choice(found, plan.model_copy(update={"disaggregation": described}))
    first = replace(best.decode, objective=best.objective)
    notes = () if confirmed is None else confirmed.notes
    chosen = disaggregated_plan(found, best, described, confirmed)
    return Choice(replace(found, found=(first, *found.found)), chosen, _why(found, best), notes, best)


def _best(
    found: Search, pairs: list[Pair], rival: float, simulate: bool, seed: int
) -> tuple[Pair | None, ConfirmedPair | None]:
    """The best pair, simulated where it may be better than the rival."""
    if not pairs or not simulate or pairs[0].objective >= rival:
        return (pairs[0] if pairs else None), None
    from planner.sizing.disaggregated_simulation import confirm_disaggregated

    tried: list[ConfirmedPair] = []
    for pair in pairs[:CONFIRMED]:
        held = [c.pair.objective for c in tried if not c.broken]
        if pair.objective >= min([rival, *held]):
            break
        tried.append(confirm_disaggregated(found, pair, seed=seed))
    best = min(tried, key=lambda c: (bool(c.broken), c.pair.objective))
    return best.pair, best


def build_disaggregation(found: Search, pair: Pair, confirmed: ConfirmedPair | None = None) -> Disaggregation:
    """Both pools, the transfer between them and what they reach, units as in the result.

    Source: the closed forms of the pair, or its simulation.
    """
    weights, tokens = found.load.weights, found.load.new + found.load.cached
    transfer = pair.transfer
    each = float(transfer.bytes @ weights) / float(tokens @ weights)
    aggregated = found.found[0] if found.found else None
    ratio = None
    if aggregated is not None and pair.usd_per_hour > 0:
        price = float(np.nan_to_num(aggregated.rows.price[0, 0]))
        ratio = pair.usd_per_hour / (price * aggregated.gpus) if price > 0 else None
    chip = pair.decode.seat.accelerator.name
    sent = transfer.latency_s + float(transfer.bytes @ weights) / float(weights.sum()) / transfer.bandwidth
    return Disaggregation(
        accelerator=chip,
        prefill=_pool(pair.prefill, float(pair.prefill.served.mean_batch[0, 0])),
        decode=_pool(pair.decode, confirmed.mean_batch if confirmed else float(pair.decode.served.mean_batch[0, 0])),
        transfer=Transfer(
            bytes_per_token=each,
            seconds_per_token=each / transfer.bandwidth,
            latency_s=transfer.latency_s,
            mean_prompt_s=sent,
        ),
        speculation=pair.decode.rows.options[0].label,
        latency=latency_with_intervals(
            confirmed.latency if confirmed else _latency(pair), known_of(found, pair.decode)
        ),
        latency_source="simulated" if confirmed else "closed form",
        busy=confirmed.utilisation if confirmed else None,
        gpus=pair.gpus,
        usd_per_hour=pair.usd_per_hour,
        max_requests_per_second=_highest(found, pair),
        against_aggregated=ratio,
        statement=_statement(pair, chip, ratio, sent),
    )


def _pool(sized: Sized, mean_batch: float) -> DisaggregatedPool:
    layout = sized.seat.layout
    share = float(np.asarray(sized.served.violations["utilisation"]).squeeze())
    limit = float(sized.served.rate[0, 0]) / share if share > 0 else np.inf
    return DisaggregatedPool(
        replicas=sized.replicas,
        spare_replicas=sized.spares,
        gpus_per_replica=int(layout.devices),
        tensor_parallel=int(layout.tensor),
        pipeline_parallel=int(layout.pipeline),
        data_parallel=int(layout.data),
        expert_parallel=int(layout.expert),
        max_batch=max_batch(sized),
        mean_batch=mean_batch,
        utilisation=float(sized.served.rate[0, 0]) / limit,
    )


def _highest(found: Search, pair: Pair) -> float:
    """Requests per second both pools serve inside the limits, [1/s]."""
    each = min(s.max_rate * (s.replicas - s.spares) for s in (pair.prefill, pair.decode))
    return max(each, pair.rate) / found.load.fan_out


def _latency(pair: Pair) -> Latency:
    def of(curve: LatencyCurve) -> Percentiles:
        return Percentiles(**{n: float(curve.statistic(n)[0, 0]) for n in ("mean", "p50", "p95", "p99")})

    return Latency(
        ttft_s=of(pair.prefill.served.ttft), time_per_output_token_s=of(pair.decode.served.tpot), e2e_s=of(pair.e2e)
    )


def _statement(pair: Pair, chip: str, ratio: float | None, sent: float) -> str:
    serving = [s.replicas - s.spares for s in (pair.prefill, pair.decode)]
    pools = f"{serving[0]} prefill and {serving[1]} decode replicas on {chip}"
    sending = f"a mean prompt's cache is under way for {format_duration(sent)}"
    if ratio is None:
        return f"{pools}; {sending}"
    if ratio < 1:
        return f"{pools} cost {ratio:.2f} times the best plan whose replicas do both; {sending}"
    return f"{pools} would cost {ratio:.2f} times the best plan whose replicas do both; {sending}"


def disaggregated_plan(
    found: Search, pair: Pair, described: Disaggregation, confirmed: ConfirmedPair | None = None
) -> Plan:
    """The pair as a plan: layout, batch and memory of its decode pool, all else of both, units as in the result.

    Source: :func:`planner.sizing.plan.build_plan`.
    """
    plan = build_plan(found, pair.decode)
    scale = pair.gpus / pair.decode.gpus
    cost = plan.cost.model_copy(
        update={
            name: getattr(plan.cost, name) * scale
            for name in ("usd_per_hour", "usd_per_month", "usd_per_million_output_tokens")
        }
    )
    throughput = plan.throughput.model_copy(
        update={
            "output_tokens_per_second_per_gpu": plan.throughput.output_tokens_per_second / pair.gpus,
            "max_requests_per_second": described.max_requests_per_second,
        }
    )
    sharing = plan.sharing
    if sharing is not None:
        waited = described.latency.ttft_s.mean - float(pair.decode.served.ttft.mean[0, 0])
        sharing = sharing.model_copy(update={"join_latency_s": sharing.join_latency_s + waited})
    plan = plan.model_copy(
        update={
            "gpus": pair.gpus,
            "cost": cost,
            "throughput": throughput,
            "power_w": plan.power_w * scale,
            "latency": described.latency,
            "latency_source": described.latency_source,
            "mean_batch": described.decode.mean_batch,
            "verdict": confirmed.verdict if confirmed else plan.verdict,
            "sharing": sharing,
            "serving": "disaggregated",
            "disaggregation": described,
        }
    )
    return with_range_of_pair(found, pair, plan)


def _why(found: Search, pair: Pair) -> Why:
    """The reasons of the decode pool's step, and the limit of each pool."""
    names = []
    for kind, sized in (("prefill", pair.prefill), ("decode", pair.decode)):
        ratios = {n: float(np.asarray(v).squeeze()) for n, v in sized.served.violations.items()}
        names.append(f"{max(ratios, key=lambda n: ratios[n])} of the {kind} pool")
    return build_why(found, pair.decode).model_copy(update={"binding_constraint": " and ".join(names)})
