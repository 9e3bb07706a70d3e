"""How fast it is: ``python bench/speed.py``. Medians of several runs, against the imports alone.

All run from byte code, as an installed package and its dependencies do, whatever the environment says:
compiling the sources again costs an editable install a tenth of a second where byte code isn't written.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLE = REPOSITORY / "planner" / "workload" / "examples" / "coding-agent.toml"
RUNS = 9
IMPORTS = "import typer, pydantic, rich, tomli, numpy"


def seconds(environment: dict[str, str], *commands: tuple[str, ...]) -> list[float]:
    """Median wall time of each Python process; they take turns, so that a busy machine slows all alike."""
    taken: list[list[float]] = [[] for _ in commands]
    for run in range(RUNS + 1):
        for command, times in zip(commands, taken, strict=True):
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, check=True)
            if run:  # the first writes byte code
                times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in taken]


def peak_memory(environment: dict[str, str], *arguments: str) -> float:
    """Peak resident memory of a Python process, bytes."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_maxrss * 1024


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as byte_code:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        _report(kept | {"PYTHONPYCACHEPREFIX": byte_code})


def _report(environment: dict[str, str]) -> None:
    recommend = ("-m", "planner", "recommend", str(EXAMPLE))
    search = (*recommend, "--no-simulate")
    imports, plan, searched, typer, help_text = seconds(
        environment, ("-c", IMPORTS), recommend, search, ("-c", "import typer"), ("-m", "planner", "--help")
    )
    said = subprocess.run(
        [sys.executable, *search, "-v"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    ).stderr
    points = re.search(r"(\d+) operating points .* \((\d+) per second\)", said)
    assert points
    limit = 2 * imports + 0.3
    memory = peak_memory(environment, *recommend) / 1e6
    rows = [
        ("import of the dependencies", f"{imports:.3f} s", ""),
        ("recommend, coding-agent, all accelerators", f"{plan:.3f} s", "limit 1 s"),
        ("the same without the simulation", f"{searched:.3f} s", f"limit {limit:.3f} s"),
        ("operating points", points.group(1), ""),
        ("operating points per second", points.group(2), "limit 100000"),
        ("import of typer", f"{typer:.3f} s", ""),
        ("planner --help", f"{help_text:.3f} s", f"limit {2 * typer:.3f} s"),
        ("peak memory of recommend", f"{memory:.0f} MB", "limit 200 MB"),
    ]
    for name, value, note in rows:
        print(f"{name:45} {value:>12}  {note}")


if __name__ == "__main__":
    main()
