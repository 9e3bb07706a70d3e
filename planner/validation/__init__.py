"""The planner held against measurements: read them, run what they ran, report how far off we are."""
