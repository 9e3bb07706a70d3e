"""Calibrations scale what kernels achieve, never past the peak, and replace engines' overheads."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.documents import parse_toml
from planner.errors import InputError
from planner.hardware import load_database
from planner.hardware.accelerator import Scale
from planner.hardware.calibration import Calibration, parse_calibration

TEXT = """
schema = 1
name = "ours"
[engine.vllm]
step = 0.002
layer = { value = 4e-6, unit = "s", points = 12 }
[accelerator.any.matmul.any]
memory = 0.9
[accelerator.h200-sxm.matmul.fp8]
memory = 0.5
latency = 2.0
[accelerator.h200-sxm.all_reduce]
latency = 3.0
"""


def test_scales_multiply_from_any_down_to_the_part() -> None:
    bare = load_database().uncalibrated()
    fitted = bare.calibrated(parse_calibration(parse_toml(TEXT, "ours.toml")))
    before, after = (d.accelerator("h200-sxm").efficiency("matmul", "fp8", "vllm") for d in (bare, fitted))
    assert after.memory == pytest.approx(0.45 * before.memory)
    assert after.latency_s == pytest.approx(2 * before.latency_s)
    other = fitted.accelerator("h100-sxm").efficiency("matmul", "bf16", "vllm")
    assert other.memory == pytest.approx(0.9 * bare.accelerator("h100-sxm").efficiency("matmul", "bf16", "vllm").memory)
    assert fitted.accelerator("h200-sxm").all_reduce(8, "vllm").latency_s == pytest.approx(
        3 * bare.accelerator("h200-sxm").all_reduce(8, "vllm").latency_s
    )
    assert fitted.engine("vllm").step_overhead_s == 0.002
    assert fitted.engine("vllm").layer_overhead_s == 4e-6
    assert fitted.engine("sglang") == bare.engine("sglang")


def test_no_rate_passes_its_peak() -> None:
    many = Calibration(accelerators={"any": {"matmul": {"any": Scale(memory=20.0, compute=20.0)}}})
    found = (
        load_database().uncalibrated().calibrated(many).accelerator("b200-sxm").efficiency("matmul", "nvfp4", "trtllm")
    )
    assert found.memory == 1.0
    assert found.compute == 1.0


def test_the_database_it_was_made_from_stays_as_it_was() -> None:
    bare = load_database().uncalibrated()
    before = bare.accelerator("l40s").efficiency("matmul", "bf16")
    bare.calibrated(Calibration(accelerators={"l40s": {"matmul": {"any": Scale(memory=0.5)}}})).accelerator("l40s")
    assert bare.accelerator("l40s").efficiency("matmul", "bf16") == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[accelerator.h200-sxm.matmul.fp9]\nmemory = 1", "unknown format"),
        ("[accelerator.h200-sxm.matmull.fp8]\nmemory = 1", "matmull"),
        ("[accelerator.h200-sxm.matmul.fp8]\nmemory = 0.001", "between 0.05 and 20"),
        ("[accelerator.h200-sxm.matmul.fp8]\nmemory = 'x'", "memory"),
        ("[engine.vllm]\nstepp = 1", "stepp"),
        ("[engine]\nvllm = 1", "a table"),
        ("schem = 1", "schem"),
    ],
)
def test_mistakes_are_said_with_file_and_key(line: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        parse_calibration(parse_toml(line, "wrong.toml"))
    assert "wrong.toml" in str(caught.value)


def test_files_go_on_top_of_the_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT, encoding="utf-8")
    database = load_database(calibrations=[path])
    assert database.calibrations[-1].name == "ours"
    with pytest.raises(InputError, match="no such file"):
        load_database(calibrations=[tmp_path / "none.toml"])
