"""A clock that only work moves, hosts and figures made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.measuring import Figure, Host, Measurement, Sample
from planner.measuring.cpu import Sizes
from planner.measuring.figures import Kind

HOST = Host("Some (R) CPU", "AMD", "x86_64", 16e9, 32 * 2**20, 2, "NumPy 2")
TINY = Sizes(2**16, 16, 32, (1, 4), ((2, 8), (1, 4)), 4, 2, 8)


class FakeClock:
    """Seconds that pass only in :meth:`work`, each call ``noise`` times longer than said, by turns."""

    def __init__(self, noise: Sequence[float] = (1.0,)) -> None:
        self.now = 0.0
        self.noise, self.calls = noise, 0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds * self.noise[self.calls % len(self.noise)]
            self.calls += 1

        return call


def figure(kind: Kind, seconds: float, *, fmt: str = "fp32", flops: float = 0.0, moved: float = 0.0, tokens: int = 0,
           spread: float = 0.0) -> Figure:  # fmt: skip
    times = (seconds,) * 3 if not spread else (seconds, seconds, seconds * (1 + 2 * spread))
    return Figure(kind, f"{fmt} {kind} {tokens or ''}".strip(), f"made-up {kind} {fmt} {tokens}", Sample(times), fmt,
                  flops, moved, tokens)  # fmt: skip


def roofline_machine(
    peak: float = 100e9, bandwidth: float = 20e9, compute: float = 0.8, memory: float = 0.9, latency: float = 1e-6,
    spread: float = 0.0, fmt: str = "fp32",
) -> Measurement:  # fmt: skip
    """What a machine that is exactly a roofline would have been measured as."""
    rows = []
    for tokens in (1, 4, 16, 64, 512):
        flops, moved = 2.0 * tokens * 4096**2, 4.0 * 4096**2
        seconds = latency + ((flops / compute / peak) ** 4 + (moved / memory / bandwidth) ** 4) ** 0.25
        rows.append(figure("rows", seconds, fmt=fmt, flops=flops, moved=moved, tokens=tokens))
    decode = [
        figure("decode", 5e-6 + moved / (0.5 * bandwidth), fmt=fmt, moved=moved, tokens=int(moved))
        for moved in (1e4, 1e8, 2e8)
    ]
    prefill = [
        figure("prefill", 1e9 / (0.4 * peak) * (1 + 300 / tokens), fmt=fmt, flops=1e9, tokens=tokens)
        for tokens in (256, 4096)
    ]
    figures = (
        figure("read", 1.0, fmt="", moved=bandwidth, spread=spread), figure("read", 1.2, fmt="", moved=bandwidth),
        figure("matmul", 1.0, fmt=fmt, flops=peak), *rows, figure("call", latency, fmt=fmt), *decode, *prefill,
    )  # fmt: skip
    return Measurement(HOST, "2026-01-02", figures)
