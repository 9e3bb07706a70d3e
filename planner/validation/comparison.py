"""One measured figure beside the predicted one, and a row nobody could predict."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """A measured figure and ours, both in ``unit``; what it is of, for grouping.

    ``metric``: tpot, ttft, throughput, speedup, kernel, acceptance_length. ``statistic``: mean, p50 or
    p99. ``load``: concurrency, or what the benchmark offers. ``kind``: what was run (aggregated,
    disaggregated, offline, server, static, speculation, or the kernel). ``configuration``: rows that
    share everything but their parallelism have the same; empty where no choice was measured.
    ``extrapolates``: why the figure is outside what constants were fitted on, or nothing.
    """

    id: str
    file: str
    metric: str
    measured: float
    predicted: float
    unit: str
    statistic: str = "mean"
    accelerator: str = ""
    model: str = ""
    engine: str = ""
    precision: str = ""
    load: str = ""
    kind: str = ""
    configuration: str = ""
    extrapolates: str = ""

    @property
    def ratio(self) -> float:
        """Predicted over measured, [1]. Source: definition."""
        return self.predicted / self.measured

    @property
    def error(self) -> float:
        """Absolute relative error, [1]: ``|predicted/measured - 1|``. Source: definition.

        >>> Comparison("a", "f", "tpot", 0.020, 0.019, "s").error
        0.05
        """
        return abs(round(self.predicted / self.measured - 1, 12))


@dataclass(frozen=True)
class Skipped:
    """A row that holds nothing we predict, or misses what a prediction needs: which, and why."""

    id: str
    file: str
    reason: str
