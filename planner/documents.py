"""TOML documents with the place of every key, and the one way to read a value out of one."""

from __future__ import annotations

import datetime
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli

from planner.errors import InputError, nearest

SIZE_LIMIT = 1_000_000  # bytes; a specification is a few kilobytes
WHOLE = "whole numbers below 2^63"
_LINE = re.compile(r"line (\d+)")
_BARE = re.compile(r"""^\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_-]+))""")


@dataclass
class Document:
    """A parsed TOML file: its ``data``, ``name`` for messages, ``text`` and where keys are.

    ``settings`` are the paths that ``--set`` gave: what is wrong there is not in the file.
    """

    name: str
    data: dict[str, Any]
    text: str = ""
    settings: tuple[tuple[str | int, ...], ...] = ()
    _lines: dict[tuple[str | int, ...], int] | None = field(default=None, repr=False)

    def line(self, path: Sequence[str | int]) -> int | None:
        r"""Line number of a key path, or of the closest parent that has one; None when unknown.

        >>> Document("x", {}, "a = 1\n[b]\nc = 2\n").line(("b", "c"))
        3
        """
        if self._lines is None:
            self._lines = _key_lines(self.text)
        keys = tuple(path)
        while keys:
            if keys in self._lines:
                return self._lines[keys]
            keys = keys[:-1]
        return None

    def error(
        self,
        path: Sequence[str | int],
        problem: str,
        expected: str | None = None,
        suggestion: str | None = None,
    ) -> InputError:
        """An InputError that names this file (or ``--set``), the dotted key and its line."""
        set_here = any(tuple(path[: len(s)]) == s for s in self.settings)
        return InputError(
            problem,
            file="--set" if set_here else self.name,
            key=dotted(path),
            line=None if set_here else self.line(path),
            expected=expected,
            suggestion=suggestion,
        )


