"""One fixed configuration."""

from __future__ import annotations

import pytest

from planner.errors import InputError
from planner.hardware import Database
from planner.sizing import EstimateRequest, estimate


def test_bare_step(database: Database) -> None:
    result = estimate(EstimateRequest("llama-3.1-8b", "h100-sxm", batch=64, context=2048), database)
    step = result.step
    assert step is not None
    assert step.bound_by == "memory"
    assert step.bytes_per_step.kv == 64 * 2048 * 131_072
    assert step.seconds == pytest.approx(12.38e-3, rel=0.15)
    assert step.seconds == pytest.approx(sum(o.seconds for o in step.operators))
    assert step.bytes == pytest.approx(sum(o.bytes for o in step.operators))
    assert step.flops == pytest.approx(sum(o.flops for o in step.operators))


def test_loads_agree(database: Database) -> None:
    common = {"tensor_parallel": 4, "input_tokens": 1000, "output_tokens": 500}
    closed = estimate(EstimateRequest("llama-3.1-70b", "h200-sxm", concurrency=32, **common), database)  # type: ignore[arg-type]
    assert closed.latency is not None
    assert closed.throughput is not None
    # Little's law: requests in flight
    assert closed.throughput.requests_per_second * closed.latency.e2e_s.mean == pytest.approx(32, rel=0.01)
    rate = closed.throughput.requests_per_second
    opened = estimate(EstimateRequest("llama-3.1-70b", "h200-sxm", rate=rate, **common), database)  # type: ignore[arg-type]
    assert opened.latency is not None
    gap = closed.latency.time_per_output_token_s.mean
    assert opened.latency.time_per_output_token_s.mean == pytest.approx(gap, rel=0.1)


def test_throughput_grows_with_concurrency(database: Database) -> None:
    rates = []
    for c in (1, 4, 16, 64, 256):
        result = estimate(
            EstimateRequest("qwen3-32b", "h100-sxm", 2, input_tokens=1000, output_tokens=300, concurrency=c),
            database,
        )
        assert result.throughput is not None
        rates.append(result.throughput.output_tokens_per_second)
    assert rates == sorted(rates)


def test_overload_is_said(database: Database) -> None:
    result = estimate(EstimateRequest("llama-3.1-8b", "l4", input_tokens=2000, output_tokens=500, rate=50), database)
    assert result.latency is None
    assert any("overloaded" in w for w in result.warnings)


def test_what_does_not_fit(database: Database) -> None:
    result = estimate(EstimateRequest("llama-3.1-70b", "h100-sxm", batch=1, context=1024), database)
    assert not result.fits
    assert "does not fit" in result.warnings[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "nothing to estimate"),
        ({"batch": 4}, "both --batch and --context"),
        ({"batch": 4, "context": 100, "rate": 1}, "bare step"),
        ({"input_tokens": 10, "output_tokens": 10}, "one load is needed"),
        ({"input_tokens": 10, "output_tokens": 10, "rate": 1, "concurrency": 1}, "one load is needed"),
        ({"batch": -1, "context": 100}, "--batch"),
        ({"batch": 1, "context": 100, "tensor_parallel": 3}, "does not divide"),
        ({"batch": 1, "context": 100, "tensor_parallel": 0}, "--tensor-parallel is 0"),
        ({"batch": 1, "context": 100, "expert_parallel": 2}, "has no experts"),
        ({"batch": 1, "context": 100, "weights": "fp88"}, "fp8"),
        ({"batch": 1, "context": 100, "kv": "int4"}, "--kv"),
        ({"batch": 1, "context": 100, "engine": "vlm"}, "vllm"),
        ({"batch": 1, "context": 100, "gpu": "h1000"}, "h100"),
        ({"batch": 1, "context": 100, "gpu": "cerebras-wse3"}, "cannot be planned"),
        ({"batch": 1, "context": 100, "pipeline_parallel": 99}, "exceeds the 32 layers"),
    ],
)
def test_unclear_questions(database: Database, change: dict[str, object], says: str) -> None:
    request = {"model": "llama-3.1-8b", "gpu": "h100-sxm", **change}
    with pytest.raises(InputError, match=says):
        estimate(EstimateRequest(**request), database)  # type: ignore[arg-type]


def test_cache_of_a_small_test_model(database: Database, tmp_path: object) -> None:
    """vLLM on CPU reported 262 144 tokens in 2 GiB for this config at fp32: 8192 bytes per token."""
    import json
    from pathlib import Path

    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512, "num_hidden_layers": 8,
              "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 1536, "vocab_size": 512,
              "max_position_embeddings": 2048}  # fmt: skip
    path = Path(str(tmp_path)) / "config.json"
    path.write_text(json.dumps(config))
    result = estimate(EstimateRequest(str(path), "l4", kv="fp32", batch=1, context=100), database)
    assert result.memory is not None
    assert result.memory.kv_bytes_per_token_formula == 8192
    assert 2 * 2**30 / result.memory.kv_bytes_per_token_formula == 262_144
