"""ServeGen clients: their rates and lengths over time, and a fixed draw of requests from them.

Each client has a table of arrivals, ``chunk-N-trace.csv``, rows of start [s], rate [1/s], coefficient
of variation, distribution and its two parameters; and ``chunk-N-dataset.json``, which gives for each
window the probabilities of input and output lengths.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.errors import InputError
from planner.workload.arrivals import draw_gaps
from planner.workload.lengths import Vector
from planner.workload.traces import Rows, Trace, finish

PART = re.compile(r"^chunk-(.+)-(trace\.csv|dataset\.json)$")
WINDOW = 600.0  # s, of a table with one row
MOST = 500_000  # requests drawn
KINDS = ("poisson", "exponential", "gamma", "weibull")
Pdf = tuple[Vector, Vector]


@dataclass(frozen=True)
class Window:
    """A stretch of a client's time: start and length [s], rate [1/s], variability [1], length pdfs."""

    start: float
    duration: float
    rate: float
    cv: float
    kind: str
    input: Pdf
    output: Pdf

    @property
    def requests(self) -> float:
        """Requests expected in it, [1]. Source: definition."""
        return self.rate * self.duration


def is_servegen(path: Path) -> bool:
    """Whether a path is one file of a client, or a folder with clients."""
    if path.is_dir():
        return any(path.glob("chunk-*-trace.csv"))
    return bool(PART.match(path.name)) and path.is_file()


def read_servegen(path: Path, seed: int = 0) -> Trace:
    """Requests drawn from all clients of a folder, or from one client, the same for the same seed.

    Rate and peak are the table's. At most half a million requests are drawn: beyond that all rates
    are scaled down alike, which leaves lengths, peaks and the shape of bursts, and is noted. Within a
    window input and output are independent, as the data has them. InputError names file and line.

    Source: Xiang et al., ServeGen, arXiv 2505.09999; alibaba/ServeGen.
    """
    clients = [read_client(table, data) for table, data in _pairs(path)]
    windows = [w for client in clients for w in client]
    expected = sum(w.requests for w in windows)
    if expected <= 0:
        raise InputError("has no requests: every rate is zero", file=str(path))
    scale = min(1.0, MOST / expected)
    rng = np.random.default_rng(seed)
    drawn = [_draw(client, scale, rng) for client in clients]
    arrival, inputs, outputs = (np.concatenate([d[k] for d in drawn]) for k in range(3))
    notes = [f"{len(arrival)} requests drawn from {len(clients)} client{'s' if len(clients) > 1 else ''}"]
    if scale < 1:
        notes.append(f"rates scaled by {scale:.3g} for the draw; rate and peak are the clients' own")
    times, rates = rate_over_time(windows)
    mean = expected / (times[-1] - times[0])
    rows = Rows(arrival, inputs, outputs)
    rows.stated.update(rate=float(mean), peak=float(max(1.0, rates.max() / mean)), notes=tuple(notes))
    return finish(str(path), "servegen", rows)


def rate_over_time(windows: list[Window]) -> tuple[Vector, Vector]:
    """Edges [s] (n+1,) where the clients' summed rate changes, and that rate between them [1/s] (n,)."""
    edges = np.unique([t for w in windows for t in (w.start, w.start + w.duration)])
    change = np.zeros(len(edges))
    for w in windows:
        change[np.searchsorted(edges, w.start)] += w.rate
        change[np.searchsorted(edges, w.start + w.duration)] -= w.rate
    return edges, np.cumsum(change)[:-1]


def _pairs(path: Path) -> list[tuple[Path, Path]]:
    folder = path if path.is_dir() else path.parent
    tables = sorted(folder.glob("chunk-*-trace.csv")) if path.is_dir() else [path]
    found = []
    for file in tables:
        match = PART.match(file.name)
        assert match
        pair = [folder / f"chunk-{match.group(1)}-{end}" for end in ("trace.csv", "dataset.json")]
        for part in pair:
            if not part.is_file():
                raise InputError(f"has no {part.name} beside it", file=str(file), expected="both files of the client")
        found.append((pair[0], pair[1]))
    return found


