"""The torch benchmarks: their logic on torch's processor device where torch is installed, sizes anywhere."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from planner.documents import parse_toml
from planner.hardware import Database
from planner.hardware.loading import parse_accelerator
from planner.measuring import Measurement, Stopwatch, entry_text
from planner.measuring.gpu import TorchKernels, TorchSizes, gpu_sizes
from planner.measuring.session import run_tasks

TINY = TorchSizes(2**16, 32, 32, (1, 4), ((2, 8), (1, 4)), (8, 64), 4, 2, 8)


@pytest.fixture(scope="module")
def torch() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch")


def test_sizes_leave_the_cache_and_fit() -> None:
    for memory, cache in ((80e9, 50e6), (8e9, 4e6), (192e9, 256e6)):
        for quick in (True, False):
            sizes = gpu_sizes(memory, cache, quick)
            assert sizes.stream >= 4 * cache
            assert 3 * 4 * sizes.square**2 <= memory / 4
            keys = max(b * s for b, s in sizes.attention) * 2 * 2 * sizes.kv_heads * sizes.head_dim
            assert 4 * cache <= keys <= memory / 4


@pytest.mark.torch
def test_every_figure_on_the_processor(torch: Any, database: Database) -> None:
    kernels = TorchKernels(torch, "cpu")
    figures, left_out = run_tasks(
        kernels.tasks(sizes=TINY), kernels.stopwatch(Stopwatch(0.0, 3, 3, shortest=0.0)), None
    )
    assert left_out == []
    assert {f.kind for f in figures} == {"read", "matmul", "rows", "call", "decode", "prefill"}
    assert {f.fmt for f in figures if f.kind == "matmul"} == {"fp32", "bf16"}
    assert all(f.best > 0 for f in figures)
    measured = Measurement(kernels.host(), "2026-01-02", tuple(figures))
    chip = parse_accelerator(parse_toml(entry_text(measured, "here"), "here.toml"), database.defaults)
    assert {chip.efficiency(o, "bf16").kind for o in ("matmul", "decode_attention", "prefill_attention")} == {
        "measured"
    }
    bf16 = chip.fact("compute.bf16")
    assert bf16 is not None and bf16.kind == "measured"


@pytest.mark.torch
def test_what_torch_refuses_is_left_out(torch: Any) -> None:
    kernels = TorchKernels(torch, "cpu", ("fp32", "fp4"))
    tasks = [t for t in kernels.tasks(sizes=TINY) if t.label.startswith("fp4 matmul")]
    figures, left_out = run_tasks(tasks, Stopwatch(0.0, 3, 3, shortest=0.0), None)
    assert figures == []
    assert len(left_out) == len(tasks) == 3


@pytest.mark.torch
def test_grouped_queries_are_decode_attention(torch: Any) -> None:
    attend = torch.nn.functional.scaled_dot_product_attention
    q, k, v = torch.randn(2, 4, 1, 8), torch.randn(2, 2, 16, 8), torch.randn(2, 2, 16, 8)
    grouped = attend(q.reshape(2, 2, 2, 8), k, v).reshape(2, 4, 1, 8)
    assert torch.allclose(grouped, attend(q, k, v, enable_gqa=True), atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("fmt", ["fp32", "bf16", "fp8", "int8"])
def test_multiplication_is_by_the_transpose(torch: Any, fmt: str) -> None:
    kernels = TorchKernels(torch, "cpu")
    x, w = kernels._random((32, 64), fmt), kernels._random((48, 64), fmt)
    try:
        found = kernels._multiply(fmt)(x, w)
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"torch {torch.__version__} has no {fmt} matmul here: {error}")
    wanted = x.float() @ w.float().t()
    assert torch.allclose(found.float(), wanted, rtol=0.05, atol=0.5)
