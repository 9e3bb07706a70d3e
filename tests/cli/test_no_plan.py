"""A workload nothing fits: every command that plans says the same and ends in the same exit code."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from planner.errors import NoPlanError
from planner.hardware import Database
from planner.sizing.nearest_miss import no_aggregated_plan
from planner.sizing.recommend import find, recommend
from planner.workload import load_workload
from planner.workload.examples import example_path

Run = Callable[..., tuple[int, str, str]]
HERE = example_path("infeasible")
FEWER = ("--gpus", "h100-sxm,b200-sxm")
#: commands, and whether they print a result before the error
COMMANDS = {
    "recommend": (("recommend", HERE), True),
    "compare gpus": (("compare", "gpus", "--workload", HERE), True),
    "diff": (("diff", HERE, HERE, "--set-b", "demand.requests_per_second=2"), True),
    "explain": (("explain", HERE), False),
    "cost": (("cost", HERE), False),
    "sensitivity": (("sensitivity", HERE), False),
    "speculate": (("speculate", HERE), False),
    "fanout": (("fanout", HERE), False),
    "speed": (("speed", HERE, "--target", "2x"), False),
    "simulate": (("simulate", HERE), False),
}


def test_the_message_names_the_miss(run: Run) -> None:
    code, out, err = run("recommend", HERE, *FEWER, "--format", "json")
    assert code == NoPlanError.exit_code == 3
    miss = json.loads(out)["nearest_miss"]
    assert miss["constraint"] == "tpot_p95"
    assert err == f"error: no feasible plan: {miss['statement']}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_the_same(run: Run, name: str) -> None:
    wanted = run("recommend", HERE, *FEWER, "--no-simulate")[2]
    command, prints = COMMANDS[name]
    code, out, err = run(*command, *FEWER, "--format", "json")
    assert code == 3
    assert err.splitlines()[-1:] == wanted.splitlines()
    assert bool(out) == prints
    if prints:
        json.loads(out)


def test_a_sweep_says_it_of_its_points(run: Run) -> None:
    wanted = run("recommend", HERE, *FEWER)[2].partition("no feasible plan: ")[2]
    code, _, err = run("sweep", HERE, "--sweep", "demand.requests_per_second=1,2", *FEWER, "--format", "json")
    assert code == 3
    assert err.endswith(f"error: no feasible plan at any of 2 points: {wanted}")


TWO_POOLS = """
model = "llama-3.1-8b"
[demand]
requests_per_second = 20
[context]
mean = 3000
distribution = "constant"
[answer]
mean = 200
[slo]
ttft_p95 = "2s"
{limit}
[speculation]
enabled = false
[hardware]
allow = ["h100-sxm"]
"""


def test_pools_nobody_can_build_are_named(database: Database) -> None:
    """Replicas that do both keep the limits here: the miss is of the pools that were asked for."""
    workload = load_workload(
        "w", ['serving.mode="disaggregated"', "hardware.max_gpus=1", "reliability.spare_replicas=0",
              "demand.requests_per_second=1"], text=TWO_POOLS.format(limit="")
    )  # fmt: skip
    result = recommend(workload, database, simulate=False)
    assert result.plan is None
    assert result.nearest_miss is not None
    assert result.nearest_miss.constraint == "serving.mode"
    assert "pools" in result.nearest_miss.statement


def test_a_decision_of_replicas_that_do_both_says_so_where_pools_would_do(database: Database) -> None:
    """Short gaps between tokens beside long prompts: pools keep them with half the accelerators."""
    few = ["hardware.max_gpus=20", "demand.requests_per_second=60"]
    workload = load_workload("w", few, text=TWO_POOLS.format(limit='tpot_p95 = "9ms"'))
    found = find(workload, database)
    assert not found.found
    assert recommend(workload, database, simulate=False).plan is not None
    assert str(no_aggregated_plan(found)).startswith("no feasible plan whose replicas both prefill and decode: ")
