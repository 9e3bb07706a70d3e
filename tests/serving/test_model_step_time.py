"""The simulator's form of a step against the cost layer it is made from, for every kind of attention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner.cost.layout import Layout
from planner.cost.machine import Machine, machine
from planner.cost.prefill import PrefillModel
from planner.cost.speculation import Drafter, draft_model, speculative_step_seconds
from planner.cost.step import StepModel
from planner.hardware import Database
from planner.models import load_model
from planner.models.catalogue import ROOT
from planner.models.layers import BlockSparseAttention
from planner.models.model import Model
from planner.serving.model_step_time import model_step_time
from planner.serving.step_time import PiecewiseStepTime
from planner.sizing.candidates import weight_formats

#: a model of every combination of attention kinds in the catalogue, and a chip it runs on
MODELS = {
    "llama-3.3-70b-instruct": "h100-sxm",  # full
    "gpt-oss-120b": "h100-sxm",  # windows
    "gemma-3-27b": "h200-sxm",  # windows, dense
    "deepseek-r1": "h200-sxm",  # latent
    "deepseek-v3.2": "h200-sxm",  # latent with an indexer and a top-k
    "deepseek-v4-pro": "b200",  # compressed entries
    "minimax-m3": "b200",  # block-sparse beside full
    "kimi-k3": "b200",  # linear beside latent
    "qwen3-next-80b-a3b-instruct": "h100-sxm",  # linear beside full
}
LAYOUTS = {
    "one": Layout(),
    "TP8": Layout(8),
    "PP4": Layout(1, 4),
    "TP4 PP2": Layout(4, 2),
    "DP8 EP8": Layout(1, 1, 8, 8, 1.15, 1.05),
    "TP2 DP4 EP8": Layout(2, 1, 4, 8, 1.15, 1.05),
    "TP2 PP2 DP2 EP4": Layout(2, 2, 2, 4, 1.15, 1.05),
}
DRAFTING = {"none": 0, "mtp": 3, "eagle3": 2, "n-gram": 4, "dspark": 5, "sparse-kv": 2}
CONTEXTS = (1.0, 100.0, 127.0, 1500.0, 2048.0, 3000.0, 9000.0, 40_000.0, 150_000.0)
BUDGET = 8192


def nsa() -> Model:
    """Llama with native sparse attention, which no model of the catalogue has."""
    base = load_model("llama-3.1-8b")
    sparse = BlockSparseAttention(64, 4, 192, 128, block=64, top_blocks=16, window=512, stride=16, compress_block=32)
    layers = tuple(replace(x, attention=sparse) if x.attention is not None else x for x in base.layers)
    return replace(base, name="NSA", layers=layers)


def priced(
    database: Database, model: Model, chip: str, layout: Layout, method: str = "none", budget: int = BUDGET,
    shared_read: float = 1.0,
) -> tuple[StepModel, Drafter, Machine, PiecewiseStepTime]:  # fmt: skip
    formats = weight_formats(model, "native")
    step = StepModel(model, formats, model.kv_format, 0.7)
    made = machine(
        database.accelerator(chip), database.engine("vllm"), tuple(sorted(set(formats.values()))), model.kv_format,
        int(layout.tensor), int(layout.stage_devices),
    )  # fmt: skip
    k = DRAFTING[method]
    small = draft_model(model, method, 32_000, formats) if k and method != "n-gram" else None
    drafter = Drafter(method, k, small, 1e-4 if small else 0.0, 0.0 if small else 0.006, model.kv_format,
                      block=method == "dspark", kv_budget=512.0 if method == "sparse-kv" else 0.0,
                      row_overhead=4e-5)  # fmt: skip
    form = model_step_time(
        step, drafter, made, layout, sequences=256, budget=budget, longest=160_000, shared_read=shared_read
    )  # fmt: skip
    return step, drafter, made, form


def decode(form: PiecewiseStepTime, contexts: np.ndarray) -> float:
    totals = [float(contexts.sum()), *(float(np.minimum(contexts, w).sum()) for w in form.limits)]
    return form.decode(len(contexts), totals, [float(len(contexts))] * len(totals))[0]


def kinds(model: Model) -> frozenset[str]:
    return frozenset(type(x.attention).__name__ for x in model.layers if x.attention is not None)


def test_every_family_of_the_catalogue_is_here() -> None:
    covered = {kinds(load_model(name)) for name in MODELS}
    for path in ROOT.glob("*.toml"):
        assert kinds(load_model(path.stem)) in covered, path.stem


@pytest.mark.parametrize("method", DRAFTING)
@pytest.mark.parametrize("name", MODELS)
def test_equals_the_cost_layer_at_equal_contexts(name: str, method: str, database: Database) -> None:
    model = load_model(name)
    if method == "mtp" and not model.draft_layers:
        pytest.skip("has no layers that draft")
    for layout in LAYOUTS.values():
        step, drafter, made, form = priced(database, model, MODELS[name], layout, method)
        for batch in (1, 2, 3, 8, 64, 256):
            for context in CONTEXTS:
                expected = speculative_step_seconds(step, drafter, made, layout, float(batch), np.array([context]))
                assert decode(form, np.full(batch, context)) == pytest.approx(float(np.squeeze(expected)), rel=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_equals_it_at_mixed_contexts(name: str, layout: str, database: Database) -> None:
    """An operator's work is that of the sum over the batch, in both."""
    model, rng = load_model(name), np.random.default_rng(7)
    for method in ("none", "mtp" if model.draft_layers else "eagle3"):
        step, drafter, made, form = priced(database, model, MODELS[name], LAYOUTS[layout], method)
        for batch in (2, 7, 64, 200):
            contexts = np.round(rng.lognormal(8, 1.5, batch)) + 1
            expected = speculative_step_seconds(step, drafter, made, LAYOUTS[layout], float(batch), contexts)
            assert decode(form, contexts) == pytest.approx(float(np.squeeze(expected)), rel=1e-9)


