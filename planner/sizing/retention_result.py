"""What a plan keeps of the contexts of idle sessions, as it is printed; units are in the key names."""

from __future__ import annotations

from typing import Literal

from planner.sizing.frozen_result import Result


class RetentionTier(Result):
    """Memory behind the accelerator's own that holds idle contexts, with the tiers before it."""

    name: str
    capacity_bytes_per_gpu: float
    bandwidth_bytes_per_s: float  # of one accelerator
    hit_ratio: float  # share of returning turns that find their context here and in no faster tier
    reload_s: float  # of a mean context
    wins: Literal["reload", "recompute"]
    extra_ttft_s: float  # per turn, with this tier and the ones before it
    source: str


class Retention(Result):
    """What a serving replica keeps of the contexts of idle sessions, at peak."""

    sessions_per_replica: float
    turns_per_second_per_replica: float
    context_tokens: float  # a returning turn had before, what all sessions share aside
    kv_tokens: float  # per replica
    active_kv_tokens: float  # of sequences in service, per replica
    idle_kv_tokens: float  # left for idle sessions, per replica
    kept_s: float | None  # how long an idle context stays; None: nothing is ever evicted
    hit_ratio: float  # share of turns returning before the ttl that find their context in device memory
    planned_hit_ratio: float  # what the plan was priced with
    cached_fraction: float  # of input tokens
    cached_fraction_without_eviction: float
    keep_warm_tokens: float  # idle contexts to hold for 99 % hits, per replica
    keep_warm_more_bytes: float  # beyond what there is, all accelerators of a replica
    recompute_s: float  # prefill of a returning turn's context
    extra_ttft_s: float  # per turn, for contexts computed again, without any tier
    tiers: tuple[RetentionTier, ...] = ()
    statement: str = ""
