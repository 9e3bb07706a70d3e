"""Closed forms against the simulator: ``python -m bench.closed_forms`` writes bench/data/closed_forms.csv.

``--closed`` evaluates only the closed forms anew, against the simulations in the file; names of workloads
limit it to those. Every point is simulated with several seeds until half the 95 % interval of each simulated
figure is below a third of what the closed form may be off. Takes some minutes; docs/generate.py writes
docs/closed-forms.md from the file.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.closed_form_cases import CASES, WORKLOADS, Case
from planner.hardware import load_database
from planner.serving.simulator import run_replica
from planner.serving.validity import OCCUPANCY, TPOT, TTFT, simulated_only
from planner.sizing.operating import Rows
from planner.sizing.replica import ReplicaModel
from planner.sizing.replica_simulation import draft_acceptance, draw_traffic, replica_limits, replica_step_time
from planner.sizing.search import Search, Sized, search
from planner.workload import load_workload
from planner.workload.examples import example_path, examples

Vector = npt.NDArray[np.float64]

DATA = Path(__file__).resolve().parent / "data" / "closed_forms.csv"
LOADS = (0.2, 0.4, 0.6, 0.8)  # of the rate at which slots, prefill or cache memory saturate
TOLERANCE = {"tpot": 0.03, "itl": 0.03, "p99_occupancy": 0.10, "ttft_p95": 0.20}
FLAGS = {"tpot": TPOT, "itl": TPOT, "p99_occupancy": OCCUPANCY, "ttft_p95": TTFT}
FEWEST, PER_RESIDENT, MOST = 8_000, 60, 60_000  # sequences of a run: at least, per one in service, at most
SEEDS, MOST_SEEDS = 6, 96
WARM_UP = 0.2  # share of a run's arrivals that statistics leave out
INSTANTS = 20_000  # occupancy is looked at
STUDENT_T = {6: 2.571, 12: 2.201, 24: 2.069, 48: 2.012, 96: 1.985}  # 97.5 % points at one degree of freedom less


@dataclass(frozen=True)
class Point:
    """One row of the table: closed form and simulation, times in seconds, half widths relative.

    ``simulated_only``: figures left to the simulation, semicolons between them.
    """

    workload: str
    accelerator: str
    layout: str
    drafting: str
    utilisation: float
    rate: float
    prefill_share: float
    ranks: int
    arrivals: float
    prompt_cv: float
    in_service: float
    kv_share: float
    tpot: float
    tpot_simulated: float
    tpot_half_width: float
    itl: float
    itl_simulated: float
    itl_half_width: float
    p99_occupancy: float
    p99_occupancy_simulated: float
    p99_occupancy_half_width: float
    ttft_p95: float
    ttft_p95_simulated: float
    ttft_p95_half_width: float
    simulated_only: str


@cache
def candidate(case: Case) -> tuple[Search, Sized, ReplicaModel]:
    """The case's row of the search, with its closed forms."""
    if case.workload in examples():
        workload = load_workload(example_path(case.workload), ["objective.minimise=gpus"])
    else:
        workload = load_workload(f"{case.workload}.toml", ["objective.minimise=gpus"], text=WORKLOADS[case.workload])
    found = search(workload, load_database().uncalibrated(), gpus=[case.accelerator])
    rows = found.rows
    assert rows is not None
    wanted = (case.tensor, case.data, case.pipeline, case.drafting)
    index = [
        i
        for i, (s, o) in enumerate(zip(rows.seats, rows.options, strict=True))
        if (int(s.layout.tensor), int(s.layout.data), int(s.layout.pipeline), o.label) == wanted
    ][:1]
    if not index:
        raise SystemExit(f"no such candidate: {case}")
    one = rows.take(index)
    model = ReplicaModel(one, found.load, workload.slo, found.constants)
    most = capacity(found, one)
    return found, Sized(one, model.serve(np.array([[0.5 * most]])), 1, 0, most, 0.0), model


def capacity(found: Search, row: Rows) -> float:
    """Lowest rate [1/s] at which slots or prefill saturate, or the tail of the cache fills its memory."""
    unlimited = replace(found.constants, utilisation_limit=1.0)
    highest, possible = ReplicaModel(row, found.load, (), unlimited).highest_rate()
    assert possible[0, 0]
    return float(highest[0, 0])


