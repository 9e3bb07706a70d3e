"""Broken files of every kind through the command line: one line with the place, exit 2, nothing on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.hardware.database import database_root

Run = Callable[..., tuple[int, str, str]]
WORKLOAD = """model = "llama-3.1-8b"
[demand]
requests_per_second = 12
[context]
p50 = 1000
p95 = 4000
[answer]
mean = 200
[hardware]
allow = ["h100-sxm"]
"""
CHIP = (database_root() / "accelerators" / "h100-sxm.toml").read_text(encoding="utf-8")
PRICES = (database_root() / "prices" / "lambda.toml").read_text(encoding="utf-8")
MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
}  # fmt: skip
WORKLOADS = [
    ('"llama-3.1-8b"', '"lama-3.1-8b"', "w.toml:1: model: unknown model", "Did you mean 'llama-3.1-8b'"),
    ('"llama-3.1-8b"', '"a\\nb"', "w.toml:1: model:", r"'a\nb'"),
    ('"h100-sxm"', '"h100-smx"', "w.toml:10: hardware.allow[0]: unknown accelerator", "Did you mean 'h100-sxm'"),
    ("allow", 'deny = ["b20"]\nallow', "w.toml:10: hardware.deny[0]", "Did you mean 'b200'"),
    ("allow", "prices = { h10000 = 2 }\nallow", "w.toml:10: hardware.prices.h10000", "unknown accelerator"),
    ("allow", 'providers = ["Lamda"]\nallow', "w.toml:10: hardware.providers", "Did you mean 'Lambda'"),
    ("[answer]", '[speculation]\ndraft_model = "nope"\n[answer]', "speculation.draft_model", "unknown model"),
    ("[demand]", "[Demand]", "Demand: unknown key", "Did you mean 'demand'"),
    ("= 12", "= 12\n[Foo]", "Foo: unknown key", "expected one of"),
    ("= 12", "= 2024-01-01", "demand.requests_per_second: is '2024-01-01'", "a number"),
    ("= 12", "= " + "9" * 40, "demand.requests_per_second", "64 bits"),
    ("= 12", "= " + "9" * 5000, "w.toml", "thousands of digits"),
    ("= 12", "= " + "[" * 300 + "]" * 300, "demand.requests_per_second", "…"),
    ("= 12", "= " + "[" * 100_000, "w.toml", "nested too deeply"),
    ("p50 = 1000", "p50 = 1e-300", "context.p50", "0.001 to 1e+12"),
    ("p50 = 1000\np95 = 4000", "mean = 1e300", "context.mean", "0.001 to 1e+12"),
    ("mean = 200", 'mean = 200\n"a\\nb\\u001b[31m" = 1', r"answer.a\nb\x1b[31m", "unknown key"),
    ("mean = 200", "mean = 200\n" + "k" * 100_000 + " = 1", "kkk…kkk", "unknown key"),
    ("mean = 200", "mean = 200\n[slo]\nttft_p95 = 1e-300", "slo.ttft_p95", "1e-09"),
    ("mean = 200", "mean = 200\n[answer]\nmean = 3", "is not valid TOML", "w.toml:9"),
    ("p50 = 1000\np95 = 4000", 'samples = "."', "w.toml:5: context.samples", "no such file"),
]
CHIPS = [
    ("value = 80,", "value = -80,", "memory.capacity.value", "positive"),
    ("value = 80,", "value = nan,", "memory.capacity.value", "finite"),
    ("value = 80,", 'value = "80",', "memory.capacity.value", "a number"),
    ("value = 80,", "value = 1e300,", "memory.capacity.value", "at most"),
    ("value = 80,", "valeu = 80,", "memory.capacity.valeu", "Did you mean 'value'"),
    ('unit = "GB/s"', 'unit = "GBps"', "memory.bandwidth.unit", "Did you mean 'GB/s'"),
    ("[memory]", "[memery]", "memery", "Did you mean 'memory'"),
    ('name = "h100-sxm"', 'name = ""', "name", "letters"),
    ('name = "h100-sxm"', 'name = "../x"', "name", "letters"),
    ('kind = "datasheet"', 'kind = "datasheets"', "kind", "Did you mean 'datasheet'"),
]
PRICE_ROWS = [
    ("usd_per_gpu_hour = 1.29", "usd_per_gpu_hour = -1", "prices[0].usd_per_gpu_hour", "positive"),
    ("usd_per_gpu_hour = 1.29", "usd_per_hour = 1.29", "prices[0].usd_per_hour", "Did you mean 'usd_per_gpu_hour'"),
    ('term = "on-demand"', 'term = "on demand"', "prices[0].term", "Did you mean 'on-demand'"),
    ("gpus = 1\n", "gpus = 1.5\n", "prices[0].gpus", "a whole number"),
    ('provider = "Lambda"', "", "provider", "is missing"),
]
CONFIGS = [
    ({"hidden_size": "4096"}, "hidden_size", "a whole number"),
    ({"num_hidden_layers": -1}, "num_hidden_layers", "-1"),
    ({"vocab_size": float("nan")}, "vocab_size", "nan"),
    ({"num_attention_heads": 10**30}, "num_attention_heads", "1"),
    ({"architectures": ["FooForCausalLM"], "model_type": "foo"}, "FooForCausalLM", "known"),
]
CONTENTS = [
    (b"", "missing"), (b"\x1f\x8b\x08\xff\xfe", "not UTF-8"), ("a = 1".encode("utf-16"), "not UTF-8"),
    (b"a = = 1", "not valid TOML"), (b"#" * 10_000_000, "is 10.0 MB"), (b"a\0 = 1", "not valid TOML"),
]  # fmt: skip
READERS = {
    "workload": ["recommend"],
    "chip": ["list", "gpus", "--gpus", "h100-sxm", "--hardware-db"],
    "prices": ["list", "prices", "--prices"],
}


def one_line(result: tuple[int, str, str], *needles: str) -> None:
    code, out, err = result
    assert code == 2, err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "internal" not in err
    assert len(err) < 1500
    for needle in needles:
        assert needle in err


@pytest.mark.parametrize(
    ("old", "new", "place", "says"), WORKLOADS, ids=[f"{i}-{c[2]}" for i, c in enumerate(WORKLOADS)]
)
def test_workloads(run: Run, tmp_path: Path, old: str, new: str, place: str, says: str) -> None:
    assert old in WORKLOAD
    (tmp_path / "w.toml").write_text(WORKLOAD.replace(old, new, 1))
    one_line(run("recommend", tmp_path / "w.toml"), place, says)


@pytest.mark.parametrize(
    ("kind", "old", "new", "place", "says"),
    [("chip", *case) for case in CHIPS] + [("prices", *case) for case in PRICE_ROWS],
)
def test_facts(run: Run, tmp_path: Path, kind: str, old: str, new: str, place: str, says: str) -> None:
    text = CHIP if kind == "chip" else PRICES
    assert old in text
    file = tmp_path / "w.toml"
    file.write_text(text.replace(old, new, 1))
    one_line(run(*READERS[kind], file), "w.toml", place, says)


@pytest.mark.parametrize("achieved", ["3", "{ matmul = 3 }", "{ matmul = { bf16 = 3 } }", "{ all_reduce = [1] }"])
def test_efficiencies_that_are_no_tables(run: Run, tmp_path: Path, achieved: str) -> None:
    (tmp_path / "w.toml").write_text(f'name = "x1"\nvendor = "x"\nachieved = {achieved}\n')
    one_line(run(*READERS["chip"], tmp_path / "w.toml"), "w.toml:3: achieved", "a table")


@pytest.mark.parametrize(("fields", "place", "says"), CONFIGS)
def test_configs(run: Run, tmp_path: Path, fields: dict[str, object], place: str, says: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MODEL | fields))
    one_line(run("show", "model", tmp_path), str(tmp_path), place, says)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(("content", "says"), CONTENTS, ids=[says for _, says in CONTENTS])
def test_contents(run: Run, tmp_path: Path, kind: str, content: bytes, says: str) -> None:
    (tmp_path / "w.toml").write_bytes(content)
    one_line(run(*READERS[kind], tmp_path / "w.toml"), "w.toml", says)


def test_a_model_entry_that_is_none(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    for content, says in ((b"\xff\xfe", "not UTF-8"), (b"published = 3", "published"), (b'aliases = "x"', "aliases")):
        file.write_bytes(content)
        one_line(run("list", "models", "--models", file), "w.toml", says)
    one_line(run("list", "models", "--models", tmp_path / "nowhere"), "no such file")


@pytest.mark.parametrize("kind", READERS)
def test_places_that_are_no_files(run: Run, tmp_path: Path, kind: str) -> None:
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    for name in ("loop.toml", "none.toml", "x" * 3000):
        one_line(run(*READERS[kind], tmp_path / name))


def test_harmless_spellings_are_read(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    for content in (b"\xef\xbb\xbf" + WORKLOAD.encode(), WORKLOAD.replace("\n", "\r\n").encode()):
        file.write_bytes(content)
        assert run("recommend", file)[0] == 0


@pytest.mark.parametrize(("setting", "says"), [
    ("demand.requests_per_second=abc", "--set: demand.requests_per_second: is 'abc'"),
    ("demand..requests_per_second=3", "key.path=value"),
    ("demand.requests_per_second=1\nx=2", "demand.requests_per_second"),
    ("hardware.allow=h100-sxm", "--set: hardware.allow: is 'h100-sxm'; expected a list"),
    ("requests[0].name=x", "no entry 0 in requests"), ("hardware.allow[1]=x", "no entry 1 in hardware.allow"),
    ("demand[0]=3", "demand is not a list"), ('hardware.allow=["h100-smx"]', "--set: hardware.allow[0]"),
    ("slo.ttft_p95=1979-01-01", "--set: slo.ttft_p95"), ("demand.requests_per_second=" + "9" * 30, "64 bits"),
])  # fmt: skip
def test_settings(run: Run, tmp_path: Path, setting: str, says: str) -> None:
    (tmp_path / "w.toml").write_text(WORKLOAD)
    one_line(run("recommend", tmp_path / "w.toml", "--set", setting), says)


@pytest.mark.parametrize(("option", "value", "says"), [
    ("--gpus", "h100-smx", "--gpus: unknown accelerator"), ("--gpus", ",", "names no accelerator"),
    ("--gpus", "", "names no accelerator"), ("--price", "h1000=2", "--price: unknown accelerator"),
    ("--price", "h100-sxm=nan", "is not a price"), ("--top", "-1", "--top"), ("--fail-over-budget", "nan", "--fail-over"),
    ("--format", "jsn", "json"),
])  # fmt: skip
def test_options(run: Run, tmp_path: Path, option: str, value: str, says: str) -> None:
    (tmp_path / "w.toml").write_text(WORKLOAD)
    one_line(run("recommend", tmp_path / "w.toml", option, value), says)


@pytest.mark.parametrize("asked", [
    ["--batch", 0, "--context", 1], ["--batch", "nan", "--context", 1], ["--batch", 1, "--context", 0.5],
    ["--input-tokens", 1, "--output-tokens", 0.1, "--offline"], ["--tp", 0, "--batch", 1, "--context", 1],
    ["--tp", 64, "--batch", 1, "--context", 1], ["--ep", 8, "--batch", 1, "--context", 1],
    ["--weights", "fp9", "--batch", 1, "--context", 1], ["--engine", "vlm", "--batch", 1, "--context", 1],
])  # fmt: skip
def test_estimates(run: Run, asked: list[object]) -> None:
    one_line(run("estimate", "-m", "llama-3.1-8b", "-g", "h100-sxm", *asked))
