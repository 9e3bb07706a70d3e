"""Every model of the catalogue can be planned, as stored and re-quantised, with any way of drafting."""

from __future__ import annotations

import pytest

from planner.hardware import Database
from planner.models.catalogue import ROOT
from planner.sizing import EstimateRequest, estimate, recommend
from planner.workload import load_workload

TEXT = """
[demand]
requests_per_second = 5
[context]
mean = 1500
[answer]
mean = 300
[slo]
tpot_p95 = "200ms"
[precision]
weights = ["native", "fp8", "nvfp4"]
kv = ["native", "fp8"]
"""


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("*.toml")))
def test_a_plan_for(name: str, database: Database) -> None:
    workload = load_workload("w", text=f'model = "{name}"\n{TEXT}')
    plan = recommend(workload, database, gpus=["h200-sxm", "gb200-nvl72", "mi355x"], top=0).plan
    assert plan is not None
    assert plan.latency.time_per_output_token_s.p95 <= 0.2 * 1.001
    assert plan.memory.max_context_tokens > 1800


def test_a_draft_model_of_another_format(database: Database) -> None:
    text = (
        'model = "llama-3.1-405b"\n'
        + TEXT
        + '[speculation]\nenabled = true\nmethods = ["draft-model"]\ndraft_model = "llama-3.1-70b-instruct-fp8"\n'
    )
    plan = recommend(load_workload("w", text=text), database, gpus=["h200-sxm"]).plan
    assert plan is not None
    assert plan.speculation.method == "draft-model"
    assert plan.memory.draft > 5e9


@pytest.mark.parametrize("layout", [{"tensor_parallel": 8}, {"tensor_parallel": 4, "pipeline_parallel": 2},
                                    {"data_parallel": 8, "expert_parallel": 8}, {"tensor_parallel": 8, "expert_parallel": 8},
                                    {"tensor_parallel": 2, "data_parallel": 4, "expert_parallel": 8}])  # fmt: skip
@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "generic"])
def test_layouts_and_engines(layout: dict[str, int], engine: str, database: Database) -> None:
    request = EstimateRequest(
        "deepseek-r1", "h200-sxm", engine=engine, input_tokens=1000, output_tokens=500, concurrency=64, **layout
    )
    result = estimate(request, database)
    assert result.latency is not None
    # DeepSeek-R1 on eight H200 at concurrency 64 is measured between 20 and 60 ms per token
    assert 0.01 < result.latency.time_per_output_token_s.mean < 0.2
