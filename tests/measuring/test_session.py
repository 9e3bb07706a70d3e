"""A whole run in tiny sizes, and the choice of device, threads and name."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest
from fakes import HOST, TINY

from planner.documents import parse_toml
from planner.errors import InputError
from planner.hardware import Database
from planner.hardware.loading import parse_accelerator
from planner.measuring import Stopwatch, blas, check_name, choose_device, default_name, entry_text, measure
from planner.measuring.figures import Figure, Task, Unsupported
from planner.measuring.session import run_tasks, threads_for

QUICK = Stopwatch(0.0, 3, 3, shortest=0.0)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_processor_is_measured_and_loads_back(database: Database, threads: int) -> None:
    if threads > 1 and not blas.controllable():
        pytest.skip("threads of this matrix library are not set from here")
    heard: list[tuple[str, int, int]] = []
    found = measure("cpu", threads=threads, watch=QUICK, sizes=TINY, today="2026-01-02",
                    said=lambda *step: heard.append(step))  # fmt: skip
    assert found.host.threads == threads
    assert {f.kind for f in found.figures} == {"read", "matmul", "rows", "call", "decode", "prefill"}
    assert all(f.best > 0 and f.best >= f.typical for f in found.figures if f.unit != "s")
    assert [label for label, _, _ in heard] == [f.label for f in found.figures]
    assert [done for _, done, _ in heard] == list(range(len(found.figures)))
    chip = parse_accelerator(parse_toml(entry_text(found, "here"), "here.toml"), database.defaults)
    read = max(f.best for f in found.figures if f.kind == "read")
    assert chip.bandwidth == pytest.approx(read, rel=1e-3)
    peak = max(f.best for f in found.figures if f.kind in ("matmul", "rows") and f.fmt == "fp32")
    assert chip.peak("fp32") == pytest.approx(peak, rel=1e-3)
    assert "fp64 matmul" in chip.note


def test_work_is_counted_the_same_on_any_threads() -> None:
    if not blas.controllable():
        pytest.skip("threads of this matrix library are not set from here")
    one, two = (measure("cpu", threads=n, watch=QUICK, sizes=TINY) for n in (1, 2))
    assert [(f.label, f.flops, f.bytes) for f in one.figures] == [(f.label, f.flops, f.bytes) for f in two.figures]


def test_attention_of_the_processor_is_attention() -> None:
    found = measure("cpu", threads=1, watch=QUICK, sizes=TINY).of("decode")
    cached = 2 * 4 * TINY.kv_heads * TINY.head_dim  # bytes of a token's keys and values
    assert [f.bytes for f in found] == [b * s * cached for b, s in TINY.attention]


def test_threads_of_the_library_are_put_back() -> None:
    if not blas.controllable():
        pytest.skip("threads of this matrix library are not set from here")
    with blas.one_thread():
        pass
    with pytest.raises(ZeroDivisionError), blas.one_thread():
        _ = 1 / 0


def test_a_library_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_library", lambda: None)
    with pytest.raises(InputError, match="OMP_NUM_THREADS=3"):
        threads_for(3)
    assert threads_for(None) >= 1
    with blas.one_thread():
        pass


def test_what_a_device_lacks_is_left_out() -> None:
    def lacks(_: Stopwatch) -> Figure:
        raise Unsupported("no kernel")

    def full(_: Stopwatch) -> Figure:
        raise MemoryError

    figures, left_out = run_tasks([Task("fp8 matmul", lacks), Task("fp4 matmul", full)], QUICK, None)
    assert figures == []
    assert left_out == ["fp8 matmul (no kernel)", "fp4 matmul (not enough memory)"]


def test_names() -> None:
    assert default_name(HOST) == "some-cpu-2t"
    check_name(default_name(HOST))
    for wrong in ("", "../x", "a b", "-x"):
        with pytest.raises(InputError, match="--name"):
            check_name(wrong)


def fake_torch(monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    module = types.ModuleType("torch")
    module.__spec__ = importlib.util.spec_from_loader("torch", None)
    module.__version__ = "2.9"  # type: ignore[attr-defined]
    module.cuda = types.SimpleNamespace(is_available=lambda: gpu)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", module)


def test_devices_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(InputError, match=r"--device: a GPU is measured with torch, which is not installed.*\[gpu\]"):
        choose_device("cuda")


@pytest.mark.parametrize("gpu", [True, False])
def test_devices_with_torch(monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    fake_torch(monkeypatch, gpu)
    assert choose_device("auto") == ("cuda" if gpu else "cpu")
    assert choose_device("cpu") == "cpu"
    if gpu:
        assert choose_device("cuda") == "cuda"
        with pytest.raises(InputError, match="--threads"):
            from planner.measuring import gpu as kernels

            monkeypatch.setattr(kernels, "TorchKernels", lambda *_: None)
            measure("cuda", threads=2)
    else:
        with pytest.raises(InputError, match="--device: torch 2.9 sees no GPU"):
            choose_device("cuda")


def test_a_device_nobody_knows() -> None:
    with pytest.raises(InputError, match="Did you mean 'cuda'"):
        choose_device("cuda0")
