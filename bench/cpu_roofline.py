"""A transformer on one processor thread beside the planner's step, ceilings measured in the same session.

Needs torch, in an environment of its own: ``pip install . torch``, then
``OMP_NUM_THREADS=1 python -m bench.cpu_roofline``. Writes bench/data/cpu_roofline.csv and the ceilings to
bench/data/cpu_roofline_ceilings.csv; takes some minutes. ``--summary`` only reads them.

The model is random weights, fp32: hidden 1024, 8 layers, 16 query and 4 KV heads, 94 million parameters, a static
cache. Ceilings come from planner.measuring with torch's kernels, which the model runs on, and once more with
NumPy's, as ``planner measure --device cpu --threads 1`` takes them. All times are processor time of the one thread:
the machine is shared, and time in which another program runs is nobody's.
"""

from __future__ import annotations

import csv
import datetime
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import commented_csv
from planner.cost.layout import Layout
from planner.cost.machine import Machine, machine
from planner.cost.prefill import PrefillModel
from planner.cost.roofline import Ceiling
from planner.cost.step import StepModel
from planner.documents import parse_toml
from planner.hardware import load_database
from planner.hardware.loading import parse_accelerator
from planner.measuring import Measurement, Stopwatch, entry_text, measure
from planner.measuring.entry import bandwidth_of, peaks_of
from planner.models import load_config

DATA = Path(__file__).resolve().parent / "data" / "cpu_roofline.csv"
CEILINGS = DATA.with_name("cpu_roofline_ceilings.csv")
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "num_hidden_layers": 8,
    "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 2816, "vocab_size": 4096,
    "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CONTEXTS = (128, 512, 2048, 8192)
PROMPTS = (128, 256, 512, 1024, 2048)
FLOOR = 0.9  # of the bound, below which no measured point may lie


@dataclass(frozen=True)
class Point:
    """One row: a decode step of ``batch`` sequences after ``context`` tokens, or a prompt of so many."""

    kind: str
    batch: int
    context: int
    seconds: float
    spread: float
    repetitions: int
    predicted: float
    bound: float
    predicted_numpy: float
    bound_numpy: float


# -- the planner's side --------------------------------------------------------------------------


def priced(measured: Measurement) -> Machine:
    """The machine of the measured entry, through the loader; no engine, so no engine's overheads."""
    database = load_database()
    chip = parse_accelerator(parse_toml(entry_text(measured, "here"), "here.toml"), database.defaults)
    built = machine(chip, database.engine("generic"), ["fp32"], "fp32")
    return replace(built, **{f.name: 0.0 for f in fields(Machine) if f.name.endswith("_overhead")})


def ideal(measured: Measurement) -> Machine:
    """Only the ceilings: the fastest matmul and the fastest read, no fixed times."""
    roof = Ceiling(peaks_of(measured)["fp32"].best, bandwidth_of(measured).best)
    return Machine(dict.fromkeys(priced(measured).ceilings, roof))


def seconds_of(on: Machine, kind: str, batch: int, context: int) -> float:
    """The planner's time of a point, [s]."""
    step = StepModel(load_config(CONFIG, name="bench"), dict.fromkeys(("attention", "mlp", "head"), "fp32"), "fp32")
    if kind == "decode":
        return float(step.decode(on, Layout(), float(batch), [float(context)]).seconds)
    prefill = PrefillModel(step, on, Layout(), float(context))
    return float(np.ravel(prefill.seconds(np.array([float(context)]), np.array([0.0])))[0])


# -- torch's side --------------------------------------------------------------------------------


