"""The application with all its commands registered, in the order the help lists them."""

from __future__ import annotations

from planner.cli import plans  # isort: skip
from planner.cli import simulating  # isort: skip
from planner.cli import explaining  # isort: skip
from planner.cli import speculating  # isort: skip
from planner.cli import costing, fanning, speeding  # isort: skip
from planner.cli import what_if  # isort: skip
from planner.cli import calibrating, facts, measuring, validating
from planner.cli.base import app

__all__ = [
    "app", "calibrating", "costing", "explaining", "facts", "fanning", "measuring", "plans", "simulating",
    "speculating", "speeding", "validating", "what_if",
]  # fmt: skip
