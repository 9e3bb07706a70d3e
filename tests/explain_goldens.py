"""What `planner explain` prints for the shipped examples, kept in one file; run this file to write it anew."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

from planner.workload.examples import example_path

GOLDEN = Path(__file__).parent / "cli" / "goldens" / "explain.txt"
EXAMPLES = ("chat", "rag", "coding-agent", "reasoning", "reasoning-glm", "refactor", "batch", "infeasible")
#: one with everything, the rest one screen
COMMANDS = [(name,) for name in EXAMPLES] + [("coding-agent", "--full")]


def printed() -> str:
    """Every command with its output and exit code."""
    from planner.cli.run import run

    parts = []
    for name, *options in COMMANDS:
        out, code = io.StringIO(), 0
        sys.argv = ["planner", "explain", str(example_path(name)), "--no-simulate", "--quiet", *options]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            try:
                run()
            except SystemExit as stop:
                code = int(stop.code or 0)
        parts.append(f"$ planner explain {name} {' '.join(options)}".rstrip() + f"  # exit {code}\n{out.getvalue()}")
    return "\n".join(parts)


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(printed(), encoding="utf-8")