def quantile(cumulative: Vector, q: float) -> float:
    """Quantile of a whole number whose every value is spread evenly over the unit around it.

    Rounding to whole sequences would otherwise be more than the tolerance where ten are in service.
    """
    n = int(np.searchsorted(cumulative, q))
    if n == len(cumulative):  # the rest waits for a slot
        return float(n - 1)
    below = float(cumulative[n - 1]) if n else 0.0
    return n - 0.5 + (q - below) / (float(cumulative[n]) - below)


def run(case: Case, rate: float, seed: int) -> tuple[float, float, float, float]:
    """Mean TPOT and mean time between tokens [s], p99 occupancy and p95 TTFT [s] of one simulated run."""
    found, sized, model = candidate(case)
    resident = float(model.serve(np.array([[rate]])).mean_batch[0, 0])
    slots = int(sized.rows.slots[0, 0])
    count = int(min(MOST, max(FEWEST, PER_RESIDENT * resident)))
    traffic = draw_traffic(found, rate, count, seed, resident)
    requests = traffic.requests
    limits = replica_limits(
        found, sized, slots, max(i + o for i, o in zip(requests.input, requests.output, strict=True))
    )
    done = run_replica(requests, step_time(case), limits, acceptance=draft_acceptance(sized), seed=seed).records
    arrival, first, end, tokens = (
        np.array([getattr(r, name) for r in done])
        for name in ("arrival_s", "first_token_s", "completion_s", "output_tokens")
    )
    drawn = np.arange(len(done)) >= traffic.resident
    began, closed = arrival[drawn][int(WARM_UP * drawn.sum())], arrival[-1]
    kept = drawn & (arrival >= began)
    several = kept & (tokens > 1)
    tpot = ((end - first)[several] / (tokens[several] - 1)).mean()
    between = (end - first)[several].sum() / (tokens[several] - 1).sum()
    instants = np.linspace(began, closed, INSTANTS)
    decoding = np.searchsorted(np.sort(first), instants, "right") - np.searchsorted(np.sort(end), instants, "right")
    occupied = quantile(np.cumsum(np.bincount(decoding)) / INSTANTS, 0.99)
    overhead = float(sized.rows.request_overhead[0, 0])
    return float(tpot), float(between), occupied, float(np.quantile((first - arrival)[kept], 0.95)) + overhead


@cache
def step_time(case: Case) -> object:
    """The case's step in the simulator's form."""
    found, sized, _ = candidate(case)
    return replica_step_time(found, sized, int(sized.rows.slots[0, 0]))


def closed_forms(case: Case, rate: float) -> dict[str, float | int | str]:
    """The closed forms' figures at ``rate`` [1/s], and what they depend on."""
    found, sized, model = candidate(case)
    served = model.serve(np.array([[rate]]))
    at = model._state(served.rate)
    tpot = float(served.tpot.mean[0, 0])
    figures = {
        "prefill_share": float(served.prefill_utilisation[0, 0]),
        "arrivals": found.load.fan_out * float(found.load.arrival_cv2(rate)),
        "prompt_cv": sized.rows.prompt_cv(found.load.weights),
        "in_service": float(served.mean_batch[0, 0]),
        "kv_share": float(served.violations["kv memory"][0, 0]),
        "tpot": tpot,
        "itl": float(at.gap[0, 0]),
        "p99_occupancy": quantile(at.state.cumulative[0], 0.99),
        "ttft_p95": float(served.ttft.p95[0, 0]),
    }
    short = {name: float(f"{x:.5g}") for name, x in figures.items()}
    ranks = int(sized.rows.ranks[0, 0])
    flagged = simulated_only(
        short["prefill_share"], ranks, short["arrivals"], short["prompt_cv"], short["in_service"]
    )  # fmt: skip
    return {**short, "ranks": ranks, "simulated_only": ";".join(flagged)}


