"""Tables of measurements through the planner: every row to the code that runs what it ran, on all cores."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module, util
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from planner.hardware import Database, load_database
from planner.models.catalogue import entries_added
from planner.validation import points as reading
from planner.validation.closed_loops import UNKNOWN, Offer, choice_of, compare_loops, offers, precision_of, same_loops
from planner.validation.comparison import Comparison, Skipped
from planner.validation.coverage import Covered, covered
from planner.validation.files import Row, Table, doubtful
from planner.validation.points import MeasuredPoint, read_point

#: closed loops of one piece of work, and the rough seconds of all work from which other processes are worth it
PIECE = 40
WORTH = 3.0
#: rough seconds a row takes, by what is done with it: long pieces are begun first
SECONDS = {"loops": 0.01, "pools": 0.03, "pairs": 0.002, "mlperf": 0.01, "offline": 0.004, "speculation": 0.005}
POOLS = "planner.validation.disaggregation"
LOOKED_UP = "taken from this table"
Result = tuple[list[Comparison], list[Skipped]]
Said = Callable[[int, int], None]


@dataclass(frozen=True)
class Compared:
    """A comparison, and what ``rows`` it is of: clean, flagged (the row itself is in doubt), or known.

    Known figures are those our data was taken from.
    """

    comparison: Comparison
    rows: str = "clean"


@dataclass(frozen=True)
class Validation:
    """Everything measured beside everything predicted, what was left out, and configurations to choose among.

    ``unread``: runs of files of results that became no rows.
    """

    compared: tuple[Compared, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    offers: tuple[Offer, ...] = ()
    tables: tuple[Table, ...] = ()
    covered: tuple[Covered, ...] = ()
    unread: int = 0


@dataclass(frozen=True)
class Facts:
    """Where a process gets its facts from: overlays, calibrations and model entries, as files."""

    overlays: tuple[Path, ...] = ()
    calibrations: tuple[Path, ...] = ()
    models: tuple[Path, ...] = ()

    @contextmanager
    def loaded(self) -> Iterator[Database]:
        """The database, with the model entries added to every look-up inside."""
        for cache in (reading._named, reading._entry):
            cache.cache_clear()
        with entries_added(self.models):
            yield load_database(self.overlays, (), self.calibrations)


@dataclass(frozen=True)
class Job:
    """``what`` to do with ``rows`` of ``file``: rows, points, or groups of equal points."""

    what: str
    file: str
    rows: Sequence[Any] = field(repr=False)

    @property
    def seconds(self) -> float:
        """Roughly what it takes, [s]. Source: timed on two cores."""
        return SECONDS.get(self.what, 2e-5) * len(self.rows)


def validate(
    tables: Sequence[Table], facts: Facts | None = None, workers: int | None = None, said: Said | None = None,
    left: Sequence[Skipped] = (),
) -> Validation:  # fmt: skip
    """Every row of ``tables`` predicted and compared, or skipped with the reason.

    ``left``: runs left out before they became rows. ``workers``: processes, by default one for each core where there is
    work for them. ``said`` hears how many pieces of work are done, and how many there are.
    """
    facts = facts or Facts()
    with facts.loaded() as database:
        points, skipped = _points(tables, database)
        jobs = _jobs(tables, points)
        if workers is None:
            workers = (os.cpu_count() or 1) if sum(job.seconds for job in jobs) > WORTH else 1
        results = _run_all(jobs, facts, database, workers, said or (lambda done, total: None))
        compared = [c for found, _ in results for c in found]
        skipped += [s for _, left in results for s in left]
        broken = [c for c in compared if not all(0 < x < math.inf for x in (c.measured, c.predicted))]
        skipped += [Skipped(c.id, c.file, f"{c.metric}: measured or predicted is no positive number") for c in broken]
        compared = [c for c in compared if all(0 < x < math.inf for x in (c.measured, c.predicted))]
        flagged = {(t.name, r.get("id", "")) for t in tables if t.kind == "results" for r in t.rows if doubtful(r)}
        flagged |= {key for key, point in points.items() if point.speculation == "unknown"}
        inside = covered([c for c in compared if _rows_of(c, flagged) == "clean"], database)
    done = {(c.file, c.id) for c in compared if (c.file, c.id) in points}
    skipped = [s for s in skipped if (s.file, s.id) not in done]  # of a pair, or by itself
    file = {t.name: i for i, t in enumerate(tables)}
    place = {(t.name, r.get("id", "")): j for t in tables for j, r in enumerate(t.rows) if r.get("id")}
    compared.sort(key=lambda c: (file[c.file], place.get((c.file, c.id), 0)))
    skipped.sort(key=lambda s: (file[s.file], place.get((s.file, s.id), 0)))
    return Validation(
        tuple(Compared(c, _rows_of(c, flagged)) for c in compared), (*left, *skipped),
        tuple(offers(points, compared, flagged)), tuple(tables), inside, len(left),
    )  # fmt: skip


def _rows_of(c: Comparison, flagged: set[tuple[str, str]]) -> str:
    if c.extrapolates == LOOKED_UP:
        return "known"
    return "flagged" if (c.file, c.id) in flagged else "clean"


def _points(tables: Sequence[Table], database: Database) -> tuple[dict[tuple[str, str], MeasuredPoint], list[Skipped]]:
    """Served points by file and id, and rows that are none: those of tables without measurements too."""
    points: dict[tuple[str, str], MeasuredPoint] = {}
    skipped: list[Skipped] = []
    for table in tables:
        for number, row in enumerate(table.rows, 1):
            if table.kind in ("beside", "unknown"):
                name = row.get("id") or row.get("name") or f"row {number}"
                skipped.append(Skipped(name, table.name, table.note))
            elif table.kind == "results" and route(row) == "served":
                point = _point(row, table.name, database)
                if isinstance(point, Skipped):
                    skipped.append(point)
                else:
                    points[point.file, point.id] = point
    return points, skipped


def _point(row: Row, file: str, database: Database) -> MeasuredPoint | Skipped:
    try:
        return read_point(row, file, database)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        return Skipped(row["id"], file, f"holds numbers nothing can be computed from ({error})")


def route(row: Mapping[str, str]) -> str:
    """What runs a row of a table of results: mlperf, offline (queues and static batches) or served (closed loops).

    >>> route({"scenario": "static-batch"}), route({"scenario": "offline", "mean_osl_from_log": "294"}), route({})
    ('offline', 'mlperf', 'served')
    """
    scenario = row.get("scenario", "")
    if row.get("mean_osl_from_log") or row.get("slo_ttft_ms_log") or row.get("id", "").startswith("mlperf"):
        return "mlperf"
    queued = ("offline", "max-throughput", "static", "first-token", "min-latency", "-only")
    return "offline" if any(word in scenario for word in queued) else "served"


def _jobs(tables: Sequence[Table], points: Mapping[tuple[str, str], MeasuredPoint]) -> list[Job]:
    jobs: list[Job] = []
    for table in tables:
        routed: dict[str, list[Row]] = {}
        for row in table.rows:
            routed.setdefault(route(row) if table.kind == "results" else table.kind, []).append(row)
        jobs += [Job(what, table.name, rows) for what, rows in routed.items() if what in _RUNS]
    plain = [p for p in points.values() if p.speculation in ("", "unknown")]
    if len(plain) < len(points):
        jobs.append(Job("pairs", "", [p for p in points.values() if p.speculation != "unknown"]))
    order = sorted(plain, key=lambda p: (p.model, p.accelerator, p.engine, p.weights, p.input_tokens, p.concurrency))
    loops = same_loops(p for p in order if p.prefill is None)
    pools = [p for p in points.values() if p.prefill is not None]
    jobs += [Job("loops", "", loops[i : i + PIECE]) for i in range(0, len(loops), PIECE)]
    return jobs + [Job("pools", "", pools[i : i + PIECE]) for i in range(0, len(pools), PIECE)]


# -- running them -----------------------------------------------------------------------------------------------

_databases: list[Database] = []


def _start(facts: Facts) -> None:
    """A worker process: its own facts, and interrupts left to the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    context = facts.loaded()
    _databases.append(context.__enter__())
    _entered.append(context)


