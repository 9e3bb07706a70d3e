"""Where the commands start: outside the package ``planner``, whose files llm-d-planner can overwrite."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from importlib import import_module
from pathlib import Path

DISTRIBUTION = "llm-capacity-planner"
#: another distribution that installs a command and a package of the same names
CLASH = "llm_d_planner-*.dist-info"
REPAIR = f"Use one environment for each: pip uninstall llm-d-planner, then pip install --force-reinstall {DISTRIBUTION}"


def clash() -> str | None:
    """What to say when llm-d-planner is installed in the same environment, or None.

    It installs a package and a command both called ``planner``; whichever came last wins.
    """
    here = str(Path(__file__).resolve().parent)
    folders = dict.fromkeys([here, *(p for p in sys.path if p.endswith(("site-packages", "dist-packages")))])
    if not any(any(Path(folder).glob(CLASH)) for folder in folders):
        return None
    return (
        "llm-d-planner is installed in the same environment: both install a package and a command "
        "named planner and overwrite each other."
    )


def main() -> None:
    """Run the command line; ``--version`` answers before anything heavy is imported."""
    warning = clash()
    try:
        if warning:
            import_module("planner.cli.run")  # fails when the package is theirs

            print(f"warning: {warning} {REPAIR}", file=sys.stderr)
        if sys.argv[1:] in (["--version"], ["-V"]):
            from planner import __version__

            _version(__version__)
            return
        gc.disable()  # a short life: collecting costs a twentieth of it
        from planner.cli.run import run
    except ImportError as error:
        ours = str(error.name or "").split(".")[0] == "planner"
        if not (warning or ours):
            raise
        why = warning or f"the installation of {DISTRIBUTION} is incomplete."
        print(f"error: {why} {REPAIR} ({error})", file=sys.stderr)
        sys.exit(1)
    _leave_at_once(1)
    try:
        run()
        _leave_at_once(0)
    except SystemExit as leaving:
        _leave_at_once(leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1)
        raise


def _leave_at_once(code: int) -> None:
    """At the end, don't take every module apart first: that takes a tenth of a short run."""

    def leave() -> None:
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except (OSError, ValueError):
            return  # a stream that broke is for the interpreter to say
        os._exit(code)

    atexit.register(leave)


def _version(version: str) -> None:
    try:
        print(f"planner {version}", flush=True)
    except OSError as error:
        sys.exit(f"error: standard output: cannot be written ({error.strerror})")
