"""Steps of random-weight transformers on an NVIDIA GPU beside the planner's: dense GQA, MLA, MoE, sparse MLA.

::

    python -m bench.gpu_steps measure --out FOLDER    # on the GPU: torch and Triton only, under four minutes
    planner measure --device cuda -o FOLDER/gpu_steps_entry.toml    # if the planner is installed there as well
    python -m bench.gpu_steps keep FOLDER             # the session becomes bench/data/gpu_steps*
    python -m bench.gpu_steps compare [FOLDER]        # the planner beside it; docs/generate.py writes the page

``--device cpu`` runs tiny shapes, which only shows that everything runs. How it is measured is in
:mod:`bench.gpu_transformer` (what a step is) and :mod:`bench.gpu_session` (how it is timed).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Run a stage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("measure")
    stage.add_argument("--out", type=Path, required=True)
    stage.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    stage.add_argument("--quick", action="store_true")
    stage.add_argument("--budget", type=float, default=220.0, help="seconds after which points are left out")
    stage.add_argument("--only", nargs="*", default=(), help="transformers of bench.gpu_shapes")
    for name in ("--child", "--resume"):
        stage.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    stages.add_parser("keep").add_argument("folder", type=Path)
    stages.add_parser("compare").add_argument("folder", type=Path, nargs="?")
    given = parser.parse_args()
    if given.stage == "measure":
        from bench.gpu_session import measure, watched

        if not given.child:
            return watched(given.out, given.device, given.quick, given.budget, given.only)
        measure(given.out, given.device, given.quick, given.budget, given.only, given.resume)
        return 0
    from bench import gpu_comparison

    if given.stage == "keep":
        gpu_comparison.keep(given.folder)
        return 0
    return gpu_comparison.compare(given.folder)


if __name__ == "__main__":
    sys.exit(main())
