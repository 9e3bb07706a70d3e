"""One session on a GPU: its ceilings, kernels checked, and steps of every transformer timed. Needs only torch.

Everything is written as it comes, and what raises is recorded and passed by: sessions are short and may be cut off.
"""

from __future__ import annotations

import csv
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.gpu_operators import FP8, Fused, Plain
from bench.gpu_shapes import CONFIGS, TINY, Shape, shape_of
from bench.gpu_transformer import Transformer

COLUMNS = (
    "architecture", "phase", "batch", "context", "seconds", "seconds_min", "spread", "repetitions", "bytes", "flops",
    "distinct_experts", "attention_seconds", "matmul_seconds", "experts_seconds", "indexer_seconds", "choice_seconds",
    "attention_kernel", "experts_kernel", "graph", "error",
)  # fmt: skip
BATCHES, CONTEXTS = (1, 4, 16, 64, 256), (512, 2048, 8192, 32768, 131072)
WITHIN = {"gqa": 524288, "moe-128": 524288, "moe-8": 262144}  # tokens in the cache
USUAL_WITHIN = 1048576
PROMPTS = ((1, 512), (1, 2048), (1, 8192), (4, 2048), (1, 16384))
FLUSH = 256 * 2**20  # B written between repetitions, more than any last-level cache
REPETITIONS, MOST_SECONDS = 12, 0.25
LOST = 75  # exit status of a process whose device no longer answers


class Watch:
    """Times calls on the device, by events on a GPU; captured in a graph where asked."""

    def __init__(self, device: str, repetitions: int = REPETITIONS, flush: int = FLUSH) -> None:
        self.gpu, self.repetitions = device == "cuda", repetitions
        self.junk = torch.empty(flush // 4, device=device)

    def captured(self, call: Callable[[], object]) -> Callable[[], object]:
        """The call as one graph; itself on a processor."""
        if not self.gpu:
            return call
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call()
            call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def seconds(self, call: Callable[[], object], repetitions: int | None = None, flush: bool = True) -> list[float]:
        """Seconds of each repetition, the last-level cache overwritten before each."""
        wanted = repetitions or self.repetitions
        call()  # compiles, allocates
        self.wait()
        begun = time.perf_counter()
        call()
        self.wait()
        once = time.perf_counter() - begun
        if once * wanted > MOST_SECONDS and repetitions is None:
            wanted = max(5 if once > 0.1 else 10, int(MOST_SECONDS / once))
        if not self.gpu:
            return [self._host(call) for _ in range(min(wanted, 3))]
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(wanted)]
        for begin, end in marks:
            if flush:
                self.junk.zero_()
            begin.record()
            call()
            end.record()
        self.wait()
        return [begin.elapsed_time(end) / 1e3 for begin, end in marks]

    def _host(self, call: Callable[[], object]) -> float:
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun

    def alone(self, call: Callable[[], object], graph: bool = True, repetitions: int | None = None) -> float:
        """Median seconds of a part."""
        return statistics.median(self.seconds(self.captured(call) if graph else call, repetitions))

    def wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()


def spread(seconds: Sequence[float]) -> float:
    """90th less 10th percentile over the median, [1]."""
    if len(seconds) < 2:
        return 0.0
    tenths = statistics.quantiles(seconds, n=10, method="inclusive")
    return (tenths[8] - tenths[0]) / statistics.median(seconds)


