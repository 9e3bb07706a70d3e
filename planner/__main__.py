"""Entry point of ``planner`` and ``python -m planner``."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

#: another distribution that installs a command and a package of the same names
CLASH = "llm_d_planner-*.dist-info"


def clash() -> str | None:
    """What to say when llm-d-planner is installed in the same environment, or None.

    It installs a package and a command both called ``planner``; whichever came last wins.
    """
    package = Path(__file__).resolve().parent
    if not any(package.parent.glob(CLASH)):
        return None
    return (
        "llm-d-planner is installed in the same environment: both install a package and a command "
        "named planner and overwrite each other. Use one environment for each."
    )


def main() -> None:
    """Run the command line; ``--version`` answers before anything heavy is imported."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from planner import __version__

        print(f"planner {__version__}")
        return
    warning = clash()
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    gc.disable()  # a short life: collecting costs a twentieth of it
    try:
        from planner.cli.run import run
    except ImportError as error:
        if not warning:
            raise
        print(f"error: {warning} ({error})", file=sys.stderr)
        sys.exit(1)
    run()


if __name__ == "__main__":
    main()
