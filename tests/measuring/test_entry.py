"""From figures to a file that the loader reads back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import HOST, figure, roofline_machine

from planner.documents import parse_toml
from planner.errors import InputError
from planner.hardware import Accelerator, Database
from planner.hardware.loading import parse_accelerator
from planner.measuring import Measurement, entry_text
from planner.measuring.entry import decode_fit, matmul_fit, prefill_fit


def loaded(measured: Measurement, database: Database, name: str = "here") -> Accelerator:
    return parse_accelerator(parse_toml(entry_text(measured, name), "here.toml"), database.defaults)


def test_what_is_read_back_is_what_was_measured(database: Database) -> None:
    chip = loaded(roofline_machine(), database)
    assert chip.name == "here"
    assert chip.plannable
    assert chip.bandwidth == 20e9
    assert chip.peak("fp32") == 100e9
    assert chip.memory_bytes == pytest.approx(16e9, rel=1e-3)
    assert chip.on_chip_bytes == 32 * 2**20
    assert chip.tdp_w is None
    matmul = chip.efficiency("matmul", "fp32", "vllm")
    assert (matmul.compute, matmul.memory) == pytest.approx((0.8, 0.9), rel=0.02)
    assert matmul.latency_s == pytest.approx(1e-6)
    assert matmul.residual is not None and matmul.residual < 0.02
    assert matmul.kind == "measured"
    decode = chip.efficiency("decode_attention", "fp32", "vllm")
    assert decode.memory == pytest.approx(0.5, rel=1e-3)
    assert decode.latency_s == pytest.approx(5e-6, rel=0.01)
    prefill = chip.efficiency("prefill_attention", "fp32", "vllm")
    assert (prefill.compute, prefill.half_tokens) == pytest.approx((0.4, 300), rel=0.01)


def test_only_what_was_measured_says_so(database: Database) -> None:
    chip = loaded(roofline_machine(), database)
    kinds = {path: fact.kind for path, fact in chip.facts.items()}
    assert kinds == {
        "memory.capacity": "derived", "memory.on_chip": "derived", "memory.bandwidth": "measured",
        "compute.fp32": "measured", "compute.bf16": "derived",
    }  # fmt: skip
    assert chip.efficiency("matmul", "bf16").kind == "derived"
    bf16 = chip.fact("compute.bf16")
    assert bf16 is not None and "widened to fp32" in bf16.note
    bandwidth = chip.fact("memory.bandwidth")
    assert bandwidth is not None and bandwidth.source.startswith("planner measure, ")
    assert "best of 3 repetitions" in bandwidth.note and "spread 0%" in bandwidth.note
    assert "thermal design power" in chip.note


def test_every_source_is_listed_and_dated(database: Database) -> None:
    chip = loaded(roofline_machine(), database)
    keys = {key for key, _, _ in chip.sources}
    used = {f.source for f in chip.facts.values()}
    used |= {e.source for formats in chip.achieved.values() for engines in formats.values() for e in engines.values()}
    assert used == keys
    assert {retrieved for _, _, retrieved in chip.sources} == {"2026-01-02"}
    assert all("Some (R) CPU, 2 threads" in text for key, text, _ in chip.sources if key.startswith("planner"))


def test_a_measured_bf16_is_measured(database: Database) -> None:
    half = roofline_machine(fmt="bf16", peak=50e9)
    both = roofline_machine()
    chip = loaded(replace(both, figures=(*both.figures, *half.of("matmul"), *half.of("rows"))), database)
    assert chip.peak("bf16") == 50e9
    assert chip.efficiency("matmul", "bf16").kind == "measured"
    assert chip.efficiency("decode_attention", "bf16").kind == "derived"


def test_formats_without_a_place_are_in_the_note(database: Database) -> None:
    plain = roofline_machine()
    chip = loaded(replace(plain, figures=(*plain.figures, figure("matmul", 1.0, fmt="fp64", flops=4e10)),
                          left_out=("fp8 matmul (no kernel)",)), database)  # fmt: skip
    assert "fp64 matmul 40 GFLOP/s" in chip.note
    assert "left out: fp8 matmul (no kernel)" in chip.note


def test_noise_is_recorded(database: Database) -> None:
    noisy = roofline_machine(spread=0.4)
    assert noisy.noisy
    assert "noisy: repetitions of read spread" in loaded(noisy, database).note


def test_units_of_small_and_large(database: Database) -> None:
    chip = loaded(roofline_machine(peak=1.2345e15, bandwidth=3.3e12), database)
    assert chip.peak("fp32") == pytest.approx(1.2345e15, rel=1e-3)
    assert chip.bandwidth == pytest.approx(3.3e12)
    fact = chip.fact("compute.fp32")
    assert fact is not None and fact.unit == "TFLOP/s"


def test_names_of_any_letters_stay_one_line(database: Database) -> None:
    odd = replace(roofline_machine(), host=replace(HOST, name='a "b"\n\x7f\\ é', vendor='x"y'))
    chip = loaded(odd, database)
    assert chip.vendor == 'x"y'
    assert all("\n" not in text for _, text, _ in chip.sources)


def test_same_measurement_same_bytes() -> None:
    assert entry_text(roofline_machine(), "here") == entry_text(roofline_machine(), "here")


def test_nothing_measured() -> None:
    empty = Measurement(HOST, "2026-01-02", ())
    assert matmul_fit(empty, "fp32") is decode_fit(empty, "fp32") is prefill_fit(empty, "fp32") is None
    with pytest.raises(InputError, match="no memory read"):
        entry_text(empty, "here")
