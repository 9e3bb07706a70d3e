"""The catalogue of public models: one TOML per model, read by the same loader as any config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import tomli

from planner.documents import Document, read_toml
from planner.errors import InputError, nearest
from planner.models.config_json import load_config
from planner.models.model import Model, Published

ROOT = Path(__file__).resolve().parent / "catalogue_data"
_NAME = re.compile(r'^(?:name|hf_id) = "([^"]+)"', re.M)
_ALIASES = re.compile(r"^aliases = (\[.*\])", re.M)
_added: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ModelSummary:
    """One line of ``planner list models``; parameters, not billions."""

    name: str
    hf_id: str
    architecture: str
    total_parameters: int
    active_parameters: int
    layers: int
    max_context: int
    weights: str
    aliases: tuple[str, ...]


def slug(name: str) -> str:
    """The catalogue's spelling of a Hugging Face id: lower case, without the organisation.

    >>> slug("deepseek-ai/DeepSeek-V3.2")
    'deepseek-v3.2'
    """
    tail = re.sub(r"[^a-z0-9.]+", "-", name.strip().split("/")[-1].lower()).strip("-")
    return tail.removeprefix("meta-") if tail.startswith("meta-llama") else tail


@lru_cache(maxsize=4)
def _index(folders: tuple[Path, ...]) -> Mapping[str, Path]:
    """Every name, id and alias to its file; later folders win."""
    found: dict[str, Path] = {}
    for folder in folders:
        files = [folder] if folder.is_file() else sorted(folder.glob("*.toml"))
        for path in files:
            head = path.read_text(encoding="utf-8")[:2000]
            names = [path.stem, *_NAME.findall(head)]
            aliases = _ALIASES.search(head)
            if aliases:
                names += tomli.loads(f"a = {aliases.group(1)}")["a"]
            for name in names:
                found[slug(name)] = path
    return found


def _folders(overlays: Sequence[object]) -> tuple[Path, ...]:
    return (ROOT, *_added, *(Path(str(o)) for o in overlays))


@contextmanager
def entries_added(overlays: Sequence[object]) -> Iterator[None]:
    """Inside, every look-up of this process sees these folders or files of entries, on top of the bundled ones."""
    global _added
    before, _added = _added, tuple(Path(str(o)) for o in overlays)
    try:
        yield
    finally:
        _added = before


def load_model(name: str, overlays: Sequence[object] = ()) -> Model:
    """A model by catalogue name, Hugging Face id or alias in any case, or a path to a config.

    ``overlays``: folders or files of the user's own entries. Raises InputError: unknown name (with
    the nearest), or anything wrong in the file. Source: the entry's own.

    >>> load_model("deepseek-ai/DeepSeek-V3.2").num_layers
    61
    """
    path = Path(name)
    if name.endswith(".toml") and path.is_file():
        return _entry(path)
    if name.endswith(".json") or path.is_dir() or (path.is_file() and "/" in name):
        return load_config(path)
    bundled = ROOT / f"{slug(name)}.toml"
    if not overlays and not _added and bundled.is_file():
        return _entry(bundled)
    index = _index(_folders(overlays))
    key = slug(name)
    if key not in index:
        raise InputError(
            f"unknown model {name!r}",
            expected="a name of `planner list models`, or the path of a config.json",
            suggestion=nearest(key, index),
        )
    return _entry(index[key])


def _entry(path: Path) -> Model:
    document = read_toml(path)
    data = document.data
    config = data.get("config")
    if not isinstance(config, dict):
        raise document.error(("config",), "is missing", "a table with the fields of config.json")
    published = data.get("published", {})
    if not isinstance(published, dict):
        raise document.error(("published",), f"is {published!r}", "a table")
    model = load_config(
        config,
        name=str(data.get("name", path.stem)),
        file=str(path) if path.parent != ROOT else path.name,
        published=Published(
            published.get("total_parameters"),
            published.get("active_parameters"),
            str(published.get("source", "")),
            str(published.get("note", "")),
        ),
    )
    quantised = _quantised(document)
    return replace(
        model,
        hf_id=str(data.get("hf_id", "")),
        source=str(data.get("source", model.source)),
        **quantised,
    )


def _quantised(document: Document) -> dict[str, Any]:
    table = document.data.get("quantization")
    if not isinstance(table, dict):
        return {}
    found: dict[str, Any] = {"kv_format": str(table.get("kv", "bf16"))}
    if "formats" in table:
        found["formats"] = dict(table["formats"])
    if "notes" in table:
        found["notes"] = tuple(table["notes"])
    return found


def list_models(overlays: Sequence[object] = ()) -> list[ModelSummary]:
    """Every model of the catalogue, by name; parameters and context in [elements] and [tokens].

    Source: each entry.
    """
    files: Iterable[Path] = dict.fromkeys(_index(_folders(overlays)).values())
    found = []
    for path in files:
        model = _entry(path)
        aliases = read_toml(path).data.get("aliases", [])
        stored = sorted({model.format_of(g) for g in ("attention", "mlp", "experts")})
        found.append(
            ModelSummary(
                model.name, model.hf_id, model.architecture, model.total_parameters,
                model.active_parameters, model.num_layers, model.max_context, "/".join(stored),
                tuple(aliases),
            )
        )  # fmt: skip
    return sorted(found, key=lambda m: m.name)


def difference_from_published(model: Model, tolerance: float = 0.01) -> str | None:
    """How computed counts differ from the published ones by more than ``tolerance`` [1], or None.

    Makers count active parameters with the input embedding or without; either agrees.
    Source: the model's own config against its maker's figure.
    """
    found = []
    said, active = model.published.total_parameters, model.published.active_parameters
    if said and abs(model.total_parameters / said - 1) > tolerance:
        found.append(_difference("parameters", model.total_parameters, said))
    if active:
        least, most = model.active_parameters, model.active_parameters + model.embedding_parameters
        if not least * (1 - tolerance) <= active <= most * (1 + tolerance):
            found.append(_difference("active parameters", least if active < least else most, active))
    if not found:
        return None
    note = f" ({model.published.note})" if model.published.note else ""
    return "; ".join(found) + note


def _difference(what: str, computed: float, published: float) -> str:
    ratio = computed / published - 1
    return f"computed {computed / 1e9:.2f} B {what}, published {published / 1e9:.4g} B: {ratio:+.1%}"


def check_catalogue(overlays: Sequence[object] = ()) -> list[str]:
    """Problems of the catalogue: entries that don't load, totals off by over 5 % without a note."""
    problems = []
    for path in dict.fromkeys(_index(_folders(overlays)).values()):
        try:
            model = _entry(path)
        except InputError as error:
            problems.append(str(error))
            continue
        off = difference_from_published(model, 0.05)
        if off and not model.published.note:
            problems.append(f"{path.name}: {off}")
    return problems