@pytest.mark.parametrize("name", ["llama-3.3-70b-instruct", "deepseek-v3.2"])
def test_shared_prefixes_are_read_once(name: str, database: Database) -> None:
    step, drafter, made, form = priced(database, load_model(name), MODELS[name], Layout(8), shared_read=0.4)
    expected = speculative_step_seconds(step, drafter, made, Layout(8), 64.0, np.array([9000.0]), 0.4)
    assert decode(form, np.full(64, 9000.0)) == pytest.approx(float(np.squeeze(expected)), rel=1e-9)


def test_compressed_entries_count_by_the_token(database: Database) -> None:
    """Native sparse attention has an entry every 16 tokens after the first 32; here they are spread."""
    step, drafter, made, form = priced(database, nsa(), "h100-sxm", Layout())
    assert form.limits == (1536.0,)
    for batch in (1, 64, 256):
        for context in (100.0, 1000.0, 1536.0, 5000.0, 100_000.0):
            expected = speculative_step_seconds(step, drafter, made, Layout(), float(batch), np.array([context]))
            assert decode(form, np.full(batch, context)) == pytest.approx(float(np.squeeze(expected)), rel=5e-3)


@pytest.mark.parametrize("name", MODELS)
def test_growth_over_steps_is_the_sum_of_the_steps(name: str, database: Database) -> None:
    """For as many steps as the form says, one series equals a step at a time."""
    *_, form = priced(database, load_model(name), MODELS[name], Layout(8))
    contexts = np.array([50.0, 1900.0, 2030.0, 3000.0, 70_000.0])
    for _ in range(40):
        totals = [float(contexts.sum()), *(float(np.minimum(contexts, w).sum()) for w in form.limits)]
        growths = [5.0, *(float(np.sum(contexts < w)) for w in form.limits)]
        base, slope, holds = form.decode(5, totals, growths)
        crossing = min((float(w - c) for w in form.limits for c in contexts if c < w), default=1e6)
        steps = int(min(holds, crossing, 1000))
        assert steps >= 1
        assert base + slope * (steps - 1) == pytest.approx(decode(form, contexts + steps - 1), rel=1e-9)
        contexts += steps


PROMPTS = ((20, 0), (500, 0), (1000, 10_000), (8192, 0), (8192, 30_000), (30_000, 0), (32_768, 60_000))


@pytest.mark.parametrize("budget", [2048, BUDGET])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_prefill(name: str, layout: str, budget: int, database: Database) -> None:
    """As many equal prompts as attention ranks, chunk by chunk, each as the closed form prices it."""
    step, _, made, form = priced(database, load_model(name), MODELS[name], LAYOUTS[layout], budget=budget)
    model = PrefillModel(step, made, LAYOUTS[layout], budget)

    def closed(tokens: int, behind: int) -> float:
        return float(np.squeeze(model.seconds(np.array([float(tokens)]), np.array([float(behind)]))))

    for prompt, cached in PROMPTS:
        chunks = [(min(budget, prompt - k), cached + k) for k in range(0, prompt, budget)]
        found = [form.prefill(0, [chunk] * form.ranks) for chunk in chunks]
        # experts of few tokens are interpolated by those of a stage here, of a rank there
        within = 0.03 if prompt >= 500 or form.data == 1 else 0.05
        assert found == pytest.approx([closed(*chunk) for chunk in chunks], rel=within)
        # the closed form reads the cache, and launches its kernels, once a prompt: chunks do it again
        whole = closed(prompt, cached)
        assert sum(found) == pytest.approx(whole, rel=within) if len(chunks) == 1 else 0.999 < sum(found) / whole < 1.25
        # fewer prompts than ranks leave some idle, and are no faster than their own share
        assert form.prefill(0, chunks[:1]) <= found[0] * (1 + 1e-9)
        full = prompt // budget
        if full:
            run = form.prefill_run(0, [(budget, cached)], full)
            one_by_one = sum(form.prefill(0, [(budget, cached + k * budget)]) for k in range(full))
            assert run == pytest.approx(one_by_one, rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_scaled(name: str, database: Database) -> None:
    *_, form = priced(database, load_model(name), MODELS[name], Layout(8))
    contexts = np.array([50.0, 1900.0, 70_000.0])
    assert decode(form.scaled(1.1), contexts) == pytest.approx(1.1 * decode(form, contexts))
    assert form.scaled(1.1).prefill(3, [(700, 900)]) == pytest.approx(1.1 * form.prefill(3, [(700, 900)]))
