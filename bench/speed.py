"""How fast it is: ``python bench/speed.py``. Medians of several runs, against the imports alone."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLE = REPOSITORY / "planner" / "workload" / "examples" / "coding-agent.toml"
RUNS = 9
IMPORTS = "import typer, pydantic, rich, tomli, numpy"


def seconds(*arguments: str) -> float:
    """Median wall time of a Python process."""
    taken = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, check=True)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def peak_memory(*arguments: str) -> float:
    """Peak resident memory of a Python process, bytes."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_maxrss * 1024


def main() -> None:
    """Print the table."""
    recommend = ("-m", "planner", "recommend", str(EXAMPLE))
    imports, plan = seconds("-c", IMPORTS), seconds(*recommend)
    typer, help_text = seconds("-c", "import typer"), seconds("-m", "planner", "--help")
    said = subprocess.run(
        [sys.executable, *recommend, "-v"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stderr
    points = re.search(r"(\d+) operating points .* \((\d+) per second\)", said)
    assert points
    limit = 2 * imports + 0.3
    rows = [
        ("import of the dependencies", f"{imports:.3f} s", ""),
        ("recommend, coding-agent, all accelerators", f"{plan:.3f} s", f"limit {limit:.3f} s"),
        ("operating points", points.group(1), ""),
        ("operating points per second", points.group(2), "limit 100000"),
        ("import of typer", f"{typer:.3f} s", ""),
        ("planner --help", f"{help_text:.3f} s", f"limit {2 * typer:.3f} s"),
        ("peak memory of recommend", f"{peak_memory(*recommend) / 1e6:.0f} MB", "limit 200 MB"),
    ]
    for name, value, note in rows:
        print(f"{name:45} {value:>12}  {note}")


if __name__ == "__main__":
    main()