_entered: list[Any] = []


def _there(job: Job) -> Result:
    return do(job, _databases[-1])


def _run_all(jobs: Sequence[Job], facts: Facts, database: Database, workers: int, said: Said) -> list[Result]:
    if workers < 2 or len(jobs) < 2:
        found = []
        for done, job in enumerate(jobs):
            said(done, len(jobs))
            found.append(do(job, database))
        return found
    # fresh processes: forked ones would hold locks of whatever threads the libraries have started
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _start, (facts,))
    try:
        longest = sorted(range(len(jobs)), key=lambda i: -jobs[i].seconds)
        futures = {i: pool.submit(_there, jobs[i]) for i in longest}
        for done, i in enumerate(longest):
            said(done, len(jobs))
            futures[i].result()
        return [futures[i].result() for i in range(len(jobs))]
    except (BrokenProcessPool, OSError):  # no main module to start processes from, or no room for them
        return _run_all(jobs, facts, database, 1, said)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def do(job: Job, database: Database) -> Result:
    """A job's comparisons and skipped rows. A row whose numbers break what runs it is skipped alone."""
    try:
        return _RUNS[job.what](job.rows, job.file, database)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        if len(job.rows) == 1:
            reason = f"holds numbers nothing can be computed from ({error})"
            return [], [Skipped(name, file, reason) for name, file in _names(job.rows[0], job.file)]
    compared: list[Comparison] = []
    skipped: list[Skipped] = []
    for row in job.rows:
        if job.what == "pairs" and row.speculation == "":
            continue
        found, left = do(Job(job.what, job.file, [row]), database)
        compared += found
        skipped += left
    return compared, skipped


