"""Shared fixtures: the database, and machines with the reference efficiencies of the worked numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings

from planner.cost.machine import Machine
from planner.cost.roofline import Ceiling
from planner.hardware import Database, load_database
from planner.models import Model, load_model

# the same examples every run; PYTEST_ADDOPTS=--hypothesis-profile=default looks for new ones
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

H100 = {"bf16": 989e12, "fp8": 1979e12, "bandwidth": 3.35e12}
H200 = {"bf16": 989e12, "fp8": 1979e12, "bandwidth": 4.8e12}
B200 = {"bf16": 2250e12, "fp8": 4500e12, "bandwidth": 8e12}


def reference_machine(
    chip: dict[str, float],
    *,
    ideal: bool = False,
    all_reduce: tuple[float, float] = (0.0, math.inf),
    step_overhead: float = 0.0,
    verify_overhead: float = 0.0,
) -> Machine:
    """A chip with matmul 0.80/0.85/4 us and attention 0.60/0.88/12 us, or with none of them."""

    def ceiling(compute: float, memory: float, latency: float, fmt: str = "bf16") -> Ceiling:
        if ideal:
            compute, memory, latency = 1.0, 1.0, 0.0
        return Ceiling(compute * chip[fmt], memory * chip["bandwidth"], latency)

    matmul, attention = ceiling(0.80, 0.85, 4e-6), ceiling(0.60, 0.88, 12e-6)
    fp8 = ceiling(0.56, 0.85, 4e-6, "fp8")
    return Machine(
        {
            "matmul/bf16": matmul,
            "experts/bf16": matmul,
            "matmul/fp8": fp8,
            "experts/fp8": fp8,
            "decode_attention": attention,
            "prefill_attention": ceiling(0.55, 0.88, 0.0),
            "latent_attention": ceiling(0.62, 0.90, 12e-6),
            "sparse_attention": ceiling(0.40, 0.50, 12e-6),
            "indexer": ceiling(0.45, 0.76, 0.0, "fp8"),
            "block_sparse_attention": ceiling(0.40, 0.50, 12e-6),
            "block_indexer": ceiling(0.45, 0.76, 0.0),
            "compressed_indexer": ceiling(0.45, 0.76, 0.0, "fp8"),
            "recurrent": attention,
        },
        all_reduce_latency=all_reduce[0],
        all_reduce_bandwidth=all_reduce[1],
        step_overhead=step_overhead,
        verify_overhead=verify_overhead,
    )


@pytest.fixture(scope="session")
def database() -> Database:
    return load_database().uncalibrated()


@pytest.fixture(scope="session")
def llama_8b() -> Model:
    return load_model("llama-3.1-8b")


@pytest.fixture(scope="session")
def llama_70b() -> Model:
    return load_model("llama-3.1-70b")


@pytest.fixture(scope="session")
def deepseek_v3() -> Model:
    return load_model("deepseek-v3")
