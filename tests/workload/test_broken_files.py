"""Broken workload files: each gives one clear message with file, key and suggestion, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.errors import InputError
from planner.workload import load_workload

GOOD = """model = "llama-3.1-8b"
[demand]
requests_per_second = 12
[context]
p50 = 1000
p95 = 4000
[answer]
mean = 200
[slo]
ttft_p95 = "2s"
tpot_p95 = "40ms"
"""
CASES = [
    # (text to replace, replacement, what the message must contain)
    ("requests_per_second = 12", 'requests_per_second = "12"', ["demand.requests_per_second", "'12'", "a number"]),
    ("requests_per_second = 12", "requests_per_second = -3", ["demand.requests_per_second", "-3", "more than 0"]),
    ("requests_per_second = 12", "requests_per_second = nan", ["demand.requests_per_second", "nan"]),
    ("requests_per_second = 12", "requests_per_second = inf", ["demand.requests_per_second", "inf"]),
    ("requests_per_second = 12", "requests_per_second = true", ["demand.requests_per_second", "True", "number"]),
    ("requests_per_second = 12", "request_per_second = 12", ["demand.request_per_second", "unknown key", "'requests_per_second'"]),
    ("requests_per_second = 12", "requests_per_second = 12\nconcurrent_users = 5", ["demand", "twice", "exactly one"]),
    ("requests_per_second = 12", "", ["demand", "says nothing", "requests_per_second"]),
    ("requests_per_second = 12", 'trace = "t.csv"', ["demand.trace", "no such file: t.csv"]),
    ("requests_per_second = 12", "requests_per_second = 12\npeak_to_mean = 0.5", ["demand.peak_to_mean", "at least 1"]),
    ("requests_per_second = 12", "concurrent_users = 12\nthink_time = '5 sceonds'", ["demand.think_time", "sceonds", "seconds"]),
    ("[demand]", "[demnd]", ["demnd", "unknown key", "'demand'"]),
    ("p95 = 4000", "p95 = 400", ["context.p95", "not above p50", "increasing"]),
    ("p50 = 1000\np95 = 4000", "p95 = 4000", ["context", "one percentile", "p50"]),
    ("p95 = 4000", "mean = 3000", ["context", "twice", "percentiles and mean"]),
    ("p50 = 1000\np95 = 4000", "", ["context", "describes no lengths"]),
    ("p95 = 4000", "p95 = 4000\nmin = 50\nmax = 20", ["context.min", "above max"]),
    ("p95 = 4000", "p95 = 4000\ncached_fraction = 1.5", ["context.cached_fraction", "at most 1"]),
    ("p95 = 4000", 'p95 = 4000\ndistribution = "lognorml"', ["context.distribution", "'lognormal'"]),
    ("p95 = 4000", 'p95 = 4000\ndistribution = "gamma"', ["context.distribution", "mean and cv"]),
    ("p50 = 1000\np95 = 4000", 'samples = "no.csv"', ["context.samples", "no such file"]),
    ("p50 = 1000\np95 = 4000", "values = []", ["context.values", "empty"]),
    ("p50 = 1000\np95 = 4000", "histogram = { edges = [1, 2], weights = [1, 1] }", ["context.histogram", "one more edge"]),
    ("p50 = 1000\np95 = 4000", "histogram = { edges = [2, 1], weights = [1] }", ["edges", "increase"]),
    ("mean = 200", "mean = 0", ["answer.mean"]),
    ("mean = 200", 'mean = "lots"', ["answer.mean", "'lots'", "12k"]),
    ("mean = 200", "cv = 1.0", ["answer", "no lengths"]),
    ("[answer]\nmean = 200", "", ["answer", "is missing"]),
    ("[context]\np50 = 1000\np95 = 4000", "", ["context", "is missing"]),
    ('ttft_p95 = "2s"', 'ttft_p95 = "2 sceonds"', ["slo.ttft_p95", "sceonds", "2 seconds"]),
    ('ttft_p95 = "2s"', 'ttft_p95 = "fast"', ["slo.ttft_p95", "duration"]),
    ('ttft_p95 = "2s"', "ttft_p95 = 0", ["slo.ttft_p95", "more than zero"]),
    ('ttft_p95 = "2s"', 'ttft_p90 = "2s"', ["slo.ttft_p90", "unknown key", "'ttft_p9"]),
    ('tpot_p95 = "40ms"', 'tpot_p95 = "40 msec"', ["slo.tpot_p95", "msec"]),
    ('model = "llama-3.1-8b"', "", ["model", "is missing"]),
    ('model = "llama-3.1-8b"', "model = 8", ["model", "text"]),
    ('model = "llama-3.1-8b"', 'model = ""', ["model", "empty"]),
    ("[slo]", '[engine]\nname = "vlm"\n[slo]', ["engine.name", "'vllm'"]),
    ("[slo]", "[engine]\nmax_num_seqs = 0\n[slo]", ["engine.max_num_seqs", "at least 1"]),
    ("[slo]", "[engine]\nmemory_fraction = 92\n[slo]", ["engine.memory_fraction", "at most 1"]),
    ("[slo]", '[precision]\nweights = ["fp9"]\n[slo]', ["precision.weights[0]", "'fp8'"]),
    ("[slo]", '[precision]\nweights = "fp8"\n[slo]', ["precision.weights", "a list"]),
    ("[slo]", "[precision]\nweights = []\n[slo]", ["precision.weights", "empty"]),
    ("[slo]", '[objective]\nminimise = "money"\n[slo]', ["objective.minimise", "cost"]),
    ("[slo]", '[objective]\nminimize = "cost"\n[slo]', ["objective.minimize", "'minimise'"]),
    ("[slo]", '[speculation]\nmethods = ["ngram"]\n[slo]', ["speculation.methods[0]", "'n-gram'"]),
    ("[slo]", '[speculation]\ntask = "coding"\n[slo]', ["speculation.task", "'code'"]),
    ("[slo]", "[speculation]\nacceptance = [0.8, 1.4]\n[slo]", ["speculation.acceptance[1]", "at most 1"]),
    ("[slo]", "[subagents]\nfan_out = 0\n[slo]", ["subagents.fan_out", "at least 1"]),
    ("[slo]", "[subagents]\nfan_out = 2.5\n[slo]", ["subagents.fan_out", "whole number"]),
    ("[slo]", "[subagents]\nfan_out = 4\nshared_prefix = 9000\n[slo]", ["subagents.shared_prefix", "longer than the mean context"]),
    ("[slo]", "[reliability]\nspare_replicas = -1\n[slo]", ["reliability.spare_replicas", "at least 0"]),
    ("[slo]", "[hardware]\nmax_gpus = 'many'\n[slo]", ["hardware.max_gpus", "whole number"]),
    ("[slo]", "[hardware.prices]\nh100-sxm = -2\n[slo]", ["hardware.prices", "more than 0"]),
    ("[slo]", "[[requests]]\nname = 'a'\ncontext = 10\nanswer = 10\n[slo]", ["context", "beside [[requests]]"]),
    ("requests_per_second = 12", 'requests_per_second = 12\narrivals = "poison"', ["demand.arrivals", "'poisson'"]),
    ("requests_per_second = 12", 'requests_per_second = 12\narrivals = "poisson"\narrival_cv = 2', ["demand.arrivals", "arrival_cv 2", "gamma"]),
    ("requests_per_second = 12", "requests_per_second = 12\ntokens_per_day = 5", ["demand", "twice", "exactly one"]),
    ("[slo]", "[session]\nturns = 5\nappended = 100\n[slo]", ["session", "without demand.sessions"]),
    ("requests_per_second = 12", "sessions = 12\n[session]\nappended = 100", ["session.turns", "is missing"]),
    ("requests_per_second = 12", "sessions = 12\n[session]\nturns = 0.5\nappended = 100", ["session.turns", "0.5", "at least 1"]),
    ("requests_per_second = 12", "sessions = 12\n[session]\nturns = 5\nappended = 100\npauses = '3s'", ["session.pauses", "'pause'"]),
    ("requests_per_second = 12", "sessions = 12\n[session]\nturns = 5\nappended = 100\npause = '3 sceonds'", ["session.pause", "sceonds"]),
    ("requests_per_second = 12", "sessions = 12\n[session]\nturns = 5\nappended = 100\npause = { mean = '3s', cv = -1 }", ["session.pause.cv", "at least 0"]),
    ("requests_per_second = 12", "sessions = 12\n[session]\nturns = 5\nappended = 100\ncache_ttl = 0", ["session.cache_ttl", "more than zero"]),
    ("requests_per_second = 12", "sessions = 12\n[session]\nturns = { mean = 5, p50 = 3 }\nappended = 100", ["session.turns", "twice"]),
    ("[demand]", "[demand", ["not valid TOML"]),
    ("p50 = 1000", "p50 = 1000\np50 = 2000", ["not valid TOML"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "needles"), CASES, ids=[f"{i}-{c[2][0]}" for i, c in enumerate(CASES)])
def test_one_clear_message(tmp_path: Path, old: str, new: str, needles: list[str]) -> None:
    assert old in GOOD
    file = tmp_path / "workload.toml"
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_workload(file)
    message = str(caught.value)
    assert str(file) in message
    assert "\n" not in message
    assert caught.value.exit_code == 2
    for needle in needles:
        assert needle in message, message
    assert "pydantic" not in message


def test_lines_are_named(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    file.write_text(GOOD.replace('ttft_p95 = "2s"', 'ttft_p95 = "2 sceonds"'))
    with pytest.raises(InputError, match=r"w\.toml:10: slo\.ttft_p95"):
        load_workload(file)
    file.write_text(GOOD.replace("p50 = 1000", "p50 = = 1000"))
    with pytest.raises(InputError, match=r"w\.toml:5: is not valid TOML"):
        load_workload(file)


def test_files_that_are_no_workloads(tmp_path: Path) -> None:
    big = tmp_path / "big.toml"
    big.write_text("# " + "x" * 10_000_000)
    with pytest.raises(InputError, match=r"is 10\.0 MB; expected at most 1 MB"):
        load_workload(big)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b'model = "x"\n\xff\xfe')
    with pytest.raises(InputError, match=r":2: is not UTF-8"):
        load_workload(binary)
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    with pytest.raises(InputError, match="is missing"):
        load_workload(empty)
    with pytest.raises(InputError, match="no such file"):
        load_workload(tmp_path / "nothing.toml")
    with pytest.raises(InputError, match="is a folder"):
        load_workload(tmp_path)
    (tmp_path / "deep.toml").write_text("a = " + "[" * 5000)
    with pytest.raises(InputError):
        load_workload(tmp_path / "deep.toml")


def test_near_file_names_are_suggested(tmp_path: Path) -> None:
    (tmp_path / "workload.toml").write_text(GOOD)
    with pytest.raises(InputError, match="Did you mean 'workload.toml'"):
        load_workload(tmp_path / "workloads.toml")


@pytest.mark.parametrize(("setting", "says"), [
    ("demand", "key.path=value"), ("=3", "key.path=value"), ("demand.requests_per_second.x=3", "is not a table"),
    ("demand.rps=3", "unknown key"), ("requests.0.share=3", "requests"), ("model.name=3", "is not a table"),
])  # fmt: skip
def test_broken_settings(setting: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_workload("w.toml", [setting], text=GOOD)


@pytest.mark.parametrize(("settings", "key", "says"), [
    (["demand.requests_per_second=1e300"], "demand.requests_per_second", "at most"),
    (["demand.arrival_cv=1e6"], "demand.arrival_cv", "at most"),
    (["demand.peak_to_mean=1e9"], "demand.peak_to_mean", "at most"),
    (["subagents.fan_out=1000000"], "subagents.fan_out", "at most"),
    (["speculation.acceptance_length=inf"], "speculation.acceptance_length", ""),
    (["context.max=100"], "context.p50", "above max"),
    (["context.min=1e6"], "", ""),
    (['slo.ttft_p99="1ms"'], "slo.ttft_p99", "ttft_p95"),
    (["speculation.acceptance=[0.8]", "speculation.acceptance_length=2.0"], "speculation.acceptance_length", "beside"),
])  # fmt: skip
def test_numbers_nobody_means(settings: list[str], key: str, says: str) -> None:
    from planner.workload.examples import example_path

    with pytest.raises(InputError) as caught:
        load_workload(example_path("chat"), settings)
    assert key in str(caught.value)
    assert says in str(caught.value)
