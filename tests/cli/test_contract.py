"""The JSON contract, key by key; results without a plan keep it too."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from planner.sizing.result import Estimate, Recommendation
from planner.workload.examples import example_path

Run = Callable[..., tuple[int, str, str]]
PERCENTILES = {"mean", "p50", "p95", "p99"}
PLAN: dict[str, Any] = {
    **dict.fromkeys((
        "accelerator", "gpus", "replicas", "gpus_per_replica", "tensor_parallel", "pipeline_parallel", "expert_parallel",
        "data_parallel", "weight_dtype", "kv_dtype", "max_batch", "mean_batch", "memory", "power_w",
    )),
    "speculation": {"enabled", "method", "draft_tokens", "acceptance_length", "speedup"},
    "cost": {"usd_per_hour", "usd_per_million_output_tokens", "price_source"},
    "latency": dict.fromkeys(("ttft_s", "time_per_output_token_s", "e2e_s"), PERCENTILES),
    "throughput": {"requests_per_second", "output_tokens_per_second", "output_tokens_per_second_per_gpu"},
}  # fmt: skip
WHY: dict[str, Any] = {
    "binding_constraint": None,
    "bound_by": None,
    "bytes_per_step": {"weights", "kv", "indexer", "state", "activations"},
    "seconds_per_step": {"compute", "memory", "network", "overhead"},
    "crossovers": {"compute_bound_batch", "kv_exceeds_weights_context"},
}
TOP = ["schema_version", "workload", "plan", "why", "alternatives", "assumptions", "warnings"]
LOADS = (["--concurrency", 8], ["--rate", 2], ["--offline"])


def missing(wanted: Any, found: Any, path: str = "") -> list[str]:
    """Paths of ``wanted`` that ``found`` lacks or leaves empty."""
    lacking = []
    for key in wanted or ():
        here = f"{path}.{key}"
        if key not in found:
            lacking.append(here)
        elif isinstance(wanted, dict) and wanted[key]:
            lacking += missing(wanted[key], found[key], here)
    return lacking


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", ["chat", "coding-agent", "infeasible"])
def test_recommendation(run: Run, name: str) -> None:
    code, out, _ = run("recommend", example_path(name), "--format", "json")
    data = strict(out)
    assert list(data)[:7] == TOP
    Recommendation.model_validate(data)
    if name == "infeasible":
        assert code == 3
        assert data["plan"] is None
        assert data["why"] is None
        assert data["nearest_miss"]["statement"]
        assert all(a["reason"] for a in data["alternatives"])
    else:
        assert code == 0
        assert missing(PLAN, data["plan"]) == []
        assert missing(WHY, data["why"]) == []
        assert all(missing(PLAN, a["plan"]) == [] for a in data["alternatives"] if a["feasible"])
    assert all(set(a) == {"key", "value", "origin"} for a in data["assumptions"])


@pytest.mark.parametrize("load", LOADS, ids=[str(load[0]) for load in LOADS])
def test_served_estimate(run: Run, load: list[object]) -> None:
    base = ["estimate", "-m", "llama-3.1-8b", "-g", "h100-sxm", "--input-tokens", 1000, "--output-tokens", 200]
    first, second = (run(*base, *load, "--format", "json") for _ in range(2))
    assert first == second
    data = strict(first[1])
    Estimate.model_validate(data)
    assert missing({k: PLAN[k] for k in ("latency", "throughput")}, data) == []
    assert missing(["schema_version", "configuration", "memory", "fits", "assumptions", "warnings"], data) == []
    assert "step" not in data


def test_bare_step(run: Run) -> None:
    _, out, _ = run("estimate", "-m", "llama-3.1-8b", "-g", "h100", "--batch", 4, "--context", 100, "--format", "json")
    data = strict(out)
    Estimate.model_validate(data)
    wanted = {"seconds": None, "bytes": None, "flops": None, "operators": None} | {
        k: WHY[k] for k in ("bound_by", "bytes_per_step", "seconds_per_step")
    }
    assert missing(wanted, data["step"]) == []
    assert all(missing(["name", "flops", "bytes", "seconds", "bound_by"], o) == [] for o in data["step"]["operators"])
    assert "latency" not in data


@pytest.mark.parametrize(("asked", "says"), [
    (["--input-tokens", "1e8", "--output-tokens", 100, "--rate", 1], "does not fit"),
    (["--input-tokens", 1000, "--output-tokens", 100, "--rate", "1e5"], "overloaded"),
    (["--batch", "1e9", "--context", "1e9"], "does not fit"),
])  # fmt: skip
def test_estimate_that_cannot_be_served(run: Run, asked: list[object], says: str) -> None:
    code, out, err = run("estimate", "-m", "llama-3.1-8b", "-g", "h100-sxm", *asked, "--format", "json")
    assert code == 3
    assert says in err
    data = strict(out)
    assert any(says in w for w in data["warnings"])
    assert "latency" not in data


def test_schemas_are_those_of_the_results(run: Run) -> None:
    kinds: dict[str, type[BaseModel]] = {"result": Recommendation, "estimate": Estimate}
    for name, kind in kinds.items():
        assert strict(run("schema", name)[1]) == kind.model_json_schema()


def test_a_result_out_of_range_is_no_json(run: Run) -> None:
    code, out, err = run(
        "recommend", example_path("chat"), "--set", "demand.requests_per_second=1e308", "--format", "json"
    )
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