class Session:
    """A folder that figures go to, and the device they are of."""

    def __init__(self, out: Path, device: str, quick: bool, budget: float, resume: bool = False) -> None:
        self.out, self.device, self.quick = out, device, quick
        self.begun, self.budget = time.perf_counter(), budget
        out.mkdir(parents=True, exist_ok=True)
        self.gpu = device == "cuda"
        self.watch = Watch(device, flush=FLUSH if self.gpu else 2**20)
        self.configs = CONFIGS if self.gpu else TINY
        self.notes: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d", time.gmtime()), "torch": torch.__version__, "device": device,
            "repetitions": self.watch.repetitions, "errors": [], "checks": {}, "finished": [], "configs": self.configs,
        }  # fmt: skip
        if resume:
            self.notes |= json.loads((out / "gpu_steps.json").read_text())
        if self.gpu:
            seen = torch.cuda.get_device_properties(0)
            self.notes |= {
                "name": seen.name, "memory": seen.total_memory, "cuda": torch.version.cuda,
                "processors": seen.multi_processor_count, "cache": getattr(seen, "L2_cache_size", 0),
            }  # fmt: skip
            import triton

            self.notes["triton"] = triton.__version__
        mode = "a" if resume else "w"
        self.points = (out / "gpu_steps.csv").open(mode, newline="")
        self.rows = csv.DictWriter(self.points, COLUMNS, restval="", lineterminator="\n")
        self.figures = (out / "gpu_steps_ceilings.csv").open(mode, newline="")
        self.ceilings = csv.writer(self.figures, lineterminator="\n")
        if not resume:
            self.rows.writeheader()
            self.ceilings.writerow(("figure", "unit", "best", "median", "spread", "repetitions", "method"))
        self.note()

    def note(self) -> None:
        self.notes["elapsed"] = time.perf_counter() - self.begun
        (self.out / "gpu_steps.json").write_text(json.dumps(self.notes, indent=1) + "\n")

    @property
    def left(self) -> float:
        return self.budget - (time.perf_counter() - self.begun)

    def say(self, text: str) -> None:
        print(f"[{time.perf_counter() - self.begun:6.1f} s] {text}", flush=True)

    def failed(self, where: str, error: BaseException) -> None:
        """Record what went wrong and go on."""
        text = f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        self.notes["errors"].append(text)
        self.say("FAILED " + text)
        self.note()
        gc.collect()
        if self.gpu:
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError:
                self.say("the device is lost to this process")
                sys.exit(LOST)

    def row(self, **values: Any) -> None:
        shown = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()}
        self.rows.writerow(shown)
        self.points.flush()

    # -- ceilings --------------------------------------------------------------------------------

    def figure(
        self, name: str, unit: str, work: float, method: str, call: Callable[[], object], graph: int = 0
    ) -> None:
        """One ceiling: work over seconds, or seconds of one of the ``graph`` operators in a graph."""
        try:
            run = self.watch.captured(call) if graph else call
            seconds = [s / max(graph, 1) for s in self.watch.seconds(run, None if self.gpu else 3)]
        except Exception as error:  # noqa: BLE001
            self.failed(name, error)
            return
        best, middle = min(seconds), statistics.median(seconds)
        rates = (best, middle) if unit == "s" else (work / best, work / middle)
        self.ceilings.writerow(
            (name, unit, *(f"{x:.6g}" for x in rates), f"{spread(seconds):.3g}", len(seconds), method)
        )
        self.figures.flush()
        self.say(f"{name}: {rates[0]:.4g} {unit}")

    def take_ceilings(self) -> None:
        """Reads, copies, matmuls and launches of this session."""
        size = 2**30 if self.gpu else 2**22
        bf16 = {"dtype": torch.bfloat16, "device": self.device}
        source = torch.randn(size, **bf16)
        target = torch.empty_like(source)
        moved = 2.0 * source.numel()
        self.figure("copy", "B/s", 2 * moved, "bf16 copy of 2 GiB, read and written", lambda: target.copy_(source))
        self.figure("read, sum", "B/s", moved, "bf16 sum of 2 GiB", lambda: source.sum())
        if self.gpu:
            self._read(source)
        side = 16384 if self.gpu else 512
        matrix, one = source[: side * side].view(side, side), torch.randn((1, side), **bf16)
        self.figure("read, matrix times vector", "B/s", 2.0 * side * side, f"bf16 {side} x {side} by one vector",
                    lambda: torch.nn.functional.linear(one, matrix))  # fmt: skip
        n = 8192 if self.gpu else 256
        left, right = torch.randn((n, n), **bf16), torch.randn((n, n), **bf16)
        self.figure("bf16 matmul", "FLOP/s", 2.0 * n**3, f"bf16 {n} x {n} x {n}, random", lambda: left @ right)
        if self.gpu:
            scale = torch.ones((), device=self.device)
            eights = (left.to(FP8), right.to(FP8).t().contiguous().t())
            self.figure("fp8 matmul", "FLOP/s", 2.0 * n**3, f"fp8 {n} x {n} x {n}, random", lambda: torch._scaled_mm(
                *eights, scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16))  # fmt: skip
        tiny = torch.randn((8, 8), **bf16)
        out = torch.empty_like(tiny)
        count = 500

        def many() -> None:
            for _ in range(count):
                torch.mm(tiny, tiny, out=out)

        self.figure("node of a graph", "s", 0.0, f"bf16 8 x 8 x 8 matmul, one of {count} in a graph", many, count)
        self.figure("launch", "s", 0.0, "bf16 8 x 8 x 8 matmul, launched alone", lambda: torch.mm(tiny, tiny, out=out))

    def _read(self, source: torch.Tensor) -> None:
        from bench.gpu_kernels import read_all

        blocks, size = 132 * 16, 4096
        sink = torch.empty(blocks, device=self.device)
        self.figure("read, kernel", "B/s", 2.0 * source.numel(), "bf16 2 GiB summed by a kernel that only reads",
                    lambda: read_all[(blocks,)](source, sink, source.numel(), size, num_warps=8))  # fmt: skip

    # -- one transformer -------------------------------------------------------------------------

    def operators(self, shape: Shape, longest: int) -> Plain:
        """Fused ones on a GPU, each that disagrees with torch's replaced by it."""
        dims = (shape.rope,) if shape.latent else (shape.head_dim,)
        if not self.gpu:
            return Plain(self.device, longest, dims)
        from bench.gpu_checks import checked

        return checked(Fused(self.device, longest, dims, self.notes["processors"]), shape, self)

    def run(self, name: str, until: float) -> None:
        """All points of one transformer that fit its time."""
        shape = shape_of(name, self.configs[name])
        contexts = CONTEXTS if self.gpu else (32, 128)
        batches = BATCHES if self.gpu else (1, 4)
        prompts = PROMPTS if self.gpu else ((1, 32), (2, 128))
        within = WITHIN.get(name, USUAL_WITHIN)
        decode = [(b, c) for c in contexts for b in batches if b * c <= within]
        if name in ("mla-16", "moe-8"):
            prompts = prompts[1:3]
        if self.quick:
            decode, prompts = decode[::3], prompts[1:2]
        ops = self.operators(shape, max(max(contexts), max(t for _, t in prompts)) + 1)
        most = max(max(batches), max(b * t for b, t in prompts))
        model = Transformer(shape, ops, self.device, max(b * c for b, c in decode), most)
        self.say(f"{name}: built, {len(decode)} steps, {len(prompts)} prompts")
        fixed: dict[tuple[int, bool], dict[str, Any]] = {}
        left_out = 0
        # prompts early, in case time runs out: they are few; then contexts in turn
        jobs = [("decode", *p) for p in decode[:3]] + [("prefill", *p) for p in prompts] + [
            ("decode", *p) for p in decode[3:]
        ]  # fmt: skip
        for phase, batch, context in jobs:
            if self.left < until:
                left_out += 1
                continue
            try:
                self.point(model, phase, batch, context, fixed)
            except Exception as error:  # noqa: BLE001
                self.failed(f"{name} {phase} {batch} x {context}", error)
                self.row(architecture=name, phase=phase, batch=batch, context=context, error=type(error).__name__)
        if left_out:
            self.notes["errors"].append(f"{name}: {left_out} points left out, no time")
        self.note()

    def point(
        self, model: Transformer, phase: str, batch: int, context: int, fixed: dict[tuple[int, bool], dict[str, Any]]
    ) -> None:
        """Choose kernels, time the step or the prompts and their parts, write the row."""
        shape, decode = model.shape, phase == "decode"
        rows = batch if decode else batch * context
        row: dict[str, Any] = {}
        absorbed = decode or (shape.sparse and context > shape.chosen)
        if (rows, absorbed) not in fixed:
            fixed[rows, absorbed] = self.parts(model, rows, decode, absorbed, batch)
        row |= fixed[rows, absorbed]
        if shape.experts:
            model.how["experts"] = row["experts_kernel"]
        if decode:
            best = self.best(
                model, "attention", model.ops.variants(shape.latent, shape.sparse),
                lambda: model.attention_alone(batch, context), True,
            )  # fmt: skip
            if shape.sparse:
                score, choose = model.index_alone(batch, context)
                row |= {"indexer_seconds": self.watch.alone(score), "choice_seconds": self.watch.alone(choose)}
        elif absorbed:
            best = (model.how["attention"], None)  # the last decode step's
        else:
            kinds = ("flash", "cudnn") if self.gpu else ("any",)
            best = self.best(model, "causal", kinds, lambda: model.causal_alone(batch, context), False)
        row |= {"attention_kernel": best[0], "attention_seconds": "" if best[1] is None else best[1]}
        tokens = batch * (1 if decode else context)
        ids = torch.randint(0, model.embedding.shape[0], (tokens,), device=self.device)
        call: Callable[[], object] = lambda: model.forward(ids, batch, context, decode)  # noqa: E731
        seconds = self.watch.seconds(self.watch.captured(call) if decode else call)
        moved, flops = shape.count(phase, batch, context, float(row.get("distinct_experts", 0.0)))
        middle = statistics.median(seconds)
        self.row(
            architecture=shape.name, phase=phase, batch=batch, context=context, seconds=middle,
            seconds_min=min(seconds), spread=spread(seconds), repetitions=len(seconds), bytes=moved, flops=flops,
            graph=int(decode and self.gpu), **row,
        )  # fmt: skip
        parts = ", ".join(f"{k[:-8]} {v * 1e3:.3f}" for k, v in row.items() if k.endswith("_seconds") and v != "")
        self.say(
            f"{shape.name} {phase} {batch} x {context}: {middle * 1e3:.3f} ms ({parts}) "
            f"{moved / middle / 1e9:.0f} GB/s {flops / middle / 1e12:.1f} TFLOP/s {row['attention_kernel']} "
            f"{row.get('experts_kernel', '')}"
        )

    def parts(self, model: Transformer, rows: int, decode: bool, absorbed: bool, batch: int) -> dict[str, Any]:
        """Times of what depends on the number of tokens alone: weight matmuls and experts."""
        shape = model.shape
        found: dict[str, Any] = {}
        found["matmul_seconds"] = self.watch.alone(model.matmuls_alone(rows, absorbed, batch), decode)
        if shape.experts:
            made = model.experts_alone(rows)
            kinds = model.ops.expert_variants()
            kernel, seconds = self.best(model, "experts", kinds, lambda: made[0], decode)
            found |= {"experts_kernel": kernel, "experts_seconds": seconds, "distinct_experts": made[1]}
        return found

    def best(
        self, model: Transformer, part: str, kinds: Sequence[str], made: Callable[[], Any], graph: bool
    ) -> tuple[str, float]:
        """The fastest kind of a part and its seconds; the model takes it from then on."""
        call = made()
        found: dict[str, float] = {}
        failures = self.notes.setdefault("unusable", {})
        for kind in kinds:
            key = f"{model.shape.name} {part} {kind}"
            if key in failures:
                continue
            model.how[part] = kind
            try:
                found[kind] = self.watch.alone(call, graph, 5 if len(kinds) > 1 else None)
            except Exception as error:  # noqa: BLE001
                failures[key] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                self.failed(key, error)
        if not found:
            raise RuntimeError(f"no kernel for {part}")
        model.how[part] = min(found, key=lambda k: found[k])
        return model.how[part], found[model.how[part]]


