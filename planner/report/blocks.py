"""What a report is made of: headings, sentences and sheets, independent of how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A title of one line."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; ``style`` is plain, good, bad or note."""

    text: str
    style: str = "plain"


@dataclass(frozen=True)
class Sheet:
    """A table of texts; columns named in ``numeric`` are aligned right.

    ``tones`` of its cells, where given: names of styles, which a terminal shows as colours.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    numeric: frozenset[str] = frozenset()
    header: bool = True
    tones: tuple[tuple[str, ...], ...] = ()


Block = Heading | Text | Sheet


def sheet(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    title: str = "",
    numeric: Sequence[str] = (),
    header: bool = True,
) -> Sheet:
    """A sheet from any values; None shows as a dash."""
    texts = tuple(tuple("-" if v is None else str(v) for v in row) for row in rows)
    return Sheet(tuple(columns), texts, title, frozenset(numeric), header)
