"""Number formats of weights and KV cache: how many bytes an element takes, scales included.

The size of a format is its definition (element bits plus the bits of the scale shared by a
group), so it is a formula here and not a measured figure in ``hardware_db``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """One number format.

    ``bits``: bits of one element; ``scale_bits`` bits of scale shared by ``group`` elements;
    ``compute``: the format the tensor cores multiply in when the chip supports it, tried in order.
    """

    name: str
    bits: int
    scale_bits: int = 0
    group: int = 1
    compute: tuple[str, ...] = ("bf16",)

    @property
    def bytes_per_element(self) -> float:
        """Stored bytes per element, [B], scales included.

        >>> FORMATS["nvfp4"].bytes_per_element
        0.5625
        >>> FORMATS["mxfp4"].bytes_per_element
        0.53125
        """
        return (self.bits + self.scale_bits / self.group) / 8


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("fp32", 32, compute=("fp32", "bf16")),
        Format("bf16", 16),
        # one fp32 scale a tensor: no measurable bytes
        Format("fp8", 8, compute=("fp8", "bf16")),
        # one fp32 scale per 128 x 128 block (DeepSeek)
        Format("fp8-block", 8, 32, 128 * 128, compute=("fp8", "bf16")),
        Format("int8", 8, compute=("int8", "bf16")),
        # weight-only, one bf16 scale per 128 (AWQ, GPTQ, compressed-tensors)
        Format("int4", 4, 16, 128),
        # Kimi K2.5's own packing: one bf16 scale per 32
        Format("int4-g32", 4, 16, 32),
        # OCP microscaling: one 8-bit exponent per 32
        Format("mxfp4", 4, 8, 32, compute=("fp4", "bf16")),
        # NVIDIA: one 8-bit scale per 16
        Format("nvfp4", 4, 8, 16, compute=("fp4", "bf16")),
    )
}

#: spellings met in configs and on command lines
ALIASES = {
    "float32": "fp32", "float16": "bf16", "fp16": "bf16", "half": "bf16", "bfloat16": "bf16",
    "float8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "e4m3": "fp8",
    "fp8_block": "fp8-block", "block-fp8": "fp8-block", "fp8block": "fp8-block",
    "w8a8": "int8", "w4a16": "int4", "awq": "int4", "gptq": "int4", "fp4": "nvfp4",
}  # fmt: skip

KV_FORMATS = ("bf16", "fp8", "fp32")
