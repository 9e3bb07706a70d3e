"""Tables of measurements: told apart by their columns, every row compared or left out with a reason."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import InputError
from planner.validation.closed_loops import UNKNOWN, same_loops
from planner.validation.files import PUBLISHED, kind_of, parse_rows, parse_where, read_tables, select
from planner.validation.runs import Facts, Validation, route, validate

HEAD = (
    "id,source,source_date,gpu,n_gpus,model,weight_precision,kv_precision,engine,tp,pp,ep,dp,isl,osl,length_kind,"
    "concurrency_or_batch,scenario,output_tok_s_total,output_tok_s_per_gpu,ttft_ms,tpot_ms,mode,parallelism_trust,flag,"
    "notes\n"
)
RANDOM = '"random, range ratio 0.8"'
# ai-dynamo/aiconfigurator@095f58a5 silicon_sample.csv; NVIDIA/TensorRT-LLM@258c7540 perf-overview.md (v0.17)
SERVED = HEAD + f"""\
a,docs,2026-02-05,H100-SXM-80GB,2,Llama-3.3-70B,fp8,,vllm 0.14,2,1,1,1,1024,1024,{RANDOM},8,fixed-concurrency,,,150,15,agg,as-given,,
b,docs,2026-02-05,H100-SXM-80GB,2,Llama-3.3-70B,fp8,,vllm 0.14,2,1,1,1,1024,1024,{RANDOM},8,fixed-concurrency,,,160,16,agg,as-given,,
c,docs,2026-02-05,H100-SXM-80GB,4,Llama-3.3-70B,fp8,,vllm 0.14,4,1,1,1,1024,1024,{RANDOM},8,fixed-concurrency,,,100,10,agg,suspect: 16 GPUs on a node,,
d,docs,2026-02-05,H100-SXM-80GB,4,Llama-3.3-70B,fp8,,vllm 0.14,4,1,1,1,1024,1024,{RANDOM},32,fixed-concurrency,,,200,14,agg,as-given,spec_method not recorded (MTP rows cannot be told apart),
e,docs,2026-02-05,Quantum 9,4,Llama-3.3-70B,fp8,,vllm 0.14,4,1,1,1,1024,1024,{RANDOM},32,fixed-concurrency,,,200,14,agg,as-given,,
f,docs,2026-02-05,H100-SXM-80GB,4,Llama-3.3-70B,fp8,,vllm 0.14,,,,,1024,1024,{RANDOM},32,fixed-concurrency-disagg,,,200,14,disagg,disagg (worker counts often missing),,
g,docs,2026-02-05,H100-SXM-80GB,4,Llama-3.3-70B,fp8,,vllm 0.14,4,1,1,1,1024,1024,{RANDOM},1.2.3,fixed-concurrency,,,200,14,agg,as-given,,
h,docs,2026-02-05,H100-SXM-80GB,4,Llama-3.3-70B,fp8,,vllm 0.14,4,1,1,1,1024,1024,{RANDOM},1e999,fixed-concurrency,,,200,14,agg,as-given,,
i,docs,2026-02-05,H100-SXM-80GB,4,Llama-3.3-70B,fp8,,vllm 0.14,4,1,1,1,1024,1024,{RANDOM},32,poisson at 3 per second,,,200,14,agg,as-given,,
j,docs,2025-02,H200-SXM-141GB,1,Llama-3.1-8B,fp8,fp8,TensorRT-LLM 0.17,1,1,1,,128,128,fixed,max,offline-max-throughput,,29526,,,,,,
k,docs,2025-02,H200-SXM-141GB,1,Llama-3.1-8B,fp8,fp8,TensorRT-LLM 0.17,1,1,1,,128,128,fixed,max,offline-max-throughput,,1e999,,,,,,
"""  # fmt: skip
# InferenceX's dashboard: DeepSeek-R1 with and without MTP
PAIR_HEAD = (
    "id,source_date,gpu,n_gpus,model,weight_precision,engine,tp,ep,dp_attention,isl,osl,concurrency_or_batch,mode,"
    "speculation,ttft_ms,tpot_ms,tpot_p99_ms,output_tok_s_per_gpu\n"
)
WITHOUT = (
    PAIR_HEAD + "w,2026-02-01,B200-SXM-180GB,8,DeepSeek-R1,fp8,sglang,8,1,False,1024,1024,16,agg,none,200,14,15,110\n"
)
WITH = (
    PAIR_HEAD
    + """\
