"""What every result is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Frozen, and closed against unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
