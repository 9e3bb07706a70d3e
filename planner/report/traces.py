"""A described trace as blocks, with a histogram drawn in text."""

from __future__ import annotations

import math

from planner.report.blocks import Block, Heading, sheet
from planner.units import format_count, format_duration
from planner.workload.description import TraceDescription, histogram
from planner.workload.traces import Trace

BARS = 16
WIDTH = 40


def trace_blocks(trace: Trace, described: TraceDescription) -> list[Block]:
    """Figures, fits, and a histogram of input and of output lengths."""
    d = described
    rows, fits = [], []
    for name, s in (("Input", d.input), ("Output", d.output)):
        rows.append((name, *(format_count(x) for x in (s.mean, s.p50, s.p90, s.p95, s.p99, s.longest)), f"{s.cv:.2f}"))
        fits += [(name, f.distribution.describe(), f"{f.distance:.3f}", f"{f.p99_error:+.0%}") for f in s.fits]
    columns = ("Tokens", "mean", "p50", "p90", "p95", "p99", "max", "cv")
    blocks: list[Block] = [
        Heading(f"{trace.name} ({d.format})"),
        sheet(("", "Trace"), _facts(d), header=False),
        sheet(columns, rows, numeric=columns[1:]),
    ]
    if d.kinds:
        kinds = [(k.name, f"{k.share:.1%}", format_count(k.input_p50), format_count(k.output_p50)) for k in d.kinds]
        names = ("Kind", "share", "input p50", "output p50")
        blocks.append(sheet(names, kinds, numeric=names[1:]))
    if fits:
        names = ("Fit", "Distribution", "Distance", "p99 error")
        blocks.append(sheet(names, fits, numeric=names[2:]))
    for name, lengths in (("Input tokens", trace.input), ("Output tokens", trace.output)):
        edges, counts = histogram(lengths, BARS)
        most = max(counts, default=1) or 1
        bars = [(f"{math.ceil(e)}", "#" * round(WIDTH * c / most), c) for e, c in zip(edges, counts, strict=False)]
        blocks.append(sheet((name + " from", "", "requests"), bars, numeric=(name + " from", "requests")))
    return blocks


def _facts(d: TraceDescription) -> list[tuple[str, str]]:
    facts = [("Requests", f"{d.requests}" + (f" ({d.dropped} rows without one left out)" if d.dropped else ""))]
    rate = "" if d.requests_per_second is None else f"{d.requests_per_second:.3g} requests/s on average"
    if d.duration_s:
        facts.append(("Duration", f"{format_duration(d.duration_s)}, {rate}"))
    elif rate:
        facts.append(("Rate", rate))
    if d.concurrency is not None:
        facts.append(("Closed loop", f"{d.concurrency:g} requests in flight"))
    if d.arrival_cv is not None and d.local_cv is not None:
        text = f"coefficient of variation between arrivals {d.arrival_cv:.2f}, within a minute {d.local_cv:.2f}"
        text += " (1 is Poisson)"
        if d.dispersion is not None:
            text += f"; index of dispersion per minute {d.dispersion:.1f}"
        facts.append(("Burstiness", text))
    if d.peak_to_mean is not None:
        facts.append(("Peak", f"busiest minute {d.peak_to_mean:.2f} times the mean"))
    if d.prefix_reuse is not None:
        blocks = "" if d.block_reuse is None else f" ({d.block_reuse:.1%} of blocks)"
        facts.append(("Prefix reuse", f"{d.prefix_reuse:.1%} of input tokens{blocks}, in an endless cache"))
    facts.append(
        ("Correlation", f"{d.correlation:+.2f} between input and output length, {d.rank_correlation:+.2f} of ranks")
    )
    facts += [("Note", note) for note in d.notes]
    return facts