def dotted(path: Iterable[str | int]) -> str:
    """A key path as people write it.

    >>> dotted(("requests", 0, "context", "p50"))
    'requests[0].context.p50'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def read_text(path: str | Path) -> tuple[str, str]:
    """Text and display name of a file, or of standard input for ``-``.

    Raises InputError when it is missing, a folder, over 1 MB or not UTF-8.
    """
    if str(path) == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed", expected="a file, or text on standard input")
        raw, name = sys.stdin.buffer.read(SIZE_LIMIT + 1), "<stdin>"
    else:
        name = str(path)
        try:
            raw = _read_file(Path(path), name)
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", file=name) from None
    if len(raw) > SIZE_LIMIT:
        raise InputError("is larger than 1 MB", file=name, expected="at most 1 MB")
    try:
        return raw.decode("utf-8-sig"), name
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError("is not UTF-8 text", file=name, line=line) from None


def _read_file(file: Path, name: str) -> bytes:
    if not name:
        raise InputError("the file has an empty name", expected="the path of a file")
    if not file.exists():
        if file.is_symlink():
            raise InputError("is a link that leads nowhere", file=name, expected="a file")
        folder = file.parent if file.parent.is_dir() else None
        close = nearest(file.name, [p.name for p in folder.iterdir()]) if folder else None
        raise InputError("no such file", file=name, suggestion=close)
    if file.is_dir():
        raise InputError("is a folder", file=name, expected="a file")
    size = file.stat().st_size
    if size > SIZE_LIMIT:
        raise InputError(f"is {size / 1e6:.1f} MB", file=name, expected="at most 1 MB")
    with file.open("rb") as stream:
        return stream.read(SIZE_LIMIT + 1)  # a device has no size and no end


def read_toml(path: str | Path) -> Document:
    """Read and parse a TOML file (``-``: standard input). InputError says what and where."""
    text, name = read_text(path)
    return parse_toml(text, name)


def parse_toml(text: str, name: str) -> Document:
    """Parse TOML text under a display name; InputError with the line when it is not TOML."""
    try:
        document = Document(name, tomli.loads(text.replace("\r\n", "\n")), text)
        if _is_odd(document.data):
            document.data = plain(document, document.data, ())
        return document
    except tomli.TOMLDecodeError as error:
        found = _LINE.search(str(error))
        problem = str(error).split(" (at ")[0]
        line = int(found.group(1)) if found else None
        raise InputError(f"is not valid TOML: {problem}", file=name, line=line) from None
    except RecursionError:
        raise InputError("is nested too deeply", file=name) from None
    except ValueError:  # Python's own limit on the digits of a whole number
        raise InputError("holds a number of thousands of digits", file=name, expected=WHOLE) from None


def _is_odd(data: dict[str, Any]) -> bool:
    """Whether there is a date or a very large whole number anywhere: rarely, and looking costs little."""
    waiting: list[Any] = [data]
    while waiting:
        value = waiting.pop()
        for entry in value.values() if type(value) is dict else value:
            kind = type(entry)
            if kind is dict or kind is list:
                waiting.append(entry)
            elif kind is int:
                if not -(2**63) <= entry < 2**63:
                    return True
            elif kind is not str and kind is not float and kind is not bool:
                return True
    return False


def plain(document: Document, value: Any, path: tuple[str | int, ...]) -> Any:
    """The value with dates as text; InputError for a whole number TOML does not allow."""
    if isinstance(value, dict):
        return {key: plain(document, entry, (*path, key)) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(document, entry, (*path, i)) for i, entry in enumerate(value)]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise document.error(path, "is a whole number of more than 64 bits", WHOLE)
    return value


def _key_lines(text: str) -> dict[tuple[str | int, ...], int]:
    """Where each key stands: a light scan that covers tables, arrays of tables and plain keys."""
    found: dict[tuple[str | int, ...], int] = {}
    prefix: tuple[str | int, ...] = ()
    counts: dict[tuple[str | int, ...], int] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if line.startswith("[[") and "]]" in line:
            name = _split(line[2 : line.index("]]")])
            index = counts.get(name, -1) + 1
            counts[name] = index
            prefix = (*name, index)
            found.setdefault(name, number)
            found[prefix] = number
        elif line.startswith("[") and "]" in line and "=" not in line.split("]")[0]:
            name = _split(line[1 : line.index("]")])
            for parent in range(len(name), 0, -1):
                if name[:parent] in counts:
                    name = (*name[:parent], counts[name[:parent]], *name[parent:])
                    break
            prefix = name
            found.setdefault(prefix, number)
        elif "=" in line and not line.startswith("#"):
            key = _split(line.split("=", 1)[0])
            if key:
                found.setdefault((*prefix, *key), number)
                for inner in re.finditer(r"[{,]\s*([A-Za-z0-9_-]+)\s*=", line.split("=", 1)[1]):
                    found.setdefault((*prefix, *key, inner.group(1)), number)
    return found


def _split(text: str) -> tuple[str | int, ...]:
    parts = []
    for piece in text.split("."):
        match = _BARE.match(piece.strip())
        if not match:
            return ()
        parts.append(next(g for g in match.groups() if g is not None))
    return tuple(parts)


# -- reading values out of a fact file -----------------------------------------------------------


def number(
    document: Document,
    table: Mapping[str, Any],
    path: Sequence[str | int],
    key: str,
    *,
    positive: bool = True,
    default: float | None = None,
    upper: float = math.inf,
) -> float:
    """A finite number at ``key`` of ``table`` (which lies at ``path``); InputError otherwise."""
    here = (*path, key)
    if key not in table:
        if default is not None:
            return default
        raise document.error(here, "is missing", "a number")
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise document.error(here, f"is {value!r}", "a number")
    if not math.isfinite(value):
        raise document.error(here, f"is {value}", "a finite number")
    if (positive and value <= 0) or value < 0:
        raise document.error(here, f"is {value:g}", "a positive number" if positive else "zero or more")
    if value > upper:
        raise document.error(here, f"is {value:g}", f"at most {upper:g}")
    return float(value)


def string(
    document: Document,
    table: Mapping[str, Any],
    path: Sequence[str | int],
    key: str,
    *,
    default: str | None = None,
    choices: Iterable[str] = (),
) -> str:
    """A string at ``key`` of ``table``, one of ``choices`` if given; InputError otherwise."""
    here = (*path, key)
    if key not in table:
        if default is not None:
            return default
        raise document.error(here, "is missing", "a string")
    value = table[key]
    if not isinstance(value, str):
        raise document.error(here, f"is {value!r}", "a string")
    allowed = list(choices)
    if allowed and value not in allowed:
        raise document.error(here, f"is {value!r}", "one of " + ", ".join(allowed), nearest(value, allowed))
    return value


def words(document: Document, table: Mapping[str, Any], path: Sequence[str | int], key: str) -> str:
    """A string at ``key`` of ``table`` that isn't blank; InputError otherwise."""
    value = string(document, table, path, key)
    if not value.strip():
        raise document.error((*path, key), "is empty", "some words")
    return value


def only_keys(document: Document, table: Any, path: Sequence[str | int], known: Iterable[str]) -> Mapping[str, Any]:
    """``table`` itself if it is one and has no key outside ``known``; InputError otherwise."""
    if not isinstance(table, dict):
        raise document.error(path, f"is {table!r}", "a table")
    allowed = list(known)
    for key in table:
        if key not in allowed:
            raise document.error((*path, key), "unknown key", "one of " + ", ".join(allowed), nearest(key, allowed))
    return table