class Transformer:
    """Random weights in the shapes of :data:`CONFIG`, projections fused as engines fuse them."""

    def __init__(self, torch: Any, tokens: int) -> None:
        self.torch = torch
        c = CONFIG
        h, i, self.layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
        self.heads, self.kv = c["num_attention_heads"], c["num_key_value_heads"]
        self.dim = h // self.heads

        def weights(outputs: int, inputs: int) -> Any:
            return torch.randn(outputs, inputs) / inputs**0.5

        self.qkv = [weights((self.heads + 2 * self.kv) * self.dim, h) for _ in range(self.layers)]
        self.out = [weights(h, h) for _ in range(self.layers)]
        self.up = [weights(2 * i, h) for _ in range(self.layers)]
        self.down = [weights(h, i) for _ in range(self.layers)]
        self.norm = torch.ones(h)
        self.embedding = torch.randn(c["vocab_size"], h) / h**0.5
        # one static cache, viewed as whatever batch and context a point has
        self.flat = [[torch.randn(tokens * self.kv * self.dim) for _ in range(2)] for _ in range(self.layers)]

    @property
    def parameters(self) -> int:
        return sum(w.numel() for ws in (self.qkv, self.out, self.up, self.down) for w in ws) + self.embedding.numel()

    def cache(self, batch: int, context: int) -> list[list[Any]]:
        n = batch * self.kv * context * self.dim
        return [[f[:n].view(batch, self.kv, context, self.dim) for f in pair] for pair in self.flat]

    def rotate(self, x: Any, cos: Any, sin: Any) -> Any:
        half = x.shape[-1] // 2
        return x * cos + self.torch.cat((-x[..., half:], x[..., :half]), -1) * sin

    def forward(self, ids: Any, cache: list[list[Any]] | None) -> Any:
        """Decode with a cache (its last place is the new token's), prefill without."""
        torch, functional = self.torch, self.torch.nn.functional
        batch, tokens = ids.shape
        x = self.embedding[ids]
        cos = sin = torch.ones(self.dim)
        for layer in range(self.layers):
            y = functional.rms_norm(x, x.shape[-1:], self.norm)
            split = functional.linear(y, self.qkv[layer]).view(batch, tokens, self.heads + 2 * self.kv, self.dim)
            q, k, v = split.transpose(1, 2).split((self.heads, self.kv, self.kv), 1)
            q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
            if cache is None:
                a = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            else:
                keys, values = cache[layer]
                keys[:, :, -1:], values[:, :, -1:] = k, v
                grouped = q.reshape(batch, self.kv, self.heads // self.kv, self.dim)
                a = functional.scaled_dot_product_attention(grouped, keys, values).reshape(batch, self.heads, 1, -1)
            x = x + functional.linear(a.transpose(1, 2).reshape(batch, tokens, -1), self.out[layer])
            gate, up = functional.linear(functional.rms_norm(x, x.shape[-1:], self.norm), self.up[layer]).chunk(2, -1)
            x = x + functional.linear(functional.silu(gate) * up, self.down[layer])
        return functional.linear(functional.rms_norm(x[:, -1], x.shape[-1:], self.norm), self.embedding)


def points_of(tokens: int) -> list[tuple[str, int, int]]:
    """Decode steps whose cache has at most ``tokens``, and prompts."""
    decode = [("decode", b, s) for b in BATCHES for s in CONTEXTS if b * s <= tokens]
    return decode + [("prefill", 1, s) for s in PROMPTS]


def run(tokens: int) -> tuple[list[Point], dict[str, Measurement], int]:
    """Every point and both sets of ceilings."""
    import torch

    from planner.measuring.gpu import TorchKernels
    from planner.measuring.session import run_tasks

    torch.manual_seed(0)
    torch.set_num_threads(1)
    watch = Stopwatch(1.0, 7, clock=time.thread_time)
    today = datetime.date.today().isoformat()

    def said(label: str, done: int, total: int) -> None:
        print(f"  {done + 1} of {total}: {label}", file=sys.stderr)

    kernels = TorchKernels(torch, "cpu", ("fp32",))
    figures, left_out = run_tasks(kernels.tasks(), watch, said)
    measured = {"torch": Measurement(kernels.host(), today, tuple(figures), tuple(left_out))}
    measured["numpy"] = measure("cpu", threads=1, watch=watch, said=said)
    machines = {name: (priced(m), ideal(m)) for name, m in measured.items()}
    model = Transformer(torch, tokens)
    points = []
    with torch.inference_mode():
        for kind, batch, context in points_of(tokens):
            ids = torch.zeros((batch, 1 if kind == "decode" else context), dtype=torch.long)
            cache = model.cache(batch, context) if kind == "decode" else None
            call: Callable[[], Any] = lambda ids=ids, cache=cache: model.forward(ids, cache)  # noqa: E731
            sample = watch.time(call)
            times = [seconds_of(m, kind, batch, context) for name in ("torch", "numpy") for m in machines[name]]
            points.append(Point(kind, batch, context, sample.median, sample.spread, sample.repetitions, *times))
            print(f"  {kind} {batch} x {context}: {sample.median:.4f} s, predicted {times[0]:.4f}", file=sys.stderr)
    return points, measured, model.parameters


# -- what it says --------------------------------------------------------------------------------


def ranks(values: list[float]) -> Any:
    return np.argsort(np.argsort(values))


def summary(points: list[Point]) -> dict[str, float]:
    """Mean absolute percentage error, median of it, rank correlation, and the lowest measured over bound.

    >>> one = Point("decode", 1, 1, 2.0, 0.0, 1, 1.0, 1.0, 1.0, 1.0)
    >>> summary([one, replace(one, seconds=4.0, predicted=5.0)])["mape"]
    0.375
    """
    seconds = np.array([p.seconds for p in points])
    found = {}
    for suffix in ("", "_numpy"):
        predicted = np.array([getattr(p, f"predicted{suffix}") for p in points])
        bound = np.array([getattr(p, f"bound{suffix}") for p in points])
        errors = np.abs(predicted / seconds - 1)
        found[f"mape{suffix}"] = float(errors.mean())
        found[f"median{suffix}"] = float(np.median(errors))
        found[f"bias{suffix}"] = float((predicted / seconds).mean() - 1)
        found[f"rank{suffix}"] = float(np.corrcoef(ranks(list(seconds)), ranks(list(predicted)))[0, 1])
        found[f"lowest{suffix}"] = float((seconds / bound).min())
    return found


def write(points: list[Point], measured: dict[str, Measurement], parameters: int) -> None:
    """Both files, comments first: how they were obtained."""
    torch, numpy = (measured[name].host for name in ("torch", "numpy"))
    load = max(0.0, os.getloadavg()[1] - 1)
    said = [
        f"{measured['torch'].date}, OMP_NUM_THREADS=1 python -m bench.cpu_roofline on {torch.name}, 1 thread; "
        f"meanwhile {load:.1f} other programs ran on {os.cpu_count()} cores",
        f"{torch.software}; {numpy.software}; {parameters / 1e6:.1f} million parameters, fp32",
        "seconds: median of processor time; predicted and bound: ceilings of torch's kernels, then of NumPy's",
    ]
    with DATA.open("w", newline="") as file:
        file.writelines(f"# {line}\n" for line in said)
        rows = csv.DictWriter(file, [f.name for f in fields(Point)], lineterminator="\n")
        rows.writeheader()
        for point in points:
            rows.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(point).items()})
    with CEILINGS.open("w", newline="") as file:
        file.writelines(f"# {line}\n" for line in said[:2])
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("kernels", "figure", "unit", "best", "median", "spread", "repetitions", "method"))
        for name, found in measured.items():
            for f in found.figures:
                rates = (f"{f.best:.6g}", f"{f.typical:.6g}", f"{f.sample.spread:.3g}")
                table.writerow((name, f.label, f.unit, *rates, f.sample.repetitions, f.method))


def read(path: Path = DATA) -> list[Point]:
    """The points of the file."""
    kinds = {f.name: {"str": str, "int": int, "float": float}[str(f.type)] for f in fields(Point)}
    return [Point(**{k: kinds[k](v) for k, v in row.items()}) for row in commented_csv.rows(path)]


def main() -> int:
    """Measure and write unless ``--summary``, then print; 1 when a point lies below the floor."""
    if "--summary" not in sys.argv:
        wanted = [int(a.split("=")[1]) for a in sys.argv if a.startswith("--tokens=")]
        write(*run(wanted[0] if wanted else max(BATCHES) * max(CONTEXTS)))
    points = read()
    for kind in ("decode", "prefill", ""):
        some = [p for p in points if p.kind == kind or not kind]
        found = summary(some)
        print(kind or "all", len(some), ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
    return int(summary(points)["lowest"] < FLOOR)


if __name__ == "__main__":
    sys.exit(main())
