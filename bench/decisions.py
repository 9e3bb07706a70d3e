"""How long decisions take: ``python bench/decisions.py [draws]``, on the examples, in this process after imports."""

from __future__ import annotations

import sys
import time

from planner.decisions.monte_carlo import risk
from planner.decisions.replanning import Question
from planner.decisions.sensitivity import sensitivities
from planner.decisions.sensitivity_report import confirmed_plan
from planner.hardware import load_database
from planner.workload.examples import example_text

EXAMPLES = ("chat", "rag", "refactor", "reasoning", "coding-agent", "batch")


def main() -> None:
    """Seconds of the draws of each example, and of the flips of one on two accelerators and on all."""
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    database = load_database()
    for name in EXAMPLES:
        found, sized, plan = confirmed_plan(Question(name, example_text(name), database), simulate=True)
        started = time.perf_counter()
        odds = risk(found, sized, plan, draws=draws)
        seconds = time.perf_counter() - started
        print(f"{name}: {draws} draws in {seconds:.2f} s, all limits hold in {odds.probability:.1%} of them")
    for gpus in (("h100-sxm", "b200-sxm"), None):
        question = Question("chat", example_text("chat"), database, gpus=gpus)
        for jobs in (1, 2):
            started = time.perf_counter()
            sensitivities(question, jobs=jobs)
            which = "all accelerators" if gpus is None else " and ".join(gpus)
            print(f"flips of chat on {which}, {jobs} processes: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
