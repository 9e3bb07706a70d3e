"""The command line's outer wall: every failure is one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from planner.errors import PlannerError, nearest, one_line


def run() -> None:
    """Run the application; exit 0, 1 a bug, 2 bad input, 3 no plan, 4 a limit crossed, 130 interrupted."""
    from planner.cli.app import app

    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a letter still shows the rest
    if not os.environ.get("PLANNER_DEBUG"):
        warnings.filterwarnings("ignore", category=RuntimeWarning)  # a result out of range is said in words
    try:
        code = app(prog_name="planner", standalone_mode=False)
    except PlannerError as error:
        _stop(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own errors, wherever its version keeps their class
            _usage(error)
        if os.environ.get("PLANNER_DEBUG"):
            raise
        if isinstance(error, OSError):
            # a file somebody named: too long a name, no permission
            _stop(
                f"{one_line(str(error.filename or 'standard output'), 200)}: {error.strerror or error}",
                2 if error.filename else 1,
            )
        if isinstance(error, OverflowError):
            _stop(f"a number in the input is too large or too small to compute with ({error})", 2)
        _stop(f"internal error, please report it: {type(error).__name__}: {error} (PLANNER_DEBUG=1 shows where)", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Any) -> None:
    """A wrong command, option or argument; help where nothing was asked."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(2)
    message = error.format_message().replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    if message.startswith("No such command") and context is not None:
        asked = message.partition("'")[2].partition("'")[0]
        close = nearest(asked, context.command.list_commands(context))
        if close and "Did you mean" not in message:
            message += f" Did you mean {close!r}?"
    place = f" (see {context.command_path} --help)" if context is not None else ""
    _stop(f"{message}{place}", 2)


def _stop(message: str, code: int) -> None:
    if sys.stderr is not None:
        print(f"error: {one_line(message, 4000)}", file=sys.stderr)
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            from planner.cli.output import discard_output

            discard_output()
    sys.exit(code)
