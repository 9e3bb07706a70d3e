"""Recipes: what benchmarks' rows leave out, and who may say otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.errors import InputError
from planner.hardware import Database
from planner.validation.points import MeasuredPoint, read_point
from planner.validation.protocols import predict
from planner.validation.recipes import DEFAULT, recipe_of, recipes

ROW = {
    "id": "one", "gpu": "B200-SXM-180GB", "model": "openai/gpt-oss-120b", "engine": "vllm 0.15.1", "tp": "1",
    "n_gpus": "1", "isl": "1024", "osl": "1024", "concurrency_or_batch": "8", "tpot_ms": "5", "mode": "agg",
    "length_kind": "nominal (random lengths, range ratio 0.8)",
}  # fmt: skip


def point(database: Database, **said: str) -> MeasuredPoint:
    found = read_point({**ROW, **said}, "rows.csv", database)
    assert isinstance(found, MeasuredPoint)
    return found


def test_a_row_gets_its_benchmarks_recipe(database: Database) -> None:
    known = point(database)
    assert (known.kv, known.recipe.batched_tokens, known.prompts) == ("fp8", 8192, 80)


def test_what_the_row_says_counts_more(database: Database) -> None:
    assert point(database, kv_precision="bf16").kv == "bf16"


def test_other_benchmarks_and_models_have_the_defaults(database: Database) -> None:
    assert point(database, length_kind="fixed").recipe == DEFAULT
    assert point(database, model="Qwen/Qwen3-32B").recipe == DEFAULT
    assert recipe_of("InferenceX", "gpt-oss-120b", "b200-sxm", "sglang", database) == DEFAULT


def test_polls_make_first_tokens_wait(database: Database) -> None:
    said = {"model": "deepseek-ai/DeepSeek-R1-0528", "engine": "sglang", "tp": "8", "n_gpus": "8"}
    polled = point(database, **said)
    assert polled.recipe.poll_steps(polled.concurrency) == 10
    from dataclasses import replace

    often = replace(polled, recipe=replace(polled.recipe, polls=()))
    one, other = predict(polled, database), predict(often, database)
    assert one.tpot.mean == other.tpot.mean
    assert one.ttft.mean == pytest.approx(other.ttft.mean + 4.5 * one.tpot.mean)


def test_every_recipe_names_what_the_database_knows(database: Database) -> None:
    from planner.models import load_model

    for _, model, accelerator, engine in recipes(database.root):
        load_model(model)
        assert database.engine(engine).family in ("vllm", "sglang", "trtllm")
        assert database.accelerator(accelerator)


def test_a_wrong_recipe_says_where(tmp_path: Path) -> None:
    (tmp_path / "recipes.toml").write_text(
        'schema = 1\n[[recipe]]\nbenchmark = "x"\nmodels = ["m"]\naccelerator = "a"\nengine = "vllm"\nkv = "fp9"\nsource = "s"\n'
    )
    with pytest.raises(InputError, match="fp9"):
        recipes(tmp_path)
