"""An accelerator: its facts with their sources, and what its kernels achieve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from planner.models.formats import FORMATS

ENGINES = ("vllm", "sglang", "trtllm")
ANY = "any"
#: formats tried when an operator has no entry for the one asked, nearest first
NEIGHBOURS = {
    "fp8": ("fp8-block",), "fp8-block": ("fp8",), "nvfp4": ("mxfp4",), "mxfp4": ("nvfp4",),
    "int4": (), "int4-g32": ("int4",), "int8": ("fp8",), "fp32": ("bf16",), "bf16": (),
}  # fmt: skip


#: architectures of processors, which run other kernels than their vendors' accelerators
PROCESSORS = ("x86_64", "amd64", "aarch64", "arm64", "ppc64le", "riscv64", "s390x")


@dataclass(frozen=True)
class Fact:
    """One figure with its provenance; ``value`` in SI, ``unit`` as the source gives it."""

    value: float
    unit: str
    kind: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Scale:
    """Factors a calibration puts on an operator: on achieved rates and bandwidths, and on the fixed time, [1]."""

    compute: float = 1.0
    memory: float = 1.0
    latency: float = 1.0
    bandwidth: float = 1.0

    def times(self, other: Scale) -> Scale:
        """Both factors, [1]. Source: definition."""
        return Scale(
            self.compute * other.compute,
            self.memory * other.memory,
            self.latency * other.latency,
            self.bandwidth * other.bandwidth,
        )


@dataclass(frozen=True)
class Efficiency:
    """What an operator reaches: shares of dense peak and of bandwidth [1], time per call [s].

    ``half_tokens`` [tokens]: prompt length at which a prefill kernel reaches half its rate.
    ``activation``: times a kernel of experts moves its routed tokens in and out, [1].
    ``residual``: mean absolute relative error of the fit, None where nothing was fitted.
    """

    compute: float
    memory: float
    latency_s: float
    half_tokens: float = 0.0
    activation: float = 1.0
    residual: float | None = None
    kind: str = "derived"
    source: str = ""


@dataclass(frozen=True)
class AllReduce:
    """``latency_s`` [s] plus bytes over ``bandwidth`` [B/s]."""

    latency_s: float
    bandwidth: float
    kind: str = "derived"
    source: str = ""
    residual: float | None = None


@dataclass(frozen=True)
class AllToAll:
    """One exchange among ranks: ``latency_s`` [s], ``bandwidth`` [B/s]; ``hop_latency_s`` between nodes."""

    latency_s: float
    bandwidth: float
    hop_latency_s: float
    stage_latency_s: float


@dataclass(frozen=True)
class Defaults:
    """Fallbacks of ``hardware_db/defaults.toml``: achieved efficiencies, links, vendor overrides."""

    achieved: Mapping[str, Mapping[str, Efficiency]]
    vendors: Mapping[str, Mapping[str, Mapping[str, Efficiency]]]
    all_reduce: Mapping[str, Any]
    all_to_all: Mapping[str, Any]


@dataclass(frozen=True)
class Accelerator:
    """One part as people name it. Rates are dense; a vendor's sparse peak is never stored."""

    name: str
    vendor: str
    architecture: str
    status: str
    facts: Mapping[str, Fact]
    achieved: Mapping[str, Mapping[str, Mapping[str, Efficiency]]]
    all_reduces: Mapping[str, Mapping[int, AllReduce]]
    defaults: Defaults
    released: int | None = None
    aliases: tuple[str, ...] = ()
    link: str = ""
    pcie: str = ""
    memory_type: str = ""
    confidence: str = ""
    note: str = ""
    sources: tuple[tuple[str, str, str], ...] = ()
    file: str = ""
    scales: Mapping[str, Mapping[str, Mapping[str, Scale]]] = field(default_factory=dict)
    _cache: dict[tuple[str, str, str], Efficiency] = field(default_factory=dict, compare=False, repr=False)

    def fact(self, path: str) -> Fact | None:
        """The fact at ``section.key`` in SI with its provenance, or None. Source: its own."""
        return self.facts.get(path)

    def _value(self, path: str) -> float | None:
        fact = self.facts.get(path)
        return fact.value if fact else None

    @property
    def kernels(self) -> str:
        """Whose kernels it runs, which its calibrations share: the vendor's, or those of a processor's architecture."""
        return self.architecture if self.architecture.lower() in PROCESSORS else self.vendor

    @property
    def memory_bytes(self) -> float:
        """Memory the driver shows, or the label's where that was not read, [B]. Source: the facts."""
        return self._value("memory.usable") or self._value("memory.capacity") or 0.0

    @property
    def memory_label_bytes(self) -> float:
        """Memory on the vendor's label, [B]. Source: the facts."""
        return self._value("memory.capacity") or self.memory_bytes

    @property
    def bandwidth(self) -> float:
        """Memory bandwidth, [B/s]. Source: the facts."""
        return self._value("memory.bandwidth") or 0.0

    @property
    def on_chip_bytes(self) -> float | None:
        """Last-level cache or on-chip memory, [B]. Source: the facts."""
        return self._value("memory.on_chip")

    @property
    def scale_up_domain(self) -> int:
        """Accelerators that reach each other without the network, [1]. Source: the facts."""
        return int(self._value("interconnect.domain") or 1)

    @property
    def scale_up_bandwidth(self) -> float:
        """One direction of one accelerator's links inside the domain, [B/s]. Source: the facts."""
        return self._value("interconnect.scale_up") or 16e9

    @property
    def per_pair_bandwidth(self) -> float | None:
        """Bandwidth between one pair on point-to-point meshes, [B/s]. Source: the facts."""
        return self._value("interconnect.per_pair")

    @property
    def scale_out_bandwidth(self) -> float | None:
        """Network bandwidth of one accelerator, [B/s]. Source: the facts."""
        return self._value("interconnect.scale_out")

    @property
    def tdp_w(self) -> float | None:
        """Thermal design power, [W]. Source: the facts."""
        return self._value("power.tdp")

    @property
    def missing(self) -> str:
        """Facts a plan needs and this part lacks, comma separated. Source: the facts."""
        needed = {
            "memory": self.memory_bytes >= 4e9,
            "bandwidth": bool(self.bandwidth),
            "bf16 peak": self.peak("bf16") is not None,
        }
        return ", ".join(name for name, there in needed.items() if not there)

    @property
    def plannable(self) -> bool:
        """Whether memory, bandwidth and a bf16 peak are known. Source: the facts."""
        return not self.missing

    def peak(self, compute_format: str) -> float | None:
        """Dense peak of a compute format, [FLOP/s], or None when the part has none.

        Source: the facts.
        """
        return self._value(f"compute.{compute_format}")

    def compute_format(self, weight_format: str) -> str:
        """Format the tensor cores multiply ``weight_format`` weights in, a name.

        The first the part has a peak for: fp8 weights on a chip without fp8 run in bf16.
        Source: planner.models.formats.
        """
        for name in FORMATS[weight_format].compute:
            if self.peak(name) is not None:
                return name
        return "bf16"

    def ridge_point(self, compute_format: str = "bf16") -> float | None:
        """Arithmetic intensity where compute and memory balance, [FLOP/B].

        Source: Williams, Waterman & Patterson, CACM 52(4) 2009.
        """
        peak = self.peak(compute_format)
        return peak / self.bandwidth if peak and self.bandwidth else None

    def efficiency(self, operator: str, fmt: str, engine: str = "generic") -> Efficiency:
        """What ``operator`` reaches in ``fmt`` under ``engine``: see :class:`Efficiency`, [1] and [s].

        The engine's own fit, else the median of the engines fitted, else the nearest format's, else
        the vendor's or the general default; a calibration's scales on it, never beyond the peak. KeyError
        for an operator nobody knows. Source: in it.
        """
        key = (operator, fmt, engine)
        if key not in self._cache:
            found, scale = self._efficiency(operator, fmt, engine), self.scale(operator, fmt, engine)
            if scale != Scale():
                found = replace(
                    found,
                    compute=min(1.0, found.compute * scale.compute),
                    memory=min(1.0, found.memory * scale.memory),
                    latency_s=found.latency_s * scale.latency,
                )
            self._cache[key] = found
        return self._cache[key]

    def graphed_latency(self, operator: str, fmt: str, engine: str = "generic") -> float:
        """Fixed time of a call launched by a CUDA graph, [s]: the least that any engine's table has on this part.

        Tables of kernels are taken call by call, so an engine whose host launches slowly (TensorRT-LLM quantises
        activations in a call of its own: fp8 matmuls take 13 to 16 us where others take 7) shows its host in them.
        Source: fits in ``hardware_db/accelerators``; serving results of Llama 70B on B200 (docs/accuracy.md).
        """
        own = self.efficiency(operator, fmt, engine).latency_s
        factor = self.scale(operator, fmt, engine).latency
        tables = self.achieved.get(operator, {}).get(fmt, {}).values()
        return min([own, *(e.latency_s * factor for e in tables if e.latency_s > 0)])

    def scale(self, operator: str, fmt: str = ANY, engine: str = ANY) -> Scale:
        """Factors of the calibrations on an operator in a format under an engine, [1]. Source: the calibrations."""
        found = Scale()
        for owner in dict.fromkeys((ANY, engine)):
            formats = self.scales.get(owner, {}).get(operator, {})
            for name in dict.fromkeys((ANY, fmt)):
                found = found.times(formats.get(name, Scale()))
        return found

    def _efficiency(self, operator: str, fmt: str, engine: str) -> Efficiency:
        default = self._default(operator, fmt)
        table = self.achieved.get(operator, {})
        # a 4-bit format on a chip without fp4 runs weight-only: fits of fp4 matmuls don't apply
        native = FORMATS[fmt].compute[0] if fmt in FORMATS else "bf16"
        for name in (fmt, *NEIGHBOURS.get(fmt, ())):
            engines = table.get(name)
            if engines:
                return self._of_engine(engines, engine, default)
        if operator in ("matmul", "experts") and self.compute_format(fmt) != native:
            bf16 = table.get("bf16")
            if bf16:
                return self._of_engine(bf16, engine, default)
        return default

    def _of_engine(self, engines: Mapping[str, Efficiency], engine: str, default: Efficiency) -> Efficiency:
        found = engines.get(engine)
        if found is None:
            several = list(engines.values())
            found = several[0] if len(several) == 1 else _median(several)
        return Efficiency(
            found.compute if found.compute > 0 else default.compute,
            found.memory if found.memory > 0 else default.memory,
            found.latency_s if found.latency_s >= 0 else default.latency_s,
            found.half_tokens or default.half_tokens,
            found.activation if found.activation >= 0 else default.activation,
            found.residual,
            found.kind,
            found.source,
        )

    def _default(self, operator: str, fmt: str) -> Efficiency:
        vendor = self.defaults.vendors.get(self.kernels, {}).get(operator, {})
        general = self.defaults.achieved[operator]
        for name in (fmt, *NEIGHBOURS.get(fmt, ()), "bf16"):
            if name in vendor and name == fmt:
                return vendor[name]
            if name in general:
                return general[name]
        raise KeyError(operator)

    def all_reduce(self, ranks: int, engine: str = "generic") -> AllReduce:
        """All-reduce constants among ``ranks`` inside the domain: latency [s], bandwidth [B/s].

        Measured for the engine, else the median of engines, else interpolated between measured
        group sizes or derived from the links. Source: in the result.
        """
        found, scale = self._all_reduce(ranks, engine), self.scale("all_reduce", ANY, engine)
        return replace(found, latency_s=found.latency_s * scale.latency, bandwidth=found.bandwidth * scale.bandwidth)

    def _all_reduce(self, ranks: int, engine: str) -> AllReduce:
        named = self.all_reduces.get(engine)
        if named and ranks in named:
            return named[ranks]
        measured = [t[ranks] for e, t in self.all_reduces.items() if ranks in t and e != "nccl"]
        if measured:
            return AllReduce(
                median(m.latency_s for m in measured),
                median(m.bandwidth for m in measured),
                "measured",
                measured[0].source,
            )
        return self._derived_all_reduce(ranks)

    def _derived_all_reduce(self, ranks: int) -> AllReduce:
        rules = self.defaults.all_reduce
        wires = self.scale_up_bandwidth
        if self.per_pair_bandwidth:
            wires = min(wires, self.per_pair_bandwidth * (ranks - 1))
            share, latency = float(rules["bus_share"]), float(rules["point_to_point_latency_us"])
        elif "pcie" in self.link.lower() or self.scale_up_bandwidth < 100e9:
            share, latency = float(rules["pcie_bus_share"]), float(rules["pcie_latency_us"])
        else:
            share, latency = float(rules["bus_share"]), float(rules["latency_us"])
        latency += float(rules["doubling_latency_us"]) * max(0.0, math.log2(ranks / 8))
        return AllReduce(latency * 1e-6, share * wires * ranks / (2 * (ranks - 1)), "derived", str(rules["source"]))

    def all_to_all(self, ranks: int, engine: str = "generic") -> AllToAll:
        """Constants of one all-to-all exchange among ``ranks``: [s], [B/s].

        Inside the domain a share of the links, across nodes a share of the network.
        Source: ``hardware_db/defaults.toml``.
        """
        rules = self.defaults.all_to_all
        inside = ranks <= self.scale_up_domain
        nic = self.scale_out_bandwidth or self.scale_up_bandwidth
        bandwidth = (
            float(rules["scale_up_share"]) * self.scale_up_bandwidth
            if inside
            else float(rules["scale_out_share"]) * nic
        )
        latency = float(rules["latency_us"] if inside else rules["node_latency_us"])
        scale = self.scale("all_to_all", ANY, engine)
        return AllToAll(
            latency * 1e-6 * scale.latency,
            bandwidth * scale.bandwidth,
            float(rules["hop_latency_us"]) * 1e-6,
            float(rules["stage_latency_us"]) * 1e-6,
        )


def _median(several: list[Efficiency]) -> Efficiency:
    residuals = [e.residual for e in several if e.residual is not None]
    return Efficiency(
        median(e.compute for e in several),
        median(e.memory for e in several),
        median(e.latency_s for e in several),
        median(e.half_tokens for e in several),
        median(e.activation for e in several),
        median(residuals) if residuals else None,
        several[0].kind,
        several[0].source,
    )
