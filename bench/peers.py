"""What GenZ and a plain roofline say of the served benchmarks, beside the planner on docs/accuracy.md.

In an environment of its own with ``genz-llm`` 0.0.16 and this project::

    python -m bench.peers FOLDER

with the measured tables' folder writes bench/data/peers.csv. Both are closed formulae: a decode step of the whole
batch (as many requests as the benchmark keeps in flight) at the middle of its output, and the prefill of one prompt.

The plain roofline is of the kind of LLM-Viewer: every operator takes the longer of its arithmetic at the datasheet's
dense peak and its bytes at the datasheet's bandwidth; links likewise; no overheads and no efficiencies.

GenZ is given the part's dense peak, memory, bandwidth and links of the datasheets, its own default latency of a link
and efficiency, and one number format: that of most of the weights. It has neither multi-head latent attention, whose
models are not predicted, nor sliding windows or attention data parallelism: all of the caches are read, and the ranks
of a row are tensor-parallel, or expert-parallel as far as the row's experts are spread.
"""

from __future__ import annotations

import contextlib
import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.accuracy import PEERS, ROOFLINE, whole_batch, without
from bench.calibration import clean
from planner.errors import InputError
from planner.hardware.accelerator import Accelerator
from planner.models.layers import DenseMlp, FullAttention, LatentAttention, MoeMlp
from planner.models.model import Model
from planner.sizing.configuration import Setup
from planner.validation.points import MeasuredPoint
from planner.validation.protocols import set_up_point

COLUMNS = ("id", "genz_tpot", "genz_ttft", "roofline_tpot", "roofline_ttft", "genz_reason")
#: GenZ's names of number formats, and the share of the time of bf16 arithmetic it gives them
BITS = {"bf16": ("bf16", 1.0), "fp8": ("fp8", 0.5), "fp8-block": ("fp8", 0.5), "mxfp4": ("fp4", 0.25),
        "nvfp4": ("fp4", 0.25)}  # fmt: skip
NO_LATENT = "GenZ has no multi-head latent attention"
#: decode and prefill, [s]
Pair = tuple[float, float]


def genz_fields(model: Model) -> dict[str, Any]:
    """The fields of GenZ's model configuration; InputError for what it cannot describe. Source: the config."""
    layer = max(model.layers, key=lambda x: x.count)  # its layers are all alike
    attention, block = layer.attention, layer.mlp
    if isinstance(attention, LatentAttention):
        raise InputError(NO_LATENT)
    if not isinstance(attention, FullAttention) or not isinstance(block, DenseMlp | MoeMlp):
        raise InputError("GenZ has no such layers")
    fields = {
        "model": model.name, "vocab_size": model.vocab, "hidden_size": model.hidden, "num_ffi": 2,
        "num_decoder_layers": model.num_layers, "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads, "head_dim": attention.head_dim,
        "intermediate_size": block.intermediate, "moe_intermediate_size": block.intermediate,
    }  # fmt: skip
    if isinstance(block, MoeMlp):
        fields |= {
            "num_experts": block.experts,
            "expert_top_k": block.top_k,
            "moe_intermediate_size": block.intermediate,
        }
    return fields


def genz_system(chip: Accelerator, weights: str) -> dict[str, Any]:
    """The part as GenZ takes it: TFLOP/s of bf16 that come out as the format's peak, GB, GB/s. Source: datasheets."""
    peak = chip.peak(chip.compute_format(weights)) or 0.0
    return {
        "real_values": True, "Flops": peak * BITS[weights][1] / 1e12, "Memory_size": chip.memory_label_bytes / 1e9,
        "Memory_BW": chip.bandwidth / 1e9, "ICN": chip.scale_up_bandwidth / 1e9,
    }  # fmt: skip


def genz(point: MeasuredPoint, setup: Setup) -> Pair:
    """GenZ's decode step and prefill; InputError with its reason where it has none."""
    from GenZ import decode_moddeling, prefill_moddeling
    from GenZ.Models.default_models import ModelConfig

    fields, weights = genz_fields(setup.model), setup.precision.weights
    if weights not in BITS:
        raise InputError(f"GenZ has no arithmetic of {weights}")
    workers = point.workers
    experts = max(1, workers.expert)
    asked = {
        "model": ModelConfig(**fields), "system_name": genz_system(setup.chip, weights),
        "bits": BITS[weights][0], "tensor_parallel": max(1, workers.accelerators // experts),
        "expert_parallel": experts, "pipeline_parallel": point.pipeline, "model_offload": False,
    }  # fmt: skip
    try:
        middle = int(point.input_tokens + point.output_tokens / 2)
        step = decode_moddeling(batch_size=point.concurrency, input_tokens=middle, Bb=1, **asked)["Latency"]
        first = prefill_moddeling(batch_size=1, input_tokens=int(point.input_tokens), **asked)["Latency"]
    except (ValueError, AssertionError) as error:
        raise InputError(f"GenZ: {' '.join(str(error).split())[:80]}") from error
    return float(step) * 1e-3, float(first) * 1e-3


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """GenZ prints as it goes, and writes beside itself or into the folder it runs in."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w", encoding="utf-8") as nothing:
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
                yield
        finally:
            os.chdir(before)


def _figures(said: Callable[..., Pair], *about: object) -> tuple[list[str], str]:
    """Both figures as the table has them, or none and why."""
    try:
        return [f"{x:.5g}" for x in said(*about)], ""
    except InputError as error:
        return ["", ""], str(error)


def main(folder: Path) -> None:
    """Write the table."""
    database = without(ROOFLINE)
    points = clean(folder)
    with _quiet():
        rows = []
        for point in points:
            setup = set_up_point(point, point.workers, database)
            theirs, reason = _figures(genz, point, setup)
            plain, too_large = _figures(whole_batch, point, database)
            if not too_large:
                rows.append([point.id, *theirs, *plain, reason])
    with PEERS.open("w", encoding="utf-8", newline="") as out:
        out.write(f"# python -m bench.peers, genz-llm {version('genz-llm')}; [s]\n")
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
