"""What an accelerator, a price and an engine are: facts with their sources."""

from __future__ import annotations

from planner.hardware.accelerator import Accelerator, AllReduce, AllToAll, Efficiency, Fact
from planner.hardware.assumptions import Assumptions
from planner.hardware.database import Database, database_root, load_database
from planner.hardware.engine import Engine
from planner.hardware.prices import Price, PriceBook, parse_price_options

__all__ = [
    "Accelerator",
    "AllReduce",
    "AllToAll",
    "Assumptions",
    "Database",
    "Efficiency",
    "Engine",
    "Fact",
    "Price",
    "PriceBook",
    "database_root",
    "load_database",
    "parse_price_options",
]
