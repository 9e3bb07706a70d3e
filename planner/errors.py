"""Every error a user can cause, and the exit code each one ends in.

    PlannerError            exit 1   a bug, or a failure outside the planner's control
    ├── InputError          exit 2   a file, a key or an option is wrong
    └── NoPlanError         exit 3   the input is right and nothing fits it

The command line prints ``str(error)`` and exits with ``error.exit_code``; no other
module prints an error or calls ``sys.exit``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

PROBLEM = 240  # characters of a place or a problem; what was given may be a whole file


class PlannerError(Exception):
    """Base of the tree; the message is one line a user can act on."""

    exit_code = 1


class InputError(PlannerError):
    """Wrong input: says which file, key and line, what was expected, and the nearest valid name."""

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        key: str | None = None,
        line: int | None = None,
        expected: str | None = None,
        suggestion: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = file
        self.key = key
        self.line = line
        self.expected = expected
        self.suggestion = suggestion
        super().__init__(str(self))

    def __str__(self) -> str:
        place = ""
        if self.file:
            place = self.file + (f":{self.line}" if self.line else "") + ": "
        key = f"{self.key}: " if self.key else ""
        tail = f"; expected {self.expected}" if self.expected else ""
        hint = f". Did you mean {self.suggestion!r}?" if self.suggestion else ""
        return one_line(f"{place}{key}", PROBLEM) + one_line(self.problem, PROBLEM) + one_line(f"{tail}{hint}")


class NoPlanError(PlannerError):
    """Nothing in the search satisfies the workload; carries the nearest miss."""

    exit_code = 3


def one_line(text: str, most: int | None = None) -> str:
    r"""Text without line breaks or control characters, its middle left out beyond ``most`` characters.

    >>> one_line("a\nb"), one_line("abcdefghij", 7)
    ('a\\nb', 'abc…hij')
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if most is None or len(shown) <= most:
        return shown
    half = (most - 1) // 2
    return f"{shown[:half]}…{shown[-half:]}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to ``name``, or None when nothing is close.

    >>> nearest("h100-smx", ["h100-sxm", "h200-sxm", "l40s"])
    'h100-sxm'
    """
    choices = sorted(known)
    folded = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name[:100].lower(), folded, n=1, cutoff=0.55)
    return folded[found[0]] if found else None
