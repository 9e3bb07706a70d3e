"""A workload file from a trace: self-contained with histograms, or a reference to the trace."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from planner.workload.description import TraceDescription, histogram
from planner.workload.traces import Trace, Vector

Indices = npt.NDArray[np.int64]
#: error of token-steps from which lengths are not taken as independent
NOTABLE = 0.02
#: classes by input length, and requests each needs
CLASSES, PER_CLASS = 6, 50
#: share of cached input from which a request counts as mostly cached
MOSTLY = 0.5
#: lengths up to which all are listed instead of a histogram
LISTED = 200
#: log-spaced and equally filled bins of a histogram
SPACED, FILLED = 24, 32
#: limit on TTFT a file begins with: a base, and a second for so many tokens to prefill at the 95th percentile
TTFT_BASE_S, TOKENS_PER_SECOND = 2.0, 8000.0


def workload_text(trace: Trace, described: TraceDescription, model: str, *, reference: Path | None = None) -> str:
    """A workload file with the trace's rate, peak, burstiness and lengths; with ``reference``, the folder
    the file will lie in, it names the trace instead of repeating it.

    Lengths are histograms. Where input and output hang together, or the trace has kinds of requests,
    there are several classes with histograms of their own, by kind and by input length. Source: the
    trace.
    """
    head = [f"# From {Path(trace.name).name}: {described.requests} requests ({described.format})."]
    head += [f"# {note[0].upper()}{note[1:]}." for note in described.notes]
    limits = ["", "[slo]", f'ttft_p95 = "{_ttft(trace)}s"             # yours to set', 'tpot_p95 = "50ms"', ""]
    if reference is not None:
        beside = os.path.relpath(Path(trace.name).resolve(), reference.resolve())
        demand = ["[demand]", f"trace = {_quoted(Path(beside).as_posix())}     # rate, peak, burstiness and lengths"]
        if described.requests_per_second is None and described.concurrency is None:
            demand.append(NO_RATE)
        return "\n".join([*head, f"model = {_quoted(model)}", "", *demand, *limits])
    parts = list(_classes(trace, described))
    body: list[str] = []
    if len(parts) == 1:
        body = _lengths(trace, "")
        head.append(
            f"# Input and output lengths are taken as independent; in the trace they correlate "
            f"{described.correlation:+.2f}."
        )
    else:
        head.append(
            f"# Classes keep what input and output have to do with each other: correlation "
            f"{described.correlation:+.2f}, of ranks {described.rank_correlation:+.2f}."
        )
        for name, part in parts:
            body += ["", "[[requests]]", f"name = {_quoted(name)}", f"share = {len(part.input) / len(trace):.6g}"]
            body += _lengths(part, "requests.")
    return "\n".join([*head, f"model = {_quoted(model)}", "", *_demand(described), *body, *limits])


NO_RATE = "requests_per_second = 1.0   # the trace has no arrival times: yours to set"


def _demand(d: TraceDescription) -> list[str]:
    if d.concurrency is not None:
        return ["[demand]", f"concurrent_users = {d.concurrency:g}          # a closed loop without pauses"]
    rate = d.requests_per_second
    lines = ["[demand]", NO_RATE if rate is None else f"requests_per_second = {rate:.6g}"]
    if d.peak_to_mean is not None:
        lines.append(f"peak_to_mean = {max(1.0, d.peak_to_mean):.4g}          # busiest minute over the mean")
    if d.local_cv is not None:
        lines.append(f"arrival_cv = {d.local_cv:.4g}            # of gaps within a minute")
    return lines


def _ttft(trace: Trace) -> int:
    """A limit that prompts of this length can meet, whole [s]."""
    new = trace.input if trace.cached is None else trace.input - trace.cached
    return round(TTFT_BASE_S + math.floor(float(np.quantile(new, 0.95)) / TOKENS_PER_SECOND))


def _classes(trace: Trace, d: TraceDescription) -> Iterator[tuple[str, Trace]]:
    """The trace in parts: by kind, and by input length where lengths correlate."""
    kinds = [(k.name, trace.kinds == trace.kind_names.index(k.name)) for k in d.kinds]
    for name, of in kinds or [("all", np.ones(len(trace), dtype=bool))]:
        chosen = np.flatnonzero(of)
        bins = min(CLASSES, len(chosen) // PER_CLASS) if trace.paired and _depend(trace, chosen) else 1
        cuts = np.arange(1, bins) / bins
        edges = np.unique(np.quantile(trace.input[chosen], cuts)) if bins > 1 else np.zeros(0)
        place = np.searchsorted(edges, trace.input[chosen], side="right")
        for index in np.unique(place):
            part = chosen[place == index]
            words = [name] if name != "all" or len(edges) == 0 else []
            if len(edges):
                words.append(f"{trace.input[part].min():.0f}-{trace.input[part].max():.0f}")
            for reuse, at in _by_reuse(trace, part):
                yield ", ".join([*words, *reuse]), _part(trace, at)


def _depend(trace: Trace, at: Indices) -> bool:
    """Whether token-steps E[IO + O^2/2] would be wrong if lengths were independent."""
    i, o = trace.input[at], trace.output[at]
    together = float((i * o + o * o / 2).mean())
    apart = float(i.mean() * o.mean() + (o * o).mean() / 2)
    return abs(apart / together - 1) >= NOTABLE


def _by_reuse(trace: Trace, at: Indices) -> list[tuple[list[str], Indices]]:
    """Mostly cached and mostly new prompts apart, where there are enough of both."""
    if trace.hashes is None or trace.cached is None:
        return [([], at)]
    mostly = trace.cached[at] >= MOSTLY * trace.input[at]
    if min(mostly.sum(), (~mostly).sum()) < PER_CLASS:
        return [([], at)]
    return [(["mostly new"], at[~mostly]), (["mostly cached"], at[mostly])]


def _part(trace: Trace, at: Indices) -> Trace:
    cached = None if trace.cached is None else trace.cached[at]
    return Trace(trace.name, trace.format, trace.arrival[at], trace.input[at], trace.output[at], cached)


def _lengths(trace: Trace, prefix: str) -> list[str]:
    lines = ["", f"[{prefix}context]"]
    if trace.cached is not None:
        reuse = float(trace.cached.sum() / trace.input.sum())
        lines.append(f"cached_fraction = {reuse:.4f}      # of an endless prefix cache: an upper bound")
    lines += _histogram_lines(f"{prefix}context", trace.input)
    return [*lines, "", f"[{prefix}answer]", *_histogram_lines(f"{prefix}answer", trace.output)]


def _histogram_lines(name: str, lengths: Vector) -> list[str]:
    if lengths.max() - lengths.min() < 1:
        return [f"mean = {lengths.mean():.6g}", 'distribution = "constant"']
    if len(lengths) <= LISTED:
        return ["values = [" + ", ".join(f"{x:.10g}" for x in np.sort(lengths)) + "]"]
    edges = _edges(lengths)
    counts, _ = np.histogram(lengths, edges)
    return [
        f"[{name}.histogram]",
        "edges = [" + ", ".join(f"{e:.10g}" for e in edges) + "]",
        "weights = [" + ", ".join(str(c) for c in counts) + "]",
    ]


def _edges(lengths: Vector) -> Vector:
    """Edges of log-spaced and of equally filled bins together; a value met often has a bin of its own."""
    spaced, _ = histogram(lengths, SPACED)
    filled = np.round(np.quantile(lengths, np.linspace(0, 1, FILLED + 1)))
    values, times = np.unique(filled, return_counts=True)
    often = values[times > 1]
    edges = np.unique(np.concatenate((spaced, values - 0.5, often + 0.5)))
    last = int(np.searchsorted(edges, lengths.max(), side="right"))
    return edges[(edges > 0) & (np.arange(len(edges)) <= last)]


def _quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)
