"""Microbenchmarks with torch: an NVIDIA or AMD GPU, or torch's own processor kernels where asked for.

torch comes with the ``gpu`` extra and is handed in, so that nothing here imports it. ROCm calls its device
cuda too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any

from planner.errors import one_line
from planner.measuring.figures import Figure, Host, Kind, Task, Unsupported
from planner.measuring.host import CACHE_UNKNOWN, cpu_host
from planner.measuring.timing import Stopwatch

GRAPH_CALLS = 100  # tiny operators in the captured graph
DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
#: what torch raises for an operator that a device or a build doesn't have; running out of memory is one too
REFUSALS = (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError)


@dataclass(frozen=True)
class TorchSizes:
    """Sizes of the benchmarks: ``stream`` [B], squares and weight matrices [elements], [tokens].

    ``attention``: pairs of sequences and context; the last is the short one. ``prompts``: two lengths.
    """

    stream: int
    square: int
    side: int
    rows: tuple[int, ...]
    attention: tuple[tuple[int, int], ...]
    prompts: tuple[int, int]
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128


def gpu_sizes(memory: float, cache: float, quick: bool) -> TorchSizes:
    """Sizes of a GPU with so much memory and last-level cache, [B]: the cache four times over at least."""
    stream = int(min(max(1e9, 4 * cache), memory / 8))
    square = 8192 if memory >= 16e9 else 4096
    if quick:
        return TorchSizes(stream, square, square, (1, 32, 1024), ((64, 4096), (1, 64)), (1024, 8192))
    attention = ((64, 4096), (8, 32768), (1, 64))
    return TorchSizes(stream, square, square, (1, 4, 16, 64, 256, 1024, 4096), attention, (1024, 16384))


class TorchKernels:
    """The benchmarks on one torch device: ``cuda`` (CUDA and ROCm alike), or ``cpu``.

    ``matmuls`` are the formats to try, by default every one the device may have; what it refuses raises
    Unsupported when its turn comes.
    """

    def __init__(self, torch: Any, device: str, matmuls: Sequence[str] | None = None) -> None:
        self.torch, self.device = torch, device
        self.gpu = device != "cpu"
        self.rocm = self.gpu and getattr(torch.version, "hip", None) is not None
        usual = [
            "fp32",
            *(["tf32"] if self.gpu and not self.rocm else []),
            "bf16",
            *(["fp16", "fp8", "int8"] * self.gpu),
        ]
        self.matmuls = tuple(usual if matmuls is None else matmuls)

    def host(self) -> Host:
        """The device as torch describes it; memory and cache in [B]."""
        torch = self.torch
        software = f"torch {torch.__version__}"
        if not self.gpu:
            return cpu_host(torch.get_num_threads(), software)
        seen = torch.cuda.get_device_properties(0)
        build = f"ROCm {torch.version.hip}" if self.rocm else f"CUDA {torch.version.cuda}"
        architecture = getattr(seen, "gcnArchName", "") if self.rocm else f"sm{seen.major}{seen.minor}"
        return Host(
            one_line(seen.name, 80), "AMD" if self.rocm else "NVIDIA", architecture, float(seen.total_memory),
            float(getattr(seen, "L2_cache_size", 0)) or None, 1, f"{software} with {build}", "cuda", "the driver",
        )  # fmt: skip

    def stopwatch(self, watch: Stopwatch) -> Stopwatch:
        """The stopwatch, waiting for the device before it is read."""
        return replace(watch, wait=self.torch.cuda.synchronize) if self.gpu else watch

    def sizes(self, quick: bool) -> TorchSizes:
        """Sizes for this device; see :func:`gpu_sizes`."""
        host = self.host()
        cache = host.cache_bytes or CACHE_UNKNOWN
        if self.gpu:
            return gpu_sizes(host.memory_bytes or 8e9, cache, quick)
        stream = int(min(max(256 * 2**20, 4 * cache), (host.memory_bytes or 8e9) / 8))
        return TorchSizes(
            stream, 1536, 4096, (1, 2, 4, 8, 16, 32, 64, 256), ((8, 4096), (1, 32768), (1, 64)), (256, 2048)
        )

    def tasks(self, quick: bool = False, sizes: TorchSizes | None = None) -> list[Task]:
        """What to measure, in order: reads, squares, rows of tokens, launches, attention."""
        at = sizes or self.sizes(quick)
        half = "bf16" if "bf16" in self.matmuls else "fp32"
        tasks = [
            self._task("memory copy", partial(self._copy, at=at)),
            self._task("memory reads, sum", partial(self._sum, at=at)),
            self._task(
                "memory reads, matrix times vector", partial(self._rows, at=at, fmt=half, tokens=1, kind="read")
            ),
        ]
        for fmt in self.matmuls:
            tasks.append(self._task(f"{fmt} matmul", partial(self._square, at=at, fmt=fmt)))
        for fmt in self.matmuls:
            if fmt in ("tf32", "fp16", "int8"):
                continue  # engines' formats of weights: fp32, bf16, fp8
            for m in at.rows:
                tasks.append(
                    self._task(
                        f"{fmt} matmul of {m} tokens", partial(self._rows, at=at, fmt=fmt, tokens=m, kind="rows")
                    )
                )
        tasks.append(self._task("launch of a tiny operator", self._launch))
        if self.gpu:
            tasks.append(self._task("tiny operator in a graph", self._graph))
        for batch, context in at.attention:
            label = f"decode attention {batch} x {context}"
            tasks.append(self._task(label, partial(self._decode, at=at, fmt=half, batch=batch, context=context)))
        for tokens in at.prompts:
            tasks.append(
                self._task(f"prefill attention {tokens}", partial(self._prefill, at=at, fmt=half, tokens=tokens))
            )
        return tasks

    def _task(self, label: str, run: Callable[[Stopwatch], Figure]) -> Task:
        """The task; a refusal of the device is Unsupported, and memory it took is given back."""

        def checked(watch: Stopwatch) -> Figure:
            try:
                with self.torch.inference_mode():
                    return run(watch)
            except REFUSALS as error:
                raise Unsupported(one_line(str(error), 120)) from None
            finally:
                if self.gpu:
                    self.torch.cuda.empty_cache()

        return Task(label, checked)

    # -- data and operators of a format ----------------------------------------------------------

    def _dtype(self, fmt: str) -> Any:
        torch = self.torch
        if fmt == "fp8":
            # CDNA 3 has its own fp8; later parts and NVIDIA the one of the OCP
            fnuz = self.rocm and "gfx94" in str(getattr(torch.cuda.get_device_properties(0), "gcnArchName", ""))
            return torch.float8_e4m3fnuz if fnuz else torch.float8_e4m3fn
        if fmt not in DTYPES:
            raise ValueError(f"torch has no {fmt}")
        return getattr(torch, DTYPES[fmt])

    def _bytes(self, fmt: str) -> int:
        return int(self._dtype(fmt).itemsize)

    def _random(self, shape: Sequence[int], fmt: str) -> Any:
        torch = self.torch
        if fmt == "int8":
            return torch.randint(-8, 8, tuple(shape), dtype=torch.int8, device=self.device)
        plain = "float32" if fmt in ("fp32", "tf32") else "bfloat16"
        return torch.randn(tuple(shape), dtype=getattr(torch, plain), device=self.device).to(self._dtype(fmt))

    def _multiply(self, fmt: str) -> Callable[[Any, Any], Any]:
        """``x @ w.T`` in a format, for x (tokens, inputs) and w (outputs, inputs)."""
        torch = self.torch
        if fmt in ("fp32", "tf32"):
            torch.backends.cuda.matmul.allow_tf32 = fmt == "tf32"
        if fmt == "fp8":
            one = torch.ones((), device=self.device)

            def scaled(x: Any, w: Any) -> Any:
                return torch._scaled_mm(x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

            return scaled
        if fmt == "int8":
            return lambda x, w: torch._int_mm(x, w.t())
        return lambda x, w: torch.nn.functional.linear(x, w)

    # -- benchmarks ------------------------------------------------------------------------------

    def _copy(self, watch: Stopwatch, at: TorchSizes) -> Figure:
        source = self._random((at.stream // 4,), "fp32")
        target = self.torch.empty_like(source)
        moved = 8.0 * source.numel()
        return Figure("read", "memory copy", f"copy of {moved / 2 / 2**20:.0f} MiB, read and written",
                      watch.time(lambda: target.copy_(source)), bytes=moved)  # fmt: skip

    def _sum(self, watch: Stopwatch, at: TorchSizes) -> Figure:
        source = self._random((at.stream // 4,), "fp32")
        moved = 4.0 * source.numel()
        return Figure("read", "memory reads, sum", f"sum of {moved / 2**20:.0f} MiB of fp32", watch.time(source.sum),
                      bytes=moved)  # fmt: skip

    def _square(self, watch: Stopwatch, at: TorchSizes, fmt: str) -> Figure:
        n, multiply = at.square, self._multiply(fmt)
        x, w = self._random((n, n), fmt), self._random((n, n), fmt)
        sample = watch.time(lambda: multiply(x, w))
        return Figure("matmul", f"{fmt} matmul", f"{fmt} matmul of {n} x {n} x {n}", sample, fmt, 2.0 * n**3,
                      3.0 * n * n * self._bytes(fmt))  # fmt: skip

    def _rows(self, watch: Stopwatch, at: TorchSizes, fmt: str, tokens: int, kind: Kind) -> Figure:
        """Few tokens through weights, by turns with copies that together leave the cache."""
        n, multiply, size = at.side, self._multiply(fmt), self._bytes(fmt)
        copies = [self._random((n, n), fmt) for _ in range(max(2, -(-at.stream // (size * n * n))))]
        x, turns = self._random((tokens, n), fmt), cycle(copies)
        sample = watch.time(lambda: multiply(x, next(turns)))
        label = "memory reads, matrix times vector" if kind == "read" else f"{fmt} matmul of {tokens} tokens"
        method = f"{fmt} matmul of {tokens} tokens by {n} x {n} weights that are not in cache"
        return Figure(kind, label, method, sample, "" if kind == "read" else fmt, 2.0 * tokens * n * n,
                      size * (n * n + 2.0 * tokens * n), tokens)  # fmt: skip

    def _launch(self, watch: Stopwatch) -> Figure:
        a = self._random((8, 8), "fp32")
        multiply = self._multiply("fp32")
        return Figure("call", "launch of a tiny operator", "fp32 matmul of 8 x 8 x 8, launched one after the other",
                      watch.time(lambda: multiply(a, a)), "fp32", 2.0 * 8**3, 3.0 * 256, 1)  # fmt: skip

    def _graph(self, watch: Stopwatch) -> Figure:
        """A captured graph of tiny operators, replayed; the time of one of them."""
        torch = self.torch
        a = self._random((8, 8), "fp32")
        out, graph, side = torch.empty_like(a), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                torch.mm(a, a, out=out)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            for _ in range(GRAPH_CALLS):
                torch.mm(a, a, out=out)
        sample = watch.time(graph.replay)
        each = replace(sample, seconds=tuple(s / GRAPH_CALLS for s in sample.seconds))
        return Figure("graph", "tiny operator in a graph", f"graph of {GRAPH_CALLS} fp32 matmuls of 8 x 8 x 8", each,
                      "fp32", 2.0 * 8**3, 3.0 * 256, 1)  # fmt: skip

    def _decode(self, watch: Stopwatch, at: TorchSizes, fmt: str, batch: int, context: int) -> Figure:
        """The queries of one KV head as rows of one matrix, as decode kernels group them."""
        attend = self.torch.nn.functional.scaled_dot_product_attention
        q = self._random((batch, at.kv_heads, at.heads // at.kv_heads, at.head_dim), fmt)
        k, v = (self._random((batch, at.kv_heads, context, at.head_dim), fmt) for _ in range(2))
        moved = 2.0 * self._bytes(fmt) * k.numel()
        sample = watch.time(lambda: attend(q, k, v))
        method = (
            f"scaled_dot_product_attention, {at.heads}/{at.kv_heads} heads of {at.head_dim}, {batch} sequences of "
            f"{context} tokens, {fmt}"
        )
        return Figure("decode", f"decode attention {batch} x {context}", method, sample, fmt,
                      4.0 * batch * at.heads * at.head_dim * context, moved, batch * context)  # fmt: skip

    def _prefill(self, watch: Stopwatch, at: TorchSizes, fmt: str, tokens: int) -> Figure:
        q = self._random((1, at.heads, tokens, at.head_dim), fmt)
        k, v = (self._random((1, at.kv_heads, tokens, at.head_dim), fmt) for _ in range(2))
        attend = self.torch.nn.functional.scaled_dot_product_attention
        sample = watch.time(lambda: attend(q, k, v, is_causal=True, enable_gqa=True))
        flops = 4.0 * at.heads * at.head_dim * tokens * (tokens + 1) / 2
        method = f"causal scaled_dot_product_attention, {at.heads}/{at.kv_heads} heads of {at.head_dim}, {fmt}"
        return Figure("prefill", f"prefill attention {tokens}", method, sample, fmt, flops,
                      2.0 * self._bytes(fmt) * k.numel(), tokens)  # fmt: skip