def read_client(table: Path, data: Path) -> list[Window]:
    """The windows of one client in which it asks for something. InputError names file and line."""
    rows = _rows(table)
    starts = [r[0] for r in rows]
    if sorted(set(starts)) != starts:
        raise InputError("windows do not follow one another", file=str(table), key="t", expected="increasing times")
    durations = np.diff(starts)
    last = float(np.median(durations)) if len(durations) else WINDOW
    pdfs = _pdfs(data)
    known = np.array(sorted(pdfs))
    windows = []
    for (start, rate, cv, kind), duration in zip(rows, [*durations, last], strict=True):
        if rate <= 0:
            continue
        nearest = known[max(0, int(np.searchsorted(known, start, side="right")) - 1)]
        windows.append(Window(start, float(duration), rate, cv, kind, *pdfs[float(nearest)]))
    return windows


def _rows(table: Path) -> list[tuple[float, float, float, str]]:
    found = []
    try:
        lines = list(csv.reader(table.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError("cannot be read as CSV", file=str(table)) from None
    for line, row in enumerate(lines, 1):
        if not row or (line == 1 and not _is_number(row[0])):
            continue
        expected = "time, rate, cv, distribution and its two parameters"
        if len(row) < 4:
            raise InputError("row is cut short", file=str(table), line=line, expected=expected)
        for text in row[:2]:
            if not _is_number(text):
                raise InputError(f"is {text!r}", file=str(table), line=line, expected="a finite number")
        kind = row[3].strip().lower() or "poisson"
        if kind not in KINDS and kind not in ("none", "nan"):
            raise InputError(f"unknown distribution {row[3]!r}", file=str(table), line=line, expected=", ".join(KINDS))
        cv = float(row[2]) if _is_number(row[2]) and float(row[2]) > 0 else 1.0
        found.append((float(row[0]), float(row[1]), cv, kind if kind in ("gamma", "weibull") else "poisson"))
    if not found:
        raise InputError("has no rows", file=str(table))
    return found


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _pdfs(data: Path) -> dict[float, tuple[Pdf, Pdf]]:
    """Input and output pdfs by start of their window [s]; windows without requests left out."""
    try:
        found = json.loads(data.read_text(encoding="utf-8-sig"))
        windows = {float(t): w for t, w in found.items()}
        pdfs = {}
        for start, window in windows.items():
            sides = (_pdf(window.get("input_tokens")), _pdf(window.get("output_tokens")))
            if sides[0] is not None and sides[1] is not None:
                pdfs[start] = (sides[0], sides[1])
    except OSError:
        raise InputError("cannot be read", file=str(data)) from None
    except (ValueError, AttributeError, TypeError) as error:
        said = str(error).split(":")[0]
        raise InputError(
            f"is malformed ({said})", file=str(data), expected="windows with input_tokens and output_tokens"
        ) from None
    if not pdfs:
        raise InputError("has no window with lengths", file=str(data))
    return pdfs


def _pdf(value: object) -> Pdf | None:
    """Lengths [tokens] and probabilities [1] of a dict, or of the text of one; None when it is empty."""
    if isinstance(value, str):
        pairs = [p.split(":") for p in value.strip().removeprefix("{").removesuffix("}").split(",") if p.strip()]
        value = {float(k): float(v) for k, v in pairs}
    if not value:
        return None
    if not isinstance(value, Mapping):
        raise ValueError("lengths are no table")
    lengths = np.array([float(k) for k in value])
    shares = np.array([float(v) for v in value.values()])
    if np.any(shares < 0) or not np.all(np.isfinite(shares)) or shares.sum() <= 0:
        raise ValueError("probabilities are no distribution")
    order = np.argsort(lengths)
    return np.maximum(lengths[order], 1.0), shares[order] / shares.sum()


def _draw(client: list[Window], scale: float, rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
    """Arrivals [s] of one client as a renewal process in each window, and their lengths [tokens]."""
    arrivals, inputs, outputs = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for w in client:
        mean = 1.0 / (w.rate * scale)
        at = np.zeros(0)
        # a gap under way when the window begins: the first arrival is anywhere in it
        reached = -float(rng.random() * draw_gaps(w.kind, w.cv, mean, 1, rng)[0])
        while reached < w.duration:
            more = reached + np.cumsum(draw_gaps(w.kind, w.cv, mean, int(1.2 * w.requests * scale) + 16, rng))
            at, reached = np.concatenate((at, more)), float(more[-1])
        at = at[(at >= 0) & (at < w.duration)]
        arrivals.append(w.start + at)
        for found, (lengths, shares) in ((inputs, w.input), (outputs, w.output)):
            place = np.searchsorted(np.cumsum(shares), rng.random(len(at)))
            found.append(lengths[np.minimum(place, len(lengths) - 1)])
    return np.concatenate(arrivals), np.concatenate(inputs), np.concatenate(outputs)
