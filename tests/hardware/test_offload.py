"""Tiers that hold evicted KV: what is shipped, and what a mistake in the file says."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from planner.documents import parse_toml
from planner.errors import InputError
from planner.hardware.database import database_root
from planner.hardware.offload import load_offload, offload_tier, parse_offload

GOOD = '[host]\nbandwidth = { value = 50, unit = "GB/s", kind = "derived", source = "a bus", date = "2026-01-01" }\n'


def test_shipped_tiers_have_sources_and_order() -> None:
    tiers = load_offload(database_root())
    for tier in tiers.values():
        assert tier.source and tier.kind
        assert datetime.date.fromisoformat(tier.date) <= datetime.date.today()
        assert 1e9 <= tier.bandwidth <= 1e12
    by_speed = ["nvme-pcie4", "nvme-pcie5", "host-pcie4", "host-pcie5", "host-c2c"]
    assert sorted(tiers, key=lambda name: tiers[name].bandwidth) == by_speed


def test_units_become_bytes_per_second() -> None:
    tiers = parse_offload(parse_toml(GOOD, "mine.toml"))
    assert tiers["host"].bandwidth == 50e9
    assert parse_offload(parse_toml(GOOD.replace("GB/s", "MB/s"), "mine.toml"))["host"].bandwidth == 50e6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 1\n", "has no tier"),
        ("[host]\n", r"mine.toml:1: host.bandwidth: is missing"),
        ("host = 3\n", r"mine.toml:1: host: is 3; expected a table"),
        (GOOD.replace("50", "-50"), r"mine.toml:2: host.bandwidth.value: is -50"),
        (GOOD.replace("GB/s", "Gb/s"), r"mine.toml:2: host.bandwidth.unit.*Did you mean 'GB/s'"),
        (GOOD.replace("derived", "guessed"), r"host.bandwidth.kind: is 'guessed'"),
        (GOOD.replace("source", "sauce"), r"unknown key.*Did you mean 'source'"),
    ],
)
def test_mistakes_are_one_line_with_a_place(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_offload(parse_toml(text, "mine.toml"))
    assert "\n" not in str(caught.value)


def test_missing_file_and_unknown_tier(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_offload(tmp_path)
    with pytest.raises(InputError, match="Did you mean 'host-pcie5'"):
        offload_tier(load_offload(database_root()), "host-pci5")
