"""The hardware database: what must be there, fallbacks, overlays, and planted mistakes."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from planner.errors import InputError
from planner.hardware import Database, load_database, parse_price_options
from planner.hardware.check import check_database

GOOD = """
schema = 1
name = "my-chip"
vendor = "House"
architecture = "X1"
aliases = ["mc"]
[memory]
capacity = { value = 64, unit = "GB", kind = "datasheet", source = "D" }
bandwidth = { value = 3, unit = "TB/s", kind = "datasheet", source = "D" }
[compute]
bf16 = { value = 500, unit = "TFLOP/s", kind = "datasheet", source = "D" }
[interconnect]
domain = { value = 4, unit = "accelerators", kind = "datasheet", source = "D" }
scale_up = { value = 300, unit = "GB/s", kind = "datasheet", source = "D" }
[[sources]]
key = "D"
citation = "the datasheet"
retrieved = "2026-01-01"
"""


#: a further peak, and an all-reduce, to plant into it
FORMAT = '{} = {{ value = {}, unit = "TFLOP/s", kind = "datasheet", source = "D" }}\n'
REDUCE = (
    '[achieved.all_reduce.vllm.4]\nlatency_us = 4\nbandwidth_gbs = {}\nkind = "measured"\nsource = "{}"\n[[sources]]'
)


def overlay(folder: Path, text: str, name: str = "my-chip.toml") -> Database:
    (folder / name).write_text(text)
    return load_database([folder])


def test_what_must_be_offered(database: Database) -> None:
    chips = database.accelerators
    assert len(chips) >= 45
    assert sum(c.plannable for c in chips.values()) >= 45
    for name in ("h100-sxm", "h200-sxm", "b200-sxm", "b300-sxm", "gb200-nvl72", "gb300-nvl72", "a100-sxm-80gb", "l4",
                 "l40s", "a10", "rtx-pro-6000", "rtx-4090", "mi250x", "mi300x", "mi325x", "mi355x", "tpu-v5e", "tpu-v7x",
                 "trainium1", "trainium2", "trainium3", "inferentia2", "gaudi2", "gaudi3", "cerebras-wse3",
                 "groq-lpu-v1"):  # fmt: skip
        assert name in chips
    providers = {p.provider for p in database.prices.of("h100-sxm") if p.kind == "list"}
    assert len(providers) >= 3
    assert {e.family for e in database.engines.values()} == {"vllm", "sglang", "trtllm", "generic"}


def test_everything_has_a_source_and_fits_have_residuals(database: Database) -> None:
    assert check_database(database) == []
    for chip in database.accelerators.values():
        for formats in chip.achieved.values():
            for engines in formats.values():
                for e in engines.values():
                    if e.kind == "measured":
                        assert e.residual is not None or e.source == "MAMF"
                    else:  # taken over from measured parts of the same family
                        assert any(
                            formats is chip.achieved.get(o) for o in ("latent_attention", "sparse_attention", "indexer")
                        )
                        assert e.residual is None


@pytest.mark.parametrize(
    ("name", "bf16", "fp8", "bandwidth"),
    [("h100-sxm", 989e12, 1979e12, 3.35e12), ("l4", 121e12, 242e12, 300e9), ("l40s", 362e12, 733e12, 864e9),
     ("h200-sxm", 989e12, 1979e12, 4.8e12), ("b200-sxm", 2250e12, 4500e12, 8e12), ("mi300x", 1307.4e12, 2614.9e12, 5.3e12),
     ("mi355x", 2516e12, 5033e12, 8e12)],
)  # fmt: skip
def test_peaks_are_dense(database: Database, name: str, bf16: float, fp8: float, bandwidth: float) -> None:
    chip = database.accelerator(name)
    assert (chip.peak("bf16"), chip.peak("fp8"), chip.bandwidth) == (bf16, fp8, bandwidth)


def test_names_aliases_and_suggestions(database: Database) -> None:
    assert database.accelerator("H100").name == "h100-sxm"
    assert database.accelerator("nvidia-b200-sxm").name == "b200-sxm"
    with pytest.raises(InputError, match="Did you mean 'h100-sxm'"):
        database.accelerator("h100-smx")
    with pytest.raises(InputError, match="unknown accelerator"):
        database.accelerator("../engines/vllm")


def test_formats_a_chip_computes_in(database: Database) -> None:
    hopper, ampere, blackwell = (database.accelerator(n) for n in ("h100", "a100", "b200"))
    assert hopper.compute_format("fp8-block") == "fp8"
    assert ampere.compute_format("fp8") == "bf16"
    assert hopper.compute_format("mxfp4") == "bf16"
    assert blackwell.compute_format("nvfp4") == "fp4"


def test_fallback_chain(database: Database) -> None:
    h100 = database.accelerator("h100")
    own = h100.efficiency("matmul", "bf16", "vllm")
    assert own.kind == "measured"
    engines = h100.achieved["matmul"]["bf16"].values()
    middle = h100.efficiency("matmul", "bf16", "generic")
    assert min(e.compute for e in engines) <= middle.compute <= max(e.compute for e in engines)
    # no vLLM fit of block fp8 (host time in the table): the median of the other engines
    assert h100.efficiency("matmul", "fp8-block", "vllm").kind == "measured"
    tpu = database.accelerator("tpu-v6e")
    assert tpu.efficiency("matmul", "bf16").kind == "derived"
    assert tpu.efficiency("decode_attention", "fp8").memory > 0
    with pytest.raises(KeyError):
        h100.efficiency("teleport", "bf16")


def test_all_reduce_measured_and_derived(database: Database) -> None:
    h100 = database.accelerator("h100").all_reduce(8, "vllm")
    assert (h100.kind, round(h100.latency_s * 1e6, 1)) == ("measured", 5.4)
    mi300x = database.accelerator("mi300x")
    assert mi300x.all_reduce(2).bandwidth < mi300x.all_reduce(8).bandwidth
    far = database.accelerator("gb200").all_reduce(64)
    assert far.kind == "derived"
    assert far.latency_s > database.accelerator("gb200").all_reduce(16).latency_s


def test_price_rule(database: Database) -> None:
    price = database.price("h100-sxm")
    assert price is not None
    assert price.term == "on-demand"
    assert price.kind == "list"
    listed = sorted(
        {
            p.provider: p.usd_per_gpu_hour for p in reversed(database.prices.of("h100-sxm")) if p.term == "on-demand"
        }.values()
    )
    assert listed[0] < price.usd_per_gpu_hour < listed[-1]
    assert database.price("mi325x") is None
    rental = database.price("mi325x", term="3yr rental")
    assert rental is not None
    mine = database.price("h100-sxm", override=2.49)
    assert mine is not None
    assert (mine.usd_per_gpu_hour, mine.provider) == (2.49, "user")
    named = database.price("h100-sxm", providers=["aws"])
    assert named is not None
    assert named.provider == "AWS"


def test_price_options() -> None:
    assert parse_price_options(["h100-sxm=2.49", "b200=5"]) == {"h100-sxm": 2.49, "b200": 5.0}
    for bad in ("h100", "h100=", "h100=free", "h100=-1", "=2", "h100=nan"):
        with pytest.raises(InputError, match="is not a price"):
            parse_price_options([bad])


def test_user_chip(tmp_path: Path) -> None:
    chip = overlay(tmp_path, GOOD).accelerator("MC")
    assert (chip.memory_bytes, chip.bandwidth, chip.scale_up_domain) == (64e9, 3e12, 4)
    assert chip.efficiency("matmul", "bf16").kind == "derived"


def test_user_chip_replaces_a_bundled_one(tmp_path: Path) -> None:
    text = GOOD.replace('"my-chip"', '"l4"').replace('aliases = ["mc"]\n', "")
    assert overlay(tmp_path, text).accelerator("l4").bandwidth == 3e12


def test_user_prices(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'provider = "House"\n[[prices]]\naccelerator = "h100-sxm"\nusd_per_gpu_hour = 1.5\nas_of = "2026-10-01"\nsource = "contract"\n'
    )
    price = load_database(prices=[file]).price("h100-sxm")
    assert price is not None
    assert (price.usd_per_gpu_hour, price.provider) == (1.5, "House")


@pytest.mark.parametrize(("old", "new", "says"), [
    ('value = 3, unit = "TB/s"', 'value = 3, unit = "TB/sec"', "memory.bandwidth.unit.*Did you mean 'TB/s'"),
    ("value = 3,", "value = -3,", "memory.bandwidth.value: is -3"),
    ("value = 3,", "value = nan,", "is nan"),
    ("value = 3,", 'value = "3",', "a number"),
    ("value = 3,", "", "memory.bandwidth.value: is missing"),
    ("bandwidth =", "bandwith =", "memory.bandwith: unknown key.*Did you mean 'bandwidth'"),
    ('kind = "datasheet"', 'kind = "datasheat"', "Did you mean 'datasheet'"),
    ("bandwidth = {", "bandwidth = 3000 # {", "memory.bandwidth: is 3000"),
    ('name = "my-chip"', "", "name: is missing"),
    ('name = "my-chip"', "name = 7", "name: is 7"),
    ('vendor = "House"', "", "vendor: is missing"),
    ("[compute]", "[compute", "not valid TOML"),
    ("bf16 =", "bf17 =", "compute.bf17: unknown key.*Did you mean 'bf16'"),
    ('aliases = ["mc"]', 'aliases = "mc"', "a list of names"),
    ("[[sources]]", "[achieved.matmul.bf16.vllm]\ncompute = 1.4\nkind='measured'\nsource='D'\n[[sources]]", "at most 1"),
    ("[[sources]]", "[achieved.matmull.bf16.vllm]\ncompute = 0.4\n[[sources]]", "Did you mean 'matmul'"),
    ("[[sources]]", "[achieved.matmul.bf61.vllm]\ncompute = 0.4\n[[sources]]", "unknown format.*Did you mean 'bf16'"),
    ("value = 500,", "value = nan,", "compute.bf16.value: is nan; expected a finite number"),
    ("value = 500,", "value = inf,", "compute.bf16.value: is inf"),
    ("value = 500,", 'value = "500",', "compute.bf16.value: is '500'"),
    (', source = "D" }\nbandwidth', " }\nbandwidth", "memory.capacity.source: is missing"),
    ('kind = "datasheet", source = "D" }\nbandwidth', 'kind = "rumour", source = "D" }\nbandwidth', "is 'rumour'"),
    ('source = "D" }\nbandwidth', 'sourse = "D" }\nbandwidth', "Did you mean 'source'"),
    ('value = 300, unit = "GB/s"', 'value = 2400, unit = "Gb/s"', "scale_up.unit: is 'Gb/s'.*Did you mean 'GB/s'"),
    ('unit = "TB/s"', 'unit = "GB"', "memory.bandwidth.unit: is 'GB'"),
    ("value = 4, unit", "value = 4.5, unit", "domain.value: is 4.5; expected a whole number"),
    ('retrieved = "2026-01-01"', 'retrieved = "yesterday"', "is 'yesterday'; expected a date"),
    ("schema = 1", "schema = 9", "schema: is 9"),
    ("schema = 1", 'schema = 1\nreleased = "soon"', "released: is 'soon'; expected a year"),
    ("[[sources]]", "[achieved.all_reduce.vlm.4]\nlatency_us = 4\n[[sources]]", "unknown library.*Did you mean 'vllm'"),
    ("[[sources]]", "[achieved.all_reduce.vllm.1]\nlatency_us = 4\n[[sources]]", "group size"),
    ("[[sources]]", "[achieved.all_reduce.vllm.eight]\nlatency_us = 4\n[[sources]]", "group size"),
])  # fmt: skip
def test_broken_hardware_files(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(InputError, match=says) as caught:
        _ = overlay(tmp_path, GOOD.replace(old, new)).accelerators
    assert "my-chip.toml" in str(caught.value)


@pytest.mark.parametrize(("text", "says"), [
    ('provider = "X"\n', "prices: has no rows"),
    ('[[prices]]\naccelerator = "h100-sxm"\n', "provider: is missing"),
    ('provider = "X"\n[[prices]]\naccelerator = "h100-sxm"\nusd_per_gpu_hour = -1\nas_of = "2026"\nsource = "s"\n', "is -1"),
    ('provider = "X"\n[[prices]]\naccelerator = "h100-smx"\nusd_per_gpu_hour = 1\nas_of = "2026"\nsource = "s"\n', "h100-sxm"),
    ('provider = "X"\n[[prices]]\naccelerator = "h100-sxm"\nusd_per_gpu_hour = 1\nas_of = "2026"\nsource = "s"\nterm = "spott"\n', "spot"),
    ('provider = "X"\n[[prices]]\naccelerator = "h100-sxm"\nusd = 1\n', "usd_per_gpu_hour"),
])  # fmt: skip
def test_broken_price_files(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=says):
        _ = load_database(prices=[file]).prices


@pytest.mark.parametrize(("old", "new", "key"), [
    ("bf16 = { value = 500,", "fp8 = { value = 2000, unit = \"TFLOP/s\", kind = \"datasheet\", source = \"D\" }\nbf16 = { value = 500,", "compute.fp8"),
    ("value = 500,", "value = 5000,", "compute.bf16"),
    ('source = "D" }\nbandwidth', 'source = "E" }\nbandwidth', "memory.capacity"),
    ('retrieved = "2026-01-01"', 'retrieved = "2096-01-01"', "sources.D"),
    ('aliases = ["mc"]', 'aliases = ["h100"]', "aliases"),
    ('aliases = ["mc"]', 'aliases = ["b200-sxm"]', "aliases"),
    ("value = 500,", "value = 5,", "compute.bf16"),
    ("bf16 = {", FORMAT.format("tf32", 125) + "bf16 = {", "compute.bf16"),
    ("bf16 = {", FORMAT.format("int8", 2000) + "bf16 = {", "compute.int8"),
    ("bf16 = {", FORMAT.format("fp6", 4000) + "bf16 = {", "compute.fp6"),
    ("bf16 = {", FORMAT.format("fp4", 9000) + "bf16 = {", "compute.fp4"),
    ('value = 3, unit = "TB/s"', 'value = 3, unit = "GB/s"', "memory.bandwidth"),
    ('value = 3, unit = "TB/s"', 'value = 3000, unit = "TB/s"', "memory.bandwidth"),
    ("[[sources]]", '[power]\ntdp = { value = 700, unit = "kW", kind = "datasheet", source = "D" }\n[[sources]]', "power.tdp"),
    ("bandwidth =", 'usable = { value = 99, unit = "GiB", kind = "measured", source = "D" }\nbandwidth =', "memory.usable"),
    ('citation = "the datasheet"', 'citation = " "', "sources.D"),
    ("[[sources]]", REDUCE.format(90, "Z"), "achieved.all_reduce.vllm.4"),
    ("[[sources]]", REDUCE.format(9000, "D"), "achieved.all_reduce.vllm.4"),
    ("[[sources]]", '[achieved.matmul.bf16.vllm]\ncompute = 0.5\nkind="measured"\nsource="Z"\n[[sources]]', "achieved.matmul.bf16.vllm"),
    ('capacity = { value = 64, unit = "GB", kind = "datasheet", source = "D" }\n', "", "memory"),
])  # fmt: skip
def test_planted_traps_are_found(tmp_path: Path, old: str, new: str, key: str) -> None:
    assert old in GOOD
    found = check_database(overlay(tmp_path, GOOD.replace(old, new)))
    assert any(p.key == key for p in found), found


def test_a_sound_part_has_no_problem(tmp_path: Path) -> None:
    assert check_database(overlay(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    "name", ["h100-sxm", "h200-sxm", "a100-sxm-80gb", "b200-sxm", "l4", "l40s", "mi300x", "mi355x"]
)
def test_all_peaks_doubled_are_caught(tmp_path: Path, database: Database, name: str) -> None:
    """Every peak as the vendor's sparse one: nothing inside the file contradicts it, the bundled part does."""
    text = (database.root / "accelerators" / f"{name}.toml").read_text()
    doubled = re.sub(
        r"^((?:fp|bf|tf|int)\d+ = \{ value = )([\d.]+)", lambda m: f"{m[1]}{2 * float(m[2])}", text, flags=re.M
    )
    assert doubled != text
    found = {p.key for p in check_database(overlay(tmp_path, doubled, f"{name}.toml")) if p.severity == "error"}
    assert {f"compute.{f}" for f in ("bf16", "fp8", "int8") if database.accelerators[name].peak(f)} <= found