def measure(out: Path, device: str, quick: bool, budget: float, only: Sequence[str], resume: bool) -> None:
    """The session, or the rest of one."""
    torch.manual_seed(0)
    session = Session(out, device, quick, budget, resume)
    session.say(f"{session.notes.get('name', device)}, torch {torch.__version__}")
    with torch.inference_mode():
        if not resume:
            session.take_ceilings()
            session.note()
        names = [n for n in session.configs if n in only]
        for done, name in enumerate(names):
            gc.collect()
            if session.gpu:
                torch.cuda.empty_cache()
            # each gets up to half as much again as an equal share of what is left
            share = session.left / (len(names) - done)
            try:
                session.run(name, max(session.left - 1.5 * share, 3.0))
            except Exception as error:  # noqa: BLE001
                session.failed(name, error)
            session.notes["finished"].append(name)
    session.note()
    session.say(f"done, {len(session.notes['errors'])} errors")


def watched(out: Path, device: str, quick: bool, budget: float, only: Sequence[str]) -> int:
    """The session in a process of its own, started again without the transformer that lost the device."""
    begun = time.perf_counter()
    rest, resume = [n for n in CONFIGS if not only or n in only], False
    while rest:
        left = budget - (time.perf_counter() - begun)
        if left < 15:
            break
        command = [sys.executable, "-m", "bench.gpu_steps", "measure", "--out", str(out), "--device", device,
                   "--budget", f"{left:.0f}", "--child", *(["--quick"] if quick else []),
                   *(["--resume"] if resume else []), "--only", *rest]  # fmt: skip
        try:
            status = subprocess.run(command, timeout=left + 45, check=False).returncode
        except subprocess.TimeoutExpired:
            print("stopped: it did not end", flush=True)
            return 1
        if status == 0:
            return 0
        notes = out / "gpu_steps.json"
        finished = json.loads(notes.read_text())["finished"] if notes.exists() else []
        rest = [n for n in rest if n not in finished][1:]
        resume = notes.exists()
        print(f"ended with {status}; left to do: {', '.join(rest) or 'nothing'}", flush=True)
    return 1
