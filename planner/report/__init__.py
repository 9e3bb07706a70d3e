"""How results are shown: nothing here computes."""

from __future__ import annotations
