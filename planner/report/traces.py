"""A described trace as blocks, with a histogram drawn in text."""

from __future__ import annotations

from planner.report.blocks import Block, Heading, sheet
from planner.units import format_count, format_duration
from planner.workload.description import TraceDescription, histogram
from planner.workload.traces import Trace

BARS = 16
WIDTH = 40


def trace_blocks(trace: Trace, described: TraceDescription) -> list[Block]:
    """Figures, fits, and a histogram of input and of output lengths."""
    d = described
    facts = [("Requests", f"{d.requests}" + (f" ({d.dropped} rows without one left out)" if d.dropped else ""))]
    if d.duration_s is not None and d.requests_per_second is not None:
        facts.append(
            ("Duration", f"{format_duration(d.duration_s)}, {d.requests_per_second:.3g} requests/s on average")
        )
    if d.arrival_cv is not None:
        facts.append(("Burstiness", f"coefficient of variation between arrivals {d.arrival_cv:.2f} (1 is Poisson)"))
    if d.peak_to_mean is not None:
        facts.append(("Peak", f"busiest minute {d.peak_to_mean:.2f} times the mean"))
    if d.prefix_reuse is not None:
        facts.append(("Prefix reuse", f"{d.prefix_reuse:.1%} of input tokens, in an endless cache"))
    facts.append(("Correlation", f"{d.correlation:+.2f} between input and output length"))
    rows, fits = [], []
    for name, s in (("Input", d.input), ("Output", d.output)):
        rows.append((name, *(format_count(x) for x in (s.mean, s.p50, s.p90, s.p95, s.p99, s.longest)), f"{s.cv:.2f}"))
        fits += [(name, f.distribution.describe(), f"{f.distance:.3f}") for f in s.fits]
    columns = ("Tokens", "mean", "p50", "p90", "p95", "p99", "max", "cv")
    blocks: list[Block] = [
        Heading(f"{trace.name} ({d.format})"),
        sheet(("", "Trace"), facts, header=False),
        sheet(columns, rows, numeric=columns[1:]),
        *([sheet(("Fit", "Distribution", "Distance"), fits, numeric=("Distance",))] if fits else []),
    ]
    for name, lengths in (("Input tokens", trace.input), ("Output tokens", trace.output)):
        edges, counts = histogram(lengths, BARS)
        most = max(counts, default=1) or 1
        bars = [(f"{e:.0f}", "#" * round(WIDTH * c / most), c) for e, c in zip(edges, counts, strict=False)]
        blocks.append(sheet((name + " from", "", "requests"), bars, numeric=(name + " from", "requests")))
    return blocks