def test_sparse_l4_and_h100_are_caught(tmp_path: Path, database: Database) -> None:
    for name, old, new in (("l4", "value = 242", "value = 485"), ("h100-sxm", "bf16 = { value = 989", "bf16 = { value = 1979"),
                           ("l40s", "fp8 = { value = 733", "fp8 = { value = 1466")):  # fmt: skip
        text = (database.root / "accelerators" / f"{name}.toml").read_text()
        assert old in text
        folder = tmp_path / name
        folder.mkdir()
        found = check_database(overlay(folder, text.replace(old, new), f"{name}.toml"))
        assert any(name in p.file and p.key.startswith("compute") for p in found), name


def test_missing_overlay() -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        load_database([Path("nowhere")])


def test_engine_defaults(database: Database) -> None:
    vllm = database.engine("vllm")
    assert (vllm.memory_fraction, vllm.max_num_seqs(80e9), vllm.max_num_seqs(24e9)) == (0.92, 1024, 256)
    assert [vllm.max_batched_tokens(m) for m in (24e9, 85e9, 180e9)] == [2048, 8192, 16384]
    with pytest.raises(InputError, match="vllm"):
        database.engine("vlm")
    assert math.isclose(vllm.activation_bytes(8192, 8192, 8), 2 * 8192 * 8192 * 5)