def simulation(case: Case, rate: float) -> dict[str, float]:
    """The simulated figures at ``rate`` [1/s] from as many seeds as they need, and their half widths over them."""
    runs: list[tuple[float, ...]] = []
    seeds = SEEDS
    while True:
        runs += [run(case, rate, seed) for seed in range(len(runs), seeds)]
        mean = np.mean(runs, axis=0)
        half = STUDENT_T[seeds] * np.std(runs, axis=0, ddof=1) / np.sqrt(seeds) / mean
        if seeds >= MOST_SEEDS or np.all(half < np.array(list(TOLERANCE.values())) / 3):
            break
        seeds *= 2
    found = {}
    for name, x, width in zip(TOLERANCE, mean, half, strict=True):
        found |= {f"{name}_simulated": float(f"{x:.5g}"), f"{name}_half_width": float(f"{width:.3g}")}
    return found


def point(case: Case, share: float) -> Point:
    """One row: closed forms and simulation at ``share`` of the highest rate the replica can take."""
    rate = float(f"{share * candidate(case)[1].max_rate:.6g}")
    return Point(
        case.workload, case.accelerator, layout(case), case.drafting, share, rate,
        **closed_forms(case, rate), **simulation(case, rate),
    )  # fmt: skip


def again(p: Point) -> Point:
    """The row with closed forms as they are now, against the simulation it holds."""
    return replace(p, **closed_forms(case_of(p), p.rate))


def case_of(p: Point) -> Case:
    """The case a row is of."""
    return next(
        c for c in CASES if (c.workload, c.accelerator, layout(c), c.drafting)
        == (p.workload, p.accelerator, p.layout, p.drafting)
    )  # fmt: skip


def error(p: Point, name: str) -> float:
    """Relative error of one closed form."""
    return float(getattr(p, name) / getattr(p, f"{name}_simulated") - 1)


def layout(case: Case) -> str:
    """Degrees of parallelism above one, as TP2 DP8."""
    degrees = (("TP", case.tensor), ("DP", case.data), ("PP", case.pipeline))
    return " ".join(f"{name}{n}" for name, n in degrees if n > 1) or "single"


def read(path: Path = DATA) -> list[Point]:
    """The rows of the written file."""
    kinds = {"str": str, "int": int, "float": float}
    with path.open(encoding="utf-8") as lines:
        return [
            Point(**{f.name: kinds[str(f.type)](row[f.name]) for f in fields(Point)}) for row in csv.DictReader(lines)
        ]


def held(points: Sequence[Point], name: str) -> list[Point]:
    """The rows a closed form answers for: those that aren't left to the simulation."""
    return [p for p in points if not left_to_simulation(p, name)]


def left_to_simulation(p: Point, name: str) -> bool:
    """Whether only the simulation says one figure of a row."""
    return FLAGS[name] in p.simulated_only.split(";")


def within(points: Sequence[Point], name: str) -> list[Point]:
    """The rows it answers for and is within its tolerance on."""
    return [p for p in held(points, name) if abs(error(p, name)) <= TOLERANCE[name]]


def _all_loads(case: Case) -> list[Point]:
    return [point(case, share) for share in LOADS]


def write(points: Sequence[Point]) -> None:
    """The table as CSV."""
    DATA.parent.mkdir(exist_ok=True)
    with DATA.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, [f.name for f in fields(Point)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(p) for p in points)


def line(p: Point) -> str:
    """One row for the terminal."""
    errors = "  ".join(f"{n} {error(p, n):+.1%}±{getattr(p, n + '_half_width'):.1%}" for n in TOLERANCE)
    return (
        f"{p.workload:13} {p.accelerator:13} {p.layout:7} {p.drafting:9} {p.utilisation:.0%} "
        f"prefill {p.prefill_share:.2f}  {errors}{'  simulated only: ' + p.simulated_only if p.simulated_only else ''}"
    )


def main(names: Sequence[str]) -> None:
    """Compute all points, those of the named workloads only, or with --closed only the closed forms anew."""
    if names == ["--closed"]:
        points = [again(p) for p in read()]
        print("\n".join(line(p) for p in points))
        write(points)
        return
    kept = [p for p in read() if p.workload not in names] if names else []
    with ProcessPoolExecutor() as pool:
        for points in pool.map(_all_loads, [c for c in CASES if not names or c.workload in names]):
            print("\n".join(line(p) for p in points), flush=True)
            kept += points
    order = list(CASES)
    write(sorted(kept, key=lambda p: (order.index(case_of(p)), p.utilisation)))


if __name__ == "__main__":
    main(sys.argv[1:])
