"""Entry point of ``python -m planner``."""

from __future__ import annotations

from llm_capacity_planner import main

if __name__ == "__main__":
    main()
