"""Settings of the command line, ``key.path=value``, applied to a TOML document."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import tomli

from planner.documents import Document, dotted, plain
from planner.errors import InputError

_STEP = re.compile(r"""(?:\.|^)(?:"([^"]+)"|'([^']+)'|([^.\[\]"'=\s]+))|\[(\d+)\]""")


def apply_overrides(document: Document, overrides: Iterable[str]) -> Document:
    """A copy of ``document`` with ``key.path=value`` settings applied, as ``--set`` gives them.

    Values are TOML values, or plain text where they are not. InputError names a malformed one.
    """
    import copy

    data = copy.deepcopy(document.data)
    paths = []
    for setting in overrides:
        key, equals, value = setting.partition("=")
        path = _setting_path(key.strip())
        if not equals or not path:
            raise InputError(f"--set {setting!r} is not a setting", expected="key.path=value")
        paths.append(_assign(data, path, _value(value.strip()), setting))
    return Document(document.name, data, document.text, tuple(paths))


def _setting_path(text: str) -> list[str | int]:
    """Keys and indices of a dotted key, [] when it is none."""
    path: list[str | int] = []
    at = 0
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            return []
        path.append(int(step.group(4)) if step.group(4) else next(g for g in step.groups()[:3] if g))
        at = step.end()
    return path if path and isinstance(path[0], str) else []


def _value(text: str) -> Any:
    try:
        read = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return plain(Document("--set", {}), read["value"], ()) if len(read) == 1 else text


def _assign(data: Any, path: list[str | int], value: Any, setting: str) -> tuple[str | int, ...]:
    """Put ``value`` at ``path``; gives the path with list places as numbers."""
    taken: list[str | int] = []
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        place: str | int = part
        if isinstance(data, list):
            if not str(part).isdigit() or int(part) >= len(data):
                known = f"0 to {len(data) - 1}" if data else "a list, as [...]"
                raise InputError(f"--set {setting!r}: no entry {part!r} in {dotted(taken)}", expected=known)
            place = int(part)
        elif not isinstance(data, dict):
            raise InputError(f"--set {setting!r}: {dotted(taken)} is not a table")
        elif isinstance(part, int):
            raise InputError(f"--set {setting!r}: {dotted(taken)} is not a list in the file", expected="the whole list")
        elif not last:
            nested = isinstance(path[depth + 1], str)
            data.setdefault(part, {} if nested else [])
        taken.append(place)
        if last:
            data[place] = value
        else:
            data = data[place]
    return tuple(taken)
