"""What a model is: its layers, formats and parameters, from a config.json or the catalogue."""

from __future__ import annotations

from planner.models.catalogue import (
    ModelSummary,
    check_catalogue,
    difference_from_published,
    list_models,
    load_model,
)
from planner.models.config_json import load_config
from planner.models.model import Model, Published

__all__ = [
    "Model",
    "ModelSummary",
    "Published",
    "check_catalogue",
    "difference_from_published",
    "list_models",
    "load_config",
    "load_model",
]
