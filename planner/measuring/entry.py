"""A measurement as an accelerator's TOML file, in the schema of ``hardware_db/accelerators``.

What was measured is written as measured. What the schema asks for and nobody measured is written as
derived with the reason, or left out: thermal design power, links between accelerators.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

import planner
from planner.cost.machine import MATMUL_EXPONENT
from planner.cost.roofline import roofline
from planner.errors import InputError, one_line
from planner.hardware.loading import SCHEMA, SCHEMA_VERSION
from planner.measuring.figures import Figure, Measurement
from planner.models.formats import FORMATS

COMPUTE = tuple(SCHEMA["compute"])
SHARES = np.geomspace(0.02, 1.0, 120)  # of a ceiling, that a fit may choose from: 3 % apart
WIDENED = "no bf16 kernel was timed: weights widened to fp32 before they are multiplied"
NOT_MEASURED = "thermal design power and links are not measured"


@dataclass(frozen=True)
class Fit:
    """What an operator reaches, as the file's ``achieved`` tables hold it.

    Shares of peak ``compute`` and of bandwidth ``memory`` [1], None where nothing was measured;
    ``latency`` [s]; ``half_tokens`` [tokens]; ``residual`` mean absolute relative error over ``points``.
    """

    compute: float | None
    memory: float | None
    latency: float | None
    source: str
    half_tokens: float | None = None
    residual: float | None = None
    points: int = 0


def bandwidth_of(measured: Measurement) -> Figure:
    """The fastest of the memory reads, [B/s]: the ceiling of bandwidth. InputError when none was measured."""
    reads = measured.of("read")
    if not reads:
        raise InputError("no memory read could be measured", expected="more free memory")
    return max(reads, key=lambda f: f.best)


def peaks_of(measured: Measurement) -> dict[str, Figure]:
    """The fastest matmul of every format, [FLOP/s]: its ceiling of compute."""
    found: dict[str, Figure] = {}
    for figure in (*measured.of("matmul"), *measured.of("rows")):
        if figure.fmt not in found or figure.best > found[figure.fmt].best:
            found[figure.fmt] = figure
    return found


def matmul_fit(measured: Measurement, fmt: str) -> Fit | None:
    """Shares of ceilings that matmuls of few to many tokens reach; None without any.

    The pair of shares of least mean absolute relative error over all token counts, in the form
    :func:`planner.cost.roofline.roofline` prices them with; the fixed time is that of a tiny matmul.
    """
    rows = sorted(measured.of("rows", fmt), key=lambda f: f.tokens)
    if not rows:
        return None
    peak, bandwidth, latency = peaks_of(measured)[fmt].best, bandwidth_of(measured).best, launch_of(measured)
    compute, memory = np.meshgrid(SHARES, SHARES, indexing="ij")
    errors = np.zeros_like(compute)
    for row in rows:
        seconds = roofline(row.flops, row.bytes, compute * peak, memory * bandwidth, latency, MATMUL_EXPONENT)
        errors += np.abs(seconds / row.sample.median - 1) / len(rows)
    at = np.unravel_index(np.argmin(errors), errors.shape)
    tokens = f"{rows[0].tokens} to {rows[-1].tokens}"
    source = f"planner measure, {fmt} matmuls of {tokens} tokens by weights that are not in cache"
    return Fit(float(compute[at]), float(memory[at]), latency, source, None, float(errors[at]), len(rows))


def launch_of(measured: Measurement) -> float:
    """Fixed time of an operator, [s]: inside a captured graph where there are graphs, as engines run them."""
    calls = measured.of("graph") or measured.of("call")
    return min((f.typical for f in calls), default=0.0)


def decode_fit(measured: Measurement, fmt: str) -> Fit | None:
    """Share of bandwidth that decode attention reads caches at, and its fixed time; None without any.

    The share is the median of the long contexts; the fixed time is what the smallest cache takes beyond
    its own reading.
    """
    points = sorted(measured.of("decode", fmt), key=lambda f: f.bytes)
    if not points:
        return None
    bandwidth = bandwidth_of(measured).best
    share = min(median(f.typical for f in points[1:] or points) / bandwidth, 1.0)
    latency = max(points[0].sample.median - points[0].bytes / (share * bandwidth), 0.0)
    predicted = [latency + f.bytes / (share * bandwidth) for f in points]
    source = f"planner measure, {fmt} {'; '.join(f.label for f in points)} (sequences x context)"
    return Fit(None, share, latency, source, None, _residual(predicted, points), len(points))


def prefill_fit(measured: Measurement, fmt: str) -> Fit | None:
    """Rate of causal attention and the prompt at which it is halved, from two lengths; None without both.

    ``1/r(S) = (1 + h/S)/r`` is a line in 1/S through two points: the form the planner prices prefill with.
    """
    points = sorted(measured.of("prefill", fmt), key=lambda f: f.tokens)
    peak = (peaks_of(measured).get("bf16") or peaks_of(measured).get("fp32")) if len(points) > 1 else None
    if peak is None:
        return None
    short, long = points[0], points[-1]
    slope = (1 / short.typical - 1 / long.typical) / (1 / short.tokens - 1 / long.tokens)
    slope = max(slope, 0.0)
    rate = 1 / max(1 / long.typical - slope / long.tokens, 1 / peak.best)
    half = max(slope * rate, 1.0)  # the loader takes 0 for unknown
    predicted = [f.flops / rate * (1 + half / f.tokens) for f in points]
    source = f"planner measure, {fmt} {'; '.join(f.label for f in points)}"
    return Fit(rate / peak.best, None, None, source, half, _residual(predicted, points), len(points))


def _residual(predicted: Sequence[float], figures: Sequence[Figure]) -> float:
    errors = [abs(p / f.sample.median - 1) for p, f in zip(predicted, figures, strict=True)]
    return sum(errors) / len(errors)


def quoted(text: str) -> str:
    r"""Text as TOML writes it, on one line.

    >>> print(quoted('a "b"'))
    "a \"b\""
    """
    return json.dumps(one_line(text), ensure_ascii=False)


def _figures(value: float) -> str:
    """Four significant figures, without an exponent where that reads better."""
    return f"{float(f'{value:.4g}'):.12g}"


class _Writer:
    """Lines of the file, and the sources they refer to."""

    def __init__(self, measured: Measurement) -> None:
        host = measured.host
        self.date = measured.date
        self.lines: list[str] = []
        self.sources: dict[str, str] = {}
        threads = f", {host.threads} thread{'s' if host.threads > 1 else ''}" if host.device == "cpu" else ""
        self.by = f"planner {planner.__version__} on {host.name}{threads}, {host.software}"

    def _source(self, key: str, citation: str | None = None) -> str:
        self.sources.setdefault(key, citation or self.by)
        return quoted(key)

    def fact(self, key: str, value: float, unit: str, kind: str, source: str, note: str, citation: str = "") -> None:
        """One fact in the unit given, with date and note."""
        self.lines.append(
            f"{key} = {{ value = {_figures(value)}, unit = {quoted(unit)}, kind = {quoted(kind)}, "
            f"source = {self._source(source, citation or None)}, date = {quoted(self.date)}, note = {quoted(note)} }}"
        )

    def rate(self, key: str, figure: Figure) -> None:
        """A measured ceiling with its repetitions and spread."""
        scale, unit = 1e9, "GB/s" if figure.unit == "B/s" else "GFLOP/s"
        if figure.best >= 1e13 and unit == "GFLOP/s":
            scale, unit = 1e12, "TFLOP/s"
        median_, sample = _figures(figure.typical / scale), figure.sample
        note = f"best of {sample.repetitions} repetitions; median {median_}, spread {sample.spread:.0%}"
        self.fact(key, figure.best / scale, unit, "measured", f"planner measure, {figure.method}", note)

    def achieved(self, operator: str, fmt: str, fit: Fit, kind: str = "measured", note: str = "") -> None:
        """One table of what an operator reaches."""
        self.lines += ["", f"[achieved.{operator}.{fmt}.generic]"]
        shares = {"compute": fit.compute, "memory": fit.memory}
        self.lines += [f"{key} = {_figures(value)}" for key, value in shares.items() if value is not None]
        if fit.latency is not None:
            self.lines.append(f"latency_us = {_figures(fit.latency * 1e6)}")
        if fit.half_tokens is not None:
            self.lines.append(f"half_tokens = {_figures(fit.half_tokens)}")
        if fit.residual is not None and kind == "measured":
            self.lines += [f"residual = {_figures(fit.residual)}", f"points = {fit.points}"]
        self.lines += [f"kind = {quoted(kind)}", f"source = {self._source(fit.source)}"]
        if note:
            self.lines.append(f"note = {quoted(note)}")


def entry_text(measured: Measurement, name: str) -> str:
    """The accelerator's file: TOML that the loader reads back; the same measurement, the same text."""
    host, out = measured.host, _Writer(measured)
    out.lines += [
        "# Written by planner measure. kind: measured is what it timed, derived what it took from elsewhere.",
        f"schema = {SCHEMA_VERSION}", f"name = {quoted(name)}", f"vendor = {quoted(host.vendor)}",
        f"architecture = {quoted(host.architecture)}", 'status = "available"', f"note = {quoted(_note(measured))}",
        "", "[memory]",
    ]  # fmt: skip
    for key, size in (("capacity", host.memory_bytes), ("on_chip", host.cache_bytes)):
        if size:
            out.fact(key, size / 2**20, "MiB", "derived", host.memory_from, "as reported, not measured",
                     f"what {host.memory_from} reports")  # fmt: skip
    out.rate("bandwidth", bandwidth_of(measured))
    peaks = peaks_of(measured)
    out.lines += ["", "[compute]"]
    for fmt in COMPUTE:
        if fmt in peaks:
            out.rate(fmt, peaks[fmt])
        elif fmt == "bf16" and "fp32" in peaks:
            out.fact("bf16", peaks["fp32"].best / 1e9, "GFLOP/s", "derived", f"planner measure, {peaks['fp32'].method}",
                     f"the fp32 rate; {WIDENED}")  # fmt: skip
    for operator, fit_of in (
        ("decode_attention", decode_fit),
        ("matmul", matmul_fit),
        ("prefill_attention", prefill_fit),
    ):
        for fmt in FORMATS:
            fit = fit_of(measured, fmt)
            widened = fit_of(measured, "fp32") if fit is None and fmt == "bf16" else None
            if fit is not None:
                out.achieved(operator, fmt, fit)
            elif widened is not None:
                out.achieved(operator, fmt, widened, "derived", f"the fp32 shares; {WIDENED}")
    for key, citation in out.sources.items():
        out.lines += ["", "[[sources]]", f"key = {quoted(key)}", f"citation = {quoted(citation)}",
                      f"retrieved = {quoted(measured.date)}"]  # fmt: skip
    return "\n".join(out.lines) + "\n"


def _note(measured: Measurement) -> str:
    """What the file's schema has no place for: other formats, noise, what was left out."""
    said = [out for out in (_others(measured),) if out]
    if measured.noisy:
        worst = measured.noisy[0]
        said.append(f"noisy: repetitions of {worst.label} spread {worst.sample.spread:.0%}")
    said += [f"left out: {item}" for item in measured.left_out]
    return "; ".join([*said, NOT_MEASURED])


def _others(measured: Measurement) -> str:
    rates = {fmt: f for fmt, f in peaks_of(measured).items() if fmt not in COMPUTE}
    return ", ".join(f"{fmt} matmul {f.best / 1e9:.4g} GFLOP/s" for fmt, f in rates.items())
