"""Names as benchmarks print them, and the entries of our databases they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from planner.errors import InputError
from planner.hardware import Accelerator, Database
from planner.models import load_model
from planner.models.formats import FORMATS
from planner.models.model import Model

#: spellings of engines, by the words they start with
ENGINES = {
    "trt": "trtllm", "tensorrt": "trtllm", "dynamo-trt": "trtllm", "sglang": "sglang", "dynamo-sglang": "sglang",
    "mori-sglang": "sglang", "vllm": "vllm", "dynamo-vllm": "vllm", "atom": "vllm",
}  # fmt: skip
#: endings of checkpoint names that say a number format, and the format
SUFFIXES = {
    "-nvfp4": "nvfp4", "-fp4": "nvfp4", "-fp8": "fp8", "-fp8-static-pertensor": "fp8", "-fp8-dynamic": "fp8",
    "-fp8-kv": "fp8", "-mxfp4": "mxfp4", "-w-mxfp4": "mxfp4", "-mxfp4-preview": "mxfp4",
    "-awq": "int4", "-int4": "int4", "-bf16": "bf16", "-fp16": "bf16",
}  # fmt: skip
#: formats as people spell them, the longest first
FORMAT_WORDS = {
    "fp8_block": "fp8-block", "fp8-block": "fp8-block", "int4_wo": "int4", "nvfp4": "nvfp4", "mxfp4": "mxfp4",
    "int4-g32": "int4-g32", "uint4": "int4", "int4": "int4", "fp4": "nvfp4", "fp8": "fp8", "bf16": "bf16",
    "bfloat16": "bf16", "fp16": "bf16", "float16": "bf16", "int8": "int8", "fp32": "fp32", "float32": "fp32",
}  # fmt: skip
_WORD = re.compile(r"[a-z]+\d*[a-z]*\d*|\d+[a-z]*")


def _words(text: str) -> frozenset[str]:
    """Words of a name: lower case, memory sizes and connectors in one spelling.

    >>> sorted(_words("A100-SXM4-80GB"))
    ['80gb', 'a100', 'sxm']
    """
    text = re.sub(r"(\d+)\s*gb?\b", r"\1gb", text.lower())
    text = re.sub(r"\bsxm\d\b", "sxm", text)
    return frozenset(re.findall(r"[a-z0-9.]+", text))


def accelerator_named(label: str, database: Database) -> Accelerator:
    """The accelerator a label means: all words of one of its names are in it, the most of all.

    "NVIDIA H100-SXM-80GB" is h100-sxm, "AMD Instinct MI325X 256GB HBM3e" mi325x. InputError when none,
    or when it names several parts or none in particular.
    """
    try:
        return database.accelerator(label)
    except InputError as error:
        unknown = error
    said = _words(label.split("(")[0])
    best: tuple[int, int, str] | None = None
    for chip in database.accelerators.values():
        for name in (chip.name, *chip.aliases):
            words = _words(name)
            if words and words <= said:
                found = (len(words), chip.name == name, chip.name)
                best = max(best, found) if best else found
    if best is None or "," in label:
        raise unknown
    return database.accelerator(best[2])


def model_named(label: str, overlays: Sequence[object] = ()) -> tuple[Model, str]:
    """The model a label means, and the number format its name says, if any; InputError when none.

    "nvidia/Qwen3-32B-NVFP4" is qwen3-32b in nvfp4 unless the catalogue has the checkpoint itself.
    """
    try:
        return load_model(label, overlays), ""
    except InputError as error:
        unknown = error
    tail = label.lower().split("/")[-1].strip()
    for shorter in (tail, tail.replace("_", "-"), re.sub(r"-\d\d(\.\d)?$", "", tail)):
        for ending, fmt in sorted(SUFFIXES.items(), key=lambda item: -len(item[0])):
            if shorter.endswith(ending):
                try:
                    return load_model(shorter.removesuffix(ending), overlays), fmt
                except InputError:
                    continue
        try:
            return load_model(shorter, overlays), ""
        except InputError:
            continue
    raise unknown


def engine_named(label: str) -> tuple[str, str]:
    """Our name of an engine and its version as given; "generic" for one we have no entry for.

    >>> engine_named("trtllm 1.0.0rc3"), engine_named("vLLM 0.9.0.2.dev"), engine_named("TensorRT 10.2, CUDA 12.4")
    (('trtllm', '1.0.0rc3'), ('vllm', '0.9.0.2.dev'), ('trtllm', '10.2'))
    """
    text = label.strip().lower()
    match = re.search(r"\d+(\.\w+)+", text)
    version = match.group(0) if match else ""
    for start in sorted(ENGINES, key=len, reverse=True):
        if text.startswith(start):
            return ENGINES[start], version
    for word, name in (("tensorrt", "trtllm"), ("vllm", "vllm"), ("sglang", "sglang"), ("mango", "generic")):
        if word in text:
            return name, version
    return "generic", version


def format_named(label: str) -> str:
    """The number format a label says, "" when it says none.

    >>> format_named("fp8 (gemm=fp8_block,moe=fp8_block)"), format_named("not given"), format_named("FP16")
    ('fp8-block', '', 'bf16')
    """
    text = label.lower()
    detail = re.search(r"moe=(\w+)", text)
    if detail:
        text = detail.group(1)
    for word in sorted(FORMAT_WORDS, key=len, reverse=True):
        if text.startswith(word):
            return FORMAT_WORDS[word]
    return ""


def weight_choice(model: Model, said: str) -> str:
    """What to ask the planner for: the checkpoint's own formats when they have as many bits, else ``said``.

    A label of "fp4" for a checkpoint in mxfp4 means the checkpoint. Source: none needed; a lookup.
    """
    if not said:
        return "native"
    bits = FORMATS[said].bits
    own: Mapping[str, str] = model.formats
    if any(FORMATS[f].bits == bits for f in own.values()):
        return "native"
    return "native" if said == "bf16" and not own else said
