"""From a workload and the database to a plan, with its reasons."""

from __future__ import annotations