def _names(row: Any, file: str) -> list[tuple[str, str]]:
    """Id and file of a row, a point, or all points of a group."""
    if isinstance(row, MeasuredPoint):
        return [(row.id, row.file)]
    if isinstance(row, tuple):
        return [(p.id, p.file) for p in row]
    return [(row.get("id") or row.get("gpu") or "?", file)]


def _mlperf(rows: Sequence[Any], file: str, database: Database) -> Result:
    from planner.validation.mlperf import mlperf

    return mlperf(rows, file, database)


def _offline(rows: Sequence[Any], file: str, database: Database) -> Result:
    from planner.validation.offline import offline

    return offline(rows, file, database)


def _kernels(rows: Sequence[Any], file: str, database: Database) -> Result:
    from planner.validation.kernels import compare_kernels

    return compare_kernels(rows, file, database)


def _speculation(rows: Sequence[Any], file: str, database: Database) -> Result:
    from planner.validation.speculation import compare_speedups

    return compare_speedups(rows, file, database)


def _acceptance(rows: Sequence[Any], file: str, database: Database) -> Result:
    from planner.validation.speculation import compare_acceptance

    return compare_acceptance(rows, file, database)


def _pairs(points: Sequence[MeasuredPoint], file: str, database: Database) -> Result:
    """Rows with drafts beside those without; what drafted otherwise than by MTP is skipped."""
    from planner.validation.speculation import compare_paired

    compared, skipped = compare_paired(points, database)
    others = [p for p in points if p.speculation not in ("", "mtp")]
    return compared, skipped + [Skipped(p.id, p.file, f"drafted by {p.speculation}: only MTP pairs") for p in others]


def _pools(points: Sequence[MeasuredPoint], file: str, database: Database) -> Result:
    """Pools of prefill and decode workers, where the module that runs them is there."""
    if util.find_spec(POOLS) is None:
        return [], [Skipped(p.id, p.file, "disaggregated") for p in points]
    known = {(p.file, p.id): p for p in points}
    run = [replace(p, speculation="") if p.speculation == "unknown" else p for p in points]
    compared, skipped = import_module(POOLS).compare_disaggregated(run, database)
    made = []
    for c in compared:
        point = known[c.file, c.id]
        doubt = UNKNOWN if point.speculation == "unknown" else ""
        made.append(replace(
            c, precision=precision_of(point), configuration=" ".join(choice_of(point)),
            extrapolates="; ".join(filter(None, (doubt, c.extrapolates))),
        ))  # fmt: skip
    return made, list(skipped)


def _loops(groups: Sequence[Any], file: str, database: Database) -> Result:
    return compare_loops(groups, database)


_RUNS: dict[str, Callable[[Sequence[Any], str, Database], Result]] = {
    "mlperf": _mlperf, "offline": _offline, "kernels": _kernels, "speculation": _speculation,
    "acceptance": _acceptance, "pairs": _pairs, "pools": _pools, "loops": _loops,
}  # fmt: skip
