"""The grid of bench/closed_forms.py: workloads, and the replicas they are put on."""

from __future__ import annotations

from dataclasses import dataclass

#: workloads beside the shipped examples: traffic those don't have
WORKLOADS = {
    "bursty-chat": """
        model = "meta-llama/Llama-3.1-8B-Instruct"
        demand = { requests_per_second = 0.001, arrival_cv = 2.0 } # all of it on one replica
        context = { mean = 900, cv = 1.0 }
        answer = { mean = 220, cv = 0.9 }
    """,
    "classes": """
        model = "Qwen/Qwen3-32B"
        demand = { requests_per_second = 20 }
        [[requests]]
        name = "chat"
        share = 0.7
        context = { p50 = 800, p95 = 3000 }
        answer = { mean = 250, cv = 0.9 }
        [[requests]]
        name = "summarise"
        share = 0.2
        context = { mean = 6000, cv = 0.6 }
        answer = { mean = 350, cv = 0.4 }
        [[requests]]
        name = "code"
        share = 0.1
        context = { mean = 2000, cv = 1.0 }
        answer = { mean = 1500, cv = 1.2 }
    """,
    "long-prompts": """
        model = "meta-llama/Llama-3.3-70B-Instruct"
        demand = { requests_per_second = 1 }
        context = { p50 = 24_000, p95 = 60_000, max = 100_000, cached_fraction = 0.7 }
        answer = { mean = 900, cv = 0.7 }
    """,
    "constant": """
        model = "meta-llama/Llama-3.1-8B-Instruct"
        demand = { requests_per_second = 20 }
        context = { distribution = "constant", mean = 1000 }
        answer = { distribution = "constant", mean = 500 }
    """,
    "heavy-tails": """
        model = "openai/gpt-oss-120b"
        demand = { requests_per_second = 20 }
        context = { mean = 1500, cv = 2.5, max = 60_000 }
        answer = { mean = 600, cv = 2.5, max = 32_000 }
    """,
    "fan-out": """
        model = "Qwen/Qwen3-32B"
        demand = { requests_per_second = 2 }
        context = { p50 = 6000, p95 = 15_000, cached_fraction = 0.6 }
        answer = { mean = 700, cv = 0.8 }
        subagents = { fan_out = 6, shared_prefix = 4000 }
    """,
    "extraction": """
        model = "Qwen/Qwen3-32B"
        demand = { requests_per_second = 5 }
        context = { mean = 3000, cv = 0.7 }
        answer = { mean = 80, cv = 0.5 }
    """,
}


@dataclass(frozen=True)
class Case:
    """A workload on one replica: accelerator, ranks (tensor, data, pipeline), drafting."""

    workload: str
    accelerator: str
    tensor: int = 1
    data: int = 1
    pipeline: int = 1
    drafting: str = "none"


CASES = (
    Case("chat", "h100-sxm", tensor=2),
    Case("chat", "b200-sxm", drafting="n-gram@2"),
    Case("chat", "gh200-144gb", pipeline=2),
    Case("rag", "h200-sxm", tensor=2, drafting="n-gram@2"),
    Case("rag", "mi300x"),
    Case("coding-agent", "b200-sxm", data=8),
    Case("coding-agent", "h200-sxm", tensor=8, drafting="mtp@2"),
    Case("coding-agent", "b200-sxm", tensor=8),
    Case("reasoning", "h200-sxm", data=16),
    Case("reasoning", "b200-sxm", tensor=8, drafting="mtp@1"),
    Case("reasoning", "l40s", tensor=8, pipeline=4),
    Case("reasoning-glm", "b200-sxm", tensor=8),
    Case("reasoning-glm", "mi355x", tensor=8),
    Case("refactor", "h100-sxm", drafting="n-gram@5"),
    Case("refactor", "l40s"),
    Case("batch", "h100-sxm", tensor=2),
    Case("batch", "b200-sxm"),
    Case("bursty-chat", "h100-sxm"),
    Case("bursty-chat", "l40s"),
    Case("classes", "h100-sxm", tensor=2),
    Case("classes", "mi300x"),
    Case("long-prompts", "h200-sxm", tensor=4),
    Case("long-prompts", "b200-sxm", tensor=2),
    Case("constant", "h100-sxm"),
    Case("constant", "a100-sxm-80gb"),
    Case("heavy-tails", "h200-sxm", tensor=2),
    Case("heavy-tails", "h100-sxm", data=2),
    Case("fan-out", "h100-sxm", tensor=2),
    Case("fan-out", "b200-sxm", drafting="n-gram@2"),
    Case("extraction", "h200-sxm"),
    Case("extraction", "l40s", tensor=2),
)
