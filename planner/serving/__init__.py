"""What one replica does under load: occupancy, latencies, limits."""

from __future__ import annotations
