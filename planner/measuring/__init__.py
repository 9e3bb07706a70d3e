"""What this machine achieves: microbenchmarks of memory, matmuls, launches and attention, as an accelerator's file."""

from __future__ import annotations

from planner.measuring.entry import entry_text
from planner.measuring.figures import Figure, Host, Measurement
from planner.measuring.session import DEVICES, check_name, choose_device, default_name, measure
from planner.measuring.timing import Sample, Stopwatch

__all__ = [
    "DEVICES",
    "Figure",
    "Host",
    "Measurement",
    "Sample",
    "Stopwatch",
    "check_name",
    "choose_device",
    "default_name",
    "entry_text",
    "measure",
]