x,2026-02-02,B200-SXM-180GB,8,DeepSeek-R1,fp8,sglang,8,1,False,1024,1024,16,agg,mtp,220,9,11,170
y,2026-02-02,B200-SXM-180GB,8,DeepSeek-R1,fp8,sglang,8,1,False,1024,8192,16,agg,mtp,220,9,11,170
z,2026-02-02,B200-SXM-180GB,8,DeepSeek-R1,fp8,sglang,8,1,False,1024,1024,16,agg,telepathy,220,9,11,170
"""
)
SPEEDUPS = """\
id,source,gpu,n_gpus,target_model,weight_precision,engine,method,draft_tokens,dataset_or_isl_osl,temperature,batch_or_concurrency,speedup,acceptance_length_tau,notes
s,arXiv 2503.01840,H100,1,Llama-3.1-8B-Instruct,BF16,SGLang v0.4.4,EAGLE-3,3,MT-bench,0,2,1.81,,
"""
KERNELS = "gpu,backend,version,dtype,n,k,m,latency_us\nh100_sxm,vllm,1,bfloat16,8192,8192,16,60\nh100_sxm,vllm,1,odd,1,1,1,1\n"
ACCEPTANCE = "id,model,method,num_draft_tokens,acceptance_length,thinking,source\nl,deepseek-r1,MTP,1,1.8,,me\n"
COSTS = "gpu,all_in_power_kw_per_gpu,source\nh100,1.7,x\n"


def write(folder: Path, **texts: str) -> list[Path]:
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return [folder / f"{name}.csv" for name in texts]


def run(folder: Path, *where: str, **texts: str) -> Validation:
    return validate(select(read_tables(write(folder, **texts)), parse_where(where)), workers=1)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Validation:
    return run(tmp_path_factory.mktemp("served"), served=SERVED)


def test_rows_are_compared_or_left_out(found: Validation) -> None:
    compared = {c.comparison.id for c in found.compared}
    reasons = {s.id: s.reason for s in found.skipped}
    assert compared == {"a", "b", "c", "d", "j"}
    assert compared | set(reasons) == set("abcdefghijk") and not compared & set(reasons)
    assert "Quantum 9" in reasons["e"] and "workers are not recorded" in reasons["f"]
    assert "nothing can be computed" in reasons["g"] and "nothing can be computed" in reasons["h"]
    assert "none we can run" in reasons["i"] and "no positive number" in reasons["k"]


def test_doubtful_rows_are_flagged(found: Validation) -> None:
    assert {c.comparison.id for c in found.compared if c.rows == "flagged"} == {"c", "d"}
    (unknown,) = {c.comparison.extrapolates for c in found.compared if c.comparison.id == "d"}
    assert unknown == UNKNOWN


def test_metrics_units_and_labels(found: Validation) -> None:
    by = {(c.comparison.id, c.comparison.metric): c.comparison for c in found.compared}
    assert set(by) >= {("a", "tpot"), ("a", "ttft"), ("j", "throughput")}
    a = by["a", "tpot"]
    assert (a.measured, a.unit, a.statistic, a.kind, a.load) == (0.015, "s", "mean", "aggregated", "8")
    assert (a.accelerator, a.model, a.engine, a.precision) == ("h100-sxm", "llama-3.3-70b-instruct", "vllm", "fp8")
    assert 0.5 < a.ratio < 2


def test_equal_points_are_simulated_once(found: Validation) -> None:
    by = {c.comparison.id: c.comparison.predicted for c in found.compared if c.comparison.metric == "tpot"}
    assert by["a"] == by["b"] != by["c"]


def test_drafting_pairs_across_files(tmp_path: Path) -> None:
    found = run(tmp_path, without=WITHOUT, drafted=WITH)
    (pair,) = [c.comparison for c in found.compared if c.comparison.metric == "speedup"]
    assert (pair.id, pair.file, pair.measured) == ("x", "drafted.csv", pytest.approx(14 / 9))
    plain = {(c.comparison.metric, c.comparison.statistic) for c in found.compared if c.comparison.id == "w"}
    assert plain == {("tpot", "mean"), ("tpot", "p99"), ("ttft", "mean"), ("throughput", "mean")}
    assert {s.id: s.reason for s in found.skipped} == {
        "y": "no row without MTP of the same configuration", "z": "drafted by telepathy: only MTP pairs",
    }  # fmt: skip


def test_every_kind_of_table(tmp_path: Path) -> None:
    found = run(tmp_path, speedups=SPEEDUPS, kernels=KERNELS, acceptance=ACCEPTANCE, costs=COSTS)
    assert [t.kind for t in found.tables] == ["speculation", "kernels", "acceptance", "beside"]
    metrics = Counter(c.comparison.metric for c in found.compared)
    assert metrics == {"speedup": 1, "kernel": 1, "acceptance_length": 2}
    assert len(found.skipped) == 2 and "nothing measured" in found.skipped[-1].reason


def test_processes_say_the_same(tmp_path: Path) -> None:
    tables = read_tables(write(tmp_path, served=SERVED, speedups=SPEEDUPS, kernels=KERNELS))
    heard: list[tuple[int, int]] = []
    assert validate(tables, workers=2, said=lambda *x: heard.append(x)) == validate(tables, workers=1)
    assert heard[0][0] == 0 and heard[-1][0] == heard[-1][1] - 1


@given(st.lists(st.sampled_from(SERVED.splitlines()[1:]), min_size=1, max_size=6))
@settings(max_examples=10)
def test_compared_and_skipped_cover_every_row(lines: list[str]) -> None:
    columns, rows = parse_rows((HEAD + "\n".join(lines)).encode(), "t.csv")
    from planner.validation import files

    files._number_ids(rows)
    table = files.Table("t.csv", "results", columns, rows)
    found = validate([table], workers=1)
    compared = {c.comparison.id for c in found.compared}
    skipped = [s.id for s in found.skipped]
    assert compared | set(skipped) == {r["id"] for r in rows} and len(rows) == len({r["id"] for r in rows})
    assert not compared & set(skipped) and len(skipped) == len(set(skipped))


def test_own_models_and_calibrations(tmp_path: Path) -> None:
    from planner.models import catalogue

    entry = tmp_path / "mine.toml"
    entry.write_text((catalogue.ROOT / "llama-3.1-8b.toml").read_text().replace("llama-3.1-8b", "mine"))
    table = HEAD + f"a,,,H100-SXM-80GB,1,mine,,,vllm,1,1,1,1,512,128,{RANDOM},4,,,,50,9,,,,\n"
    tables = read_tables(write(tmp_path, own=table))
    assert "unknown model" in validate(tables, workers=1).skipped[0].reason
    first = validate(tables, Facts(models=(entry,)), workers=1).compared
    assert [c.comparison.model for c in first] == ["mine", "mine"]
    slow = tmp_path / "slow.toml"
    slow.write_text('name = "slow"\n[engine.vllm]\nstep = 0.02\n')
    second = validate(tables, Facts(calibrations=(slow,), models=(entry,)), workers=1).compared
    assert second[0].comparison.predicted > first[0].comparison.predicted + 0.01
    assert "unknown model" in validate(tables, workers=1).skipped[0].reason  # and gone again


def test_where(tmp_path: Path) -> None:
    paths = write(tmp_path, served=SERVED, costs=COSTS)

    def ids(*texts: str) -> list[str]:
        return [r.get("id", "-") for t in select(read_tables(paths), parse_where(texts)) for r in t.rows]

    assert ids("mode=agg", "flag=", "parallelism_trust=ok*|AS-given") == list("abeghi")
    assert ids("flag=") == [*"abcefghijk", "-"]  # a table without the column counts as empty
    assert ids("gpu=H200*") == ["j", "k"]
    for wrong, says in (
        (["mod=agg"], "Did you mean 'mode'?"), (["mode"], "COLUMN=VALUE"), (["=x"], "COLUMN=VALUE"),
        (["mode=nobody"], "leaves no row"),
    ):  # fmt: skip
        with pytest.raises(InputError, match="--where") as caught:
            ids(*wrong)
        assert says in str(caught.value).replace("\\", "")


@pytest.mark.parametrize(("content", "says"), [
    (b"", "is empty"),
    (b"\n \n", "is empty"),
    (b"id,gpu,model,isl,osl,tpot_ms\n", "has no rows"),
    (b"id,gpu\na,b,c\n", "row of 3 cells"),
    (b"id,gpu\na\n", "row of 1 cells"),
    (b"id;gpu;model\na;b;c\n", "between ';'"),
    (b"id,gpu,gpu\na,b,c\n", "'gpu' twice"),
    (b"id,gpu\n\"a,b\n", "not a CSV file"),
    (b"id,gpu\na,\x00\n", "zero bytes"),
    ("id,gpu\nä,b\n".encode("latin-1"), "UTF-8"),
    ("id,gpu\na,b\n".encode("utf-16"), "UTF-8"),
    (b"colour,taste\nred,sweet\n", "none of the tables"),
    (b"id,gpu,model,isl,osl\na,b,c,1,1\n", "has no column one of tpot_ms"),
    (b"id,gpu,isl,osl,tpot_ms\na,b,1,1,1\n", "has no column model"),
])  # fmt: skip
def test_broken_tables_are_one_message(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_tables([file])
    assert says in str(caught.value) and "t.csv" in str(caught.value)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"without \.csv"):
        read_tables([tmp_path])
    with pytest.raises(InputError, match="no such file"):
        read_tables([tmp_path / "nowhere.csv"])
    (tmp_path / "other.csv").write_text("colour,taste\nred,sweet\n")
    with pytest.raises(InputError, match="none of the tables"):
        read_tables([tmp_path])
    found = run(tmp_path, speedups=SPEEDUPS) and validate(read_tables([tmp_path]), workers=1)
    assert [(t.name, t.kind) for t in found.tables] == [("other.csv", "unknown"), ("speedups.csv", "speculation")]
    assert len(found.skipped) == 1 and len(found.compared) == 1
    twice = read_tables([tmp_path / "speedups.csv", tmp_path / "speedups.csv"])
    assert len(twice) == 1
    (tmp_path / "more").mkdir()
    both = read_tables([tmp_path / "speedups.csv", *write(tmp_path / "more", speedups=SPEEDUPS)])
    assert len({t.name for t in both}) == 2


def test_a_byte_order_mark_and_repeated_ids(tmp_path: Path) -> None:
    lines = SERVED.splitlines()
    text = "\ufeff" + "\n".join([lines[0], lines[1], lines[1], lines[1].replace("a,", ",", 1)])
    (table,) = read_tables(write(tmp_path, t=text))
    assert [r["id"] for r in table.rows] == ["a", "a #2", "row 3"]


def test_kinds_and_routes() -> None:
    assert kind_of(["gpu", "model", "tpot_p50_ms"])[0] == "results"
    assert kind_of(["gpu", "model"])[0] == "unknown"
    assert route({"scenario": "decode-only"}) == route({"scenario": "min-latency"}) == "offline"
    assert route({"id": "mlperf51-1", "scenario": "server"}) == "mlperf"
    assert route({"scenario": "fixed-concurrency"}) == "served"


def test_the_published_table_ships_with_sources() -> None:
    tables = read_tables()
    assert {t.kind for t in tables} == {"results", "speculation", "acceptance", "kernels"}
    rows = [r for t in tables for r in t.rows]
    assert 300 <= len(rows) <= 400 and all(r["source"] for r in rows)
    (results,) = [t for t in tables if t.kind == "results"]
    assert all(r["source_date"] or "aiconfigurator" in r["source"] for r in results.rows)
    assert len({r["gpu"] for r in results.rows}) > 20 and len({r["model"] for r in results.rows}) > 25
    assert {"agg", "disagg"} <= {r["mode"] for r in results.rows}
    assert sum(p.stat().st_size for p in PUBLISHED.glob("*.csv")) < 130_000
    text = "".join(p.read_text() for p in PUBLISHED.glob("*.csv"))
    assert len(list(csv.reader(io.StringIO(text)))) == len(rows) + len(tables)


def test_groups_of_equal_points_keep_all_points() -> None:
    assert same_loops([]) == []
