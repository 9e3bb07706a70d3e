"""What one operator and one step cost: FLOPs, bytes, seconds. No queues, no prices."""

from __future__ import annotations
