"""How published benchmarks started their servers: what their rows leave out, from ``hardware_db/recipes.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from planner.documents import number, only_keys, read_toml, string
from planner.hardware import Database
from planner.models.formats import KV_FORMATS

KEYS = ("benchmark", "models", "accelerator", "engine", "kv", "batched_tokens", "whole_prompt", "polls", "source")


@dataclass(frozen=True)
class Recipe:
    """A server's settings beside the engine's defaults.

    ``kv``: format of the cache, "" for the default; ``batched_tokens`` of a step at most [tokens], 0 for the
    default, more where ``whole_prompt`` and a prompt beside the batch needs more; ``polls``: from how many requests
    in flight [1] waiting ones are looked at every so many steps [1].
    """

    kv: str = ""
    batched_tokens: int = 0
    whole_prompt: bool = False
    polls: tuple[tuple[int, int], ...] = ()

    def budget(self, input_tokens: float, concurrency: int) -> int:
        """Tokens of a step at most for prompts of a length and requests in flight, [tokens]; 0: the default.

        Source: the recipe.

        >>> Recipe(batched_tokens=8192, whole_prompt=True).budget(8192, 64)
        8256
        """
        if self.whole_prompt:
            return max(self.batched_tokens, int(input_tokens) + concurrency)
        return self.batched_tokens

    def poll_steps(self, concurrency: int) -> int:
        """Steps from one look at waiting requests to the next, [1]. Source: the recipe.

        >>> [Recipe(polls=((0, 10), (16, 30))).poll_steps(c) for c in (4, 16)]
        [10, 30]
        """
        return max((steps for least, steps in self.polls if concurrency >= least), default=1)


DEFAULT = Recipe()


@lru_cache(maxsize=4)
def recipes(root: Path) -> Mapping[tuple[str, str, str, str], Recipe]:
    """Recipes by benchmark, model, accelerator and engine; InputError with key and line for any mistake.

    Source: each entry names its own.
    """
    document = read_toml(root / "recipes.toml")
    only_keys(document, document.data, (), ("schema", "date", "recipe"))
    found = {}
    for i, entry in enumerate(document.data.get("recipe", [])):
        here = ("recipe", i)
        only_keys(document, entry, here, KEYS)
        kv = string(document, entry, here, "kv", default="", choices=("", *KV_FORMATS))
        tokens = int(number(document, entry, here, "batched_tokens", default=0.0, positive=False))
        polls = tuple(sorted((int(least), int(steps)) for least, steps in entry.get("polls", {}).items()))
        recipe = Recipe(kv, tokens, bool(entry.get("whole_prompt", False)), polls)
        string(document, entry, here, "source")
        keys = [string(document, entry, here, name) for name in ("benchmark", "accelerator", "engine")]
        for model in entry["models"]:
            found[keys[0], str(model), keys[1], keys[2]] = recipe
    return found


def recipe_of(benchmark: str, model: str, accelerator: str, engine: str, database: Database) -> Recipe:
    """How a benchmark ran a model on an accelerator under an engine's family; the defaults where unknown.

    Source: :func:`recipes`.
    """
    return recipes(database.root).get((benchmark, model, accelerator, engine), DEFAULT)
