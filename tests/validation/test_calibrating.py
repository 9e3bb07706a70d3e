"""Calibrating: a third of an unseen group at least halves the error on the rest, and what few points cannot tell."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.errors import InputError
from planner.hardware import Database, load_database
from planner.hardware.accelerator import Scale
from planner.hardware.calibration import Calibration, load_calibration
from planner.validation.calibrating import calibrate, calibration_text
from planner.validation.points import Measured, MeasuredPoint, Workers, read_point
from planner.validation.protocols import predict

#: gpt-oss-120b on H200 under TensorRT-LLM: ai-dynamo/aiconfigurator@095f58a5, silicon_sample.csv, measured 2025-11-02
GPT_OSS = """\
tp,isl,osl,concurrency_or_batch,ttft_ms,tpot_ms
4,1024,1024,4,104.226,4.9774
8,1024,1024,4,117.141,4.3801
2,1024,8192,4,104.384,5.7431
4,1024,8192,4,83.423,4.7984
4,8192,1024,4,168.134,5.1323
8,8192,1024,4,178.34,4.4724
4,1024,1024,8,110.239,6.0537
2,1024,8192,8,106.648,6.5737
4,1024,8192,8,108.076,5.7112
8,1024,8192,8,103.93,5.1874
2,8192,1024,8,275.852,7.6359
4,8192,1024,8,205.399,6.4317
8,8192,1024,8,172.888,5.7846
2,1024,1024,16,118.275,8.9035
2,1024,8192,16,117.372,8.1961
8,1024,8192,16,124.753,6.4872
2,8192,1024,16,331.271,10.4059
4,8192,1024,16,285.614,8.503
"""
SAME = {
    "gpu": "H200-SXM-141GB",
    "model": "openai/gpt-oss-120b",
    "engine": "trtllm",
    "weight_precision": "fp4",
    "length_kind": "range ratio 0.8",
}


def median_error(points: Sequence[MeasuredPoint], database: Database) -> float:
    errors = [abs(predict(p, database).value("tpot", "mean") / (p.value("tpot") or 0.0) - 1) for p in points]
    return float(np.median(errors))


def ran(
    concurrency: int, tokens: int, database: Database, tensor: int = 1, chip: str = "l40s", model: str = "llama-3.1-8b"
) -> MeasuredPoint:
    """A point of a model on an accelerator, as ``database`` would measure it."""
    point = MeasuredPoint(
        f"c{concurrency}-{tokens}-tp{tensor}", "own", chip, model, "vllm", "", "native", "native",
        Workers(1, tensor), tokens, 64, "closed loop", (), concurrency=concurrency,
    )  # fmt: skip
    found = predict(point, database)
    figures = tuple(Measured(m, "mean", found.value(m, "mean")) for m in ("ttft", "tpot"))
    return replace(point, measured=figures)


@pytest.fixture(scope="module")
def unseen() -> list[MeasuredPoint]:
    """An accelerator with less bandwidth and compute than we think, under an engine with slower steps."""
    database = load_database().uncalibrated()
    step = database.engine("vllm").values["overhead.step"]
    hidden = Calibration(
        "hidden",
        engines={"vllm": {"step": step + 3e-3}},
        accelerators={"l40s": {"matmul": {"any": Scale(memory=0.6, compute=0.5)}}},
    )
    other = database.calibrated(hidden)
    return [ran(c, n, other, t) for c in (1, 4, 16) for n in (128, 1024) for t in (1, 2)]


def test_a_third_of_an_unseen_group_halves_the_error_on_the_rest(unseen: list[MeasuredPoint]) -> None:
    database = load_database().uncalibrated()
    third = unseen[1::3]
    rest = [p for p in unseen if p not in third]
    found = calibrate(third, database)
    before, after = (median_error(rest, d) for d in (database, database.calibrated(found.calibration)))
    assert before > 0.2
    assert after <= before / 2


def test_a_third_of_real_rows_halves_the_error_on_the_rest() -> None:
    database = load_database().uncalibrated()
    database.__dict__["calibrations"] = ()  # those that ship were fitted to these rows too
    points = [read_point({**SAME, **r, "n_gpus": r["tp"], "id": str(i)}, "rows", database)
              for i, r in enumerate(csv.DictReader(io.StringIO(GPT_OSS)))]  # fmt: skip
    known = [p for p in points if isinstance(p, MeasuredPoint)]
    assert len(known) == len(points)
    third = known[1::3]
    rest = [p for p in known if p not in third]
    found = calibrate(third, database)
    before, after = (median_error(rest, d) for d in (database, database.calibrated(found.calibration)))
    assert before > 0.2
    assert after <= before / 2


def test_kernels_of_sparse_attention_are_among_what_is_fitted() -> None:
    """An indexer that takes 150 us more a layer than we think, in what a third of the points say."""
    database = load_database().uncalibrated()
    slower = {"h200-sxm": {"indexer": {"any": Scale(latency=4.0)}}}
    other = database.calibrated(Calibration("hidden", accelerators=slower))
    points = [ran(c, n, other, 8, "h200-sxm", "deepseek-v3.2") for c in (1, 4, 16) for n in (2048, 4096, 8192)]
    given = points[::3]
    rest = [p for p in points if p not in given]
    done = calibrate(given, database)
    assert median_error(rest, database.calibrated(done.calibration)) < 0.5 * median_error(rest, database)
    assert any(knob.what == "indexer" for knob in done.fit.values)


def test_five_noisy_points_say_what_they_cannot_tell(unseen: list[MeasuredPoint]) -> None:
    noisy = [
        replace(p, id=f"noisy {i}", measured=tuple(replace(m, value=m.value * k) for m in p.measured))
        for i, (p, k) in enumerate(zip([unseen[0]] * 2 + unseen[4:7], (0.5, 2.0, 1.3, 0.7, 1.4), strict=True))
    ]
    found = calibrate(noisy, load_database().uncalibrated())
    assert len(found.unidentified) > len(found.identified)
    assert any("noisy 0 and noisy 1 ran the same" in text for text in found.contradictions)
    assert not {k.label for k in found.unidentified} & {k.label for k in found.identified}


def test_the_file_it_writes_predicts_the_same(unseen: list[MeasuredPoint], tmp_path: Path) -> None:
    database = load_database()
    found = calibrate(unseen[1::3], database, name="mine")
    file = tmp_path / "mine.toml"
    file.write_text(calibration_text(found, "2026-11-25"))
    assert load_calibration(file).name == "mine"
    fitted, read = database.calibrated(found.calibration), load_database((), (), (file,))
    for point in unseen[::5]:
        for metric in ("tpot", "ttft"):
            assert predict(point, read).value(metric, "mean") == pytest.approx(
                predict(point, fitted).value(metric, "mean"), rel=2e-3
            )


def test_fewer_than_three_points_hold_nothing_out(unseen: list[MeasuredPoint]) -> None:
    assert calibrate(unseen[:2], load_database().uncalibrated()).held_out == ()


def test_nothing_usable_says_why(unseen: list[MeasuredPoint]) -> None:
    with pytest.raises(InputError, match="unknown model"):
        calibrate([replace(unseen[0], model="no-such-model")], load_database().uncalibrated())
