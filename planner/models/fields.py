"""Reading a Hugging Face config: nesting, the many spellings of one field, and typed access."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.errors import InputError

SIZE_LIMIT = 2_000_000
LARGEST = 10**9  # no width, table or context of a model comes near it
MOST_LAYERS = 2000
NESTS = ("text_config", "llm_config", "language_config")
#: field -> the names it goes by, first match wins
NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "dim", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "kv_heads": ("num_key_value_heads", "n_kv_heads"),
    "head_dim": ("head_dim", "attention_head_dim"),
    "intermediate": ("intermediate_size", "hidden_dim", "ffn_hidden_size"),
    "vocab": ("vocab_size", "padded_vocab_size"),
    "max_context": ("max_position_embeddings", "max_seq_len", "model_max_length"),
    "experts": ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts"),
    "top_k": ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "top_k_experts"),
    "expert_intermediate": ("moe_intermediate_size", "expert_intermediate_size"),
    "draft": (
        "num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules",
    ),
}  # fmt: skip


class Config:
    """A config's language-model fields, with the file it came from for messages."""

    def __init__(self, data: Mapping[str, Any], file: str, prefix: str = "") -> None:
        self.file = file
        self.top = data
        for name in NESTS:
            if data.get(name) is not None and not isinstance(data[name], dict):
                raise InputError(f"is {_shown(data[name])}", file=file, key=name, expected="an object")
        nested = next((data[n] for n in NESTS if isinstance(data.get(n), dict)), None)
        self.data: Mapping[str, Any] = {**data, **nested} if nested is not None else data
        self.prefix = prefix or next((n for n in NESTS if isinstance(data.get(n), dict)), "")

    @property
    def model_type(self) -> str:
        """The nested model type if there is one, else the outer. Source: the config."""
        return str(self.data.get("model_type") or self.top.get("model_type") or "")

    @property
    def architecture(self) -> str:
        """First entry of ``architectures``, or the empty string. Source: the config."""
        listed = self.top.get("architectures") or self.data.get("architectures") or []
        return str(listed[0]) if isinstance(listed, list) and listed else ""

    def _key(self, name: str) -> str:
        nested = self.top.get(self.prefix)
        outer = isinstance(nested, dict) and name in self.top and name not in nested
        return f"{self.prefix}.{name}" if self.prefix and not outer else name

    def error(self, key: str, problem: str, expected: str | None = None) -> InputError:
        """An InputError that names the file and the key as it stands in it."""
        return InputError(problem, file=self.file, key=self._key(key), expected=expected)

    def get(self, key: str, default: Any = None) -> Any:
        """The raw value of a key, nested ones first."""
        value = self.data.get(key, default)
        return default if value is None else value

    def _find(self, field: str) -> tuple[str, Any]:
        for name in NAMES.get(field, (field,)):
            if self.data.get(name) is not None:
                return name, self.data[name]
        return NAMES.get(field, (field,))[0], None

    def count(self, field: str, default: int | None = None, *, zero: bool = False) -> int:
        """A whole number under any of the field's names; InputError when missing or not one."""
        name, value = self._find(field)
        if value is None:
            if default is None:
                raise self.error(name, "is missing", "a whole number")
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, f"is {_shown(value)}", "a whole number")
        if not math.isfinite(value) or value != int(value):
            raise self.error(name, f"is {value}", "a whole number")
        if value < 0 or (value == 0 and not zero):
            raise self.error(name, f"is {int(value)}", "a positive whole number")
        largest = MOST_LAYERS if field == "layers" else LARGEST
        if value > largest:
            raise self.error(name, f"is {value:.3g}", f"at most {largest}")
        return int(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """A true-or-false value; InputError when it is something else."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"is {_shown(value)}", "true or false")
        return value

    def table(self, key: str) -> dict[str, Any] | None:
        """A JSON object, or None when absent; InputError when it is something else."""
        value = self.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.error(key, f"is {_shown(value)}", "an object")
        return value

    def items(self, key: str, length: int | None = None) -> list[Any] | None:
        """A list, or None when absent; InputError when it is no list or has the wrong length."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.error(key, f"is {type(value).__name__}", "a list")
        if length is not None and len(value) < length:
            raise self.error(key, f"has {len(value)} entries", f"one per layer ({length})")
        return value

    def flags(self, key: str, length: int) -> list[bool] | None:
        """The first ``length`` of a list of 0 and 1, or None when absent; InputError otherwise."""
        listed = self.items(key, length)
        if listed is None:
            return None
        for flag in listed[:length]:
            if flag not in (0, 1):
                raise self.error(key, f"holds {_shown(flag)}", "0 or 1 for every layer")
        return [bool(flag) for flag in listed[:length]]


def _shown(value: Any, most: int = 60) -> str:
    """A value as a message shows it: long ones cut."""
    text = repr(value)
    return text if len(text) <= most else text[:most] + "..."


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; InputError when missing, too large, not JSON or no object."""
    name = str(path)
    if not path.exists():
        raise InputError("no such file", file=name)
    if path.stat().st_size > SIZE_LIMIT:
        raise InputError(f"is {path.stat().st_size / 1e6:.1f} MB", file=name, expected="a config.json under 2 MB")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", file=name) from None
    except (json.JSONDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise InputError("is not valid JSON", file=name, line=line) from None
    except ValueError:  # whole numbers of thousands of digits
        raise InputError("holds a number no machine can", file=name) from None
    if not isinstance(data, dict):
        raise InputError("holds no object", file=name, expected="a config.json")
    return data


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """config.json (or params.json) and hf_quant_config.json of a file or folder.

    InputError when there is none.
    """
    if path.is_dir():
        for name in ("config.json", "params.json"):
            if (path / name).exists():
                quant = path / "hf_quant_config.json"
                return read_json(path / name), read_json(quant) if quant.exists() else None
        raise InputError("has no config.json", file=str(path))
    # a config saved under a longer name has its companion under the same one
    named = path.name.removesuffix("config.json") if path.name.endswith("config.json") else ""
    quant = path.with_name(f"{named}hf_quant_config.json")
    return read_json(path), read_json(quant) if quant.exists() and quant != path else None
