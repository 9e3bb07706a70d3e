"""The command line's outer wall: every failure is one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys

from planner.errors import PlannerError


def run() -> None:
    """Run the application; exit 0, 1 a bug, 2 bad input, 3 no plan, 4 a limit crossed, 130 interrupted."""
    from planner.cli.app import app

    try:
        app(prog_name="planner")
    except PlannerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # the reader went away: quiet, as every other tool
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("PLANNER_DEBUG"):
            raise
        print(
            f"error: internal error, please report it: {type(error).__name__}: {error} (PLANNER_DEBUG=1 shows where)",
            file=sys.stderr,
        )
        sys.exit(1)
