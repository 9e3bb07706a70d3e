"""The decision about speculation: what must hold at any operating point, and worked numbers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from planner.cost.acceptance import acceptance_length, domain_factor, expected_acceptance
from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.speculation import Drafter, draft_model
from planner.cost.step import StepModel
from planner.decisions.speculation import Asked, decide
from planner.decisions.speculation_map import BATCHES, CONTEXTS, Place, price_map
from planner.decisions.speculation_result import SpeculationDecision
from planner.decisions.speculation_setting import speculate_at
from planner.errors import InputError
from planner.hardware import Database
from planner.hardware.acceptance import load_acceptance
from planner.models import Model
from planner.sizing import EstimateRequest
from planner.sizing.break_even import crossings
from planner.sizing.operating import Option
from planner.workload import Speculation
from tests.conftest import H100, reference_machine

DATA = load_acceptance()
ROOM = 60e9


def place(model: Model, machine: Machine | None = None, room: float = ROOM) -> Place:
    formats = {} if not model.is_moe else {"experts": "fp8"}
    return Place(StepModel(model, formats, "bf16"), machine or reference_machine(H100), Layout(), room)


def ask(model: str = "llama-3.1-8b", batch: float = 32, context: float = 2048, **said: object) -> SpeculationDecision:
    from planner.hardware import load_database

    request = EstimateRequest(model, "h100-sxm", engine="vllm", batch=batch, context=context)
    return speculate_at(request, Speculation.model_validate({"task": "code", **said}), load_database(), DATA)


# worked numbers: a budget of 512 tokens, 0.85 accepted on their own, one H100 without host time
@pytest.mark.parametrize(
    ("batch", "context", "speedup", "drafts"),
    [(1, 4096, 0.93662, 1), (1, 100_000, 1.187, 2), (32, 4096, 1.1895, 2), (32, 32768, 2.5228, 6),
     (128, 4096, 1.5308, 3), (128, 32768, 3.4835, 8), (128, 100_000, 4.4248, 8)],
)  # fmt: skip
def test_drafting_from_a_sparse_cache(llama_8b: Model, batch: int, context: int, speedup: float, drafts: int) -> None:
    small = draft_model(llama_8b, "sparse-kv")
    options = [
        Option(Drafter("sparse-kv", k, small, kv_budget=512.0), acceptance_length(0.85, k), 1.0, k + 1.0)
        for k in range(1, 9)
    ]
    priced = price_map(place(llama_8b), options, DATA, "in-domain", np.array([float(batch)]), np.array([[context]]))
    at, best = priced.best()
    assert best[0, 0] == pytest.approx(speedup, rel=0.01)
    assert options[int(at[0, 0])].drafter.draft_tokens == drafts
    assert float(np.asarray(options[0].drafter.weight_bytes(Layout()))) == 0.0


def test_the_map_is_the_step_at_each_cell(llama_8b: Model) -> None:
    """Many contexts at once price as one after the other."""
    options = [Option(Drafter("n-gram", 5, verify_share=0.005875), 2.29, 1.8, 2.9)]
    batches, contexts = np.array([1.0, 64.0]), np.array([[512.0], [65536.0]])
    whole = price_map(place(llama_8b), options, DATA, "in-domain", batches, contexts).speedup()[0]
    for r, context in enumerate(contexts):
        for i, batch in enumerate(batches):
            one = price_map(place(llama_8b), options, DATA, "in-domain", np.array([batch]), context[None, :])
            assert whole[r, i] == pytest.approx(one.speedup()[0, 0, 0], rel=1e-12)


@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-oss-120b", "qwen3-30b-a3b"])
def test_what_always_holds(model: str) -> None:
    found = ask(model, methods=["n-gram", "eagle3"])
    assert found.map is not None and found.reason is not None
    low, middle, high = (np.array(getattr(found.map, n)) for n in ("speedup_low", "speedup", "speedup_high"))
    assert np.all(low < middle) and np.all(middle < high) and np.all(low > 0)
    assert middle.shape == (len(CONTEXTS), len(BATCHES))
    fits = np.array(found.map.fits)
    assert np.all(fits[:, :-1] >= fits[:, 1:]) and np.all(fits[:-1] >= fits[1:])
    best = found.methods[0]
    assert (best.method, best.draft_tokens) == (found.method, found.draft_tokens)
    assert best.speedup == max(best.by_draft_tokens.values())
    assert best.speedup == pytest.approx(
        best.acceptance_length * found.reason.plain_step_s / (best.verify_s + best.draft_s)
    )
    assert found.speculate == (best.speedup > 1 + found.margin)


def test_long_contexts_revive_what_batches_kill() -> None:
    """Of a dense model the speed-up falls with the batch at short contexts and rises at long ones."""
    found = ask(methods=["n-gram"], task="code-edit").map
    assert found is not None
    short, long = found.speedup[0], found.speedup[-3]
    assert all(a > b for a, b in pairwise(short))
    assert long[4] > 0.97 * long[0] and long[-1] > 1.2 * short[-1]


def test_experts_turn_the_rule_around() -> None:
    """Of a mixture of experts it is the middle batches where speculation is worst: distinct experts grow there."""
    found = ask("qwen3-30b-a3b", methods=["eagle3"])
    assert found.map is not None
    row = found.map.speedup[0]
    worst = found.map.batches[int(np.argmin(row[:7]))]
    assert 2 <= worst <= 32
    assert row[0] > min(row[:7]) < row[6]
    dense = ask(methods=["eagle3"]).map
    assert dense is not None and int(np.argmin(dense.speedup[0])) == len(BATCHES) - 1


def test_reasons_say_what_experts_and_cache_do() -> None:
    moe, dense = ask("qwen3-30b-a3b", batch=8, methods=["eagle3"]), ask(batch=8, methods=["eagle3"])
    assert moe.reason is not None and dense.reason is not None
    assert moe.reason.experts_touched is not None and moe.reason.experts_touched_verifying is not None
    assert moe.reason.experts_touched < moe.reason.experts_touched_verifying
    assert moe.reason.weight_growth > 1.3 and "experts touched" in moe.reason.statement
    assert dense.reason.weight_growth == pytest.approx(1.0) and dense.reason.experts_touched is None
    long = ask(batch=8, context=100_000, methods=["eagle3"])
    assert long.reason is not None and long.reason.kv_share > dense.reason.kv_share


def test_blocks_draft_in_one_pass(llama_8b: Model) -> None:
    small = draft_model(llama_8b, "dspark")
    assert small is not None
    machine, contexts = reference_machine(H100), np.array([2048.0])

    def seconds(k: int, block: bool) -> float:
        drafter = Drafter("dspark", k, small, block=block)
        return float(np.squeeze(drafter.seconds(machine, Layout(), 4.0, contexts, 0.0)))

    assert seconds(7, True) < 1.1 * seconds(1, True)
    assert seconds(7, False) == pytest.approx(7 * seconds(1, False))


def test_blocks_of_a_target_with_its_own_module_are_made_of_it() -> None:
    from planner.models import load_model

    target = load_model("deepseek-v3")
    small = draft_model(target, "dspark")
    assert small is not None and small.is_moe and small.layers[0].count == 3


def test_domain_and_temperature_lower_what_learned_drafters_reach() -> None:
    k = np.array([3.0])

    def length(**said: object) -> float:
        return float(expected_acceptance(DATA, "eagle3", k, "code", **said).length[0])  # type: ignore[arg-type]

    assert length(temperature=0.0) > length() > length(domain="generic", context=50_000.0)
    assert length(domain="generic", context=50_000.0) == pytest.approx(1 + 0.5 * (length() - 1))
    assert length(domain="generic", context=500.0) == length()
    assert (
        float(domain_factor(DATA, "mtp", "generic", 1e6)) == float(domain_factor(DATA, "n-gram", "generic", 1e6)) == 1
    )
    generic = ask(draft_domain="generic", methods=["eagle3"]).map
    known = ask(methods=["eagle3"]).map
    assert generic is not None and known is not None
    assert generic.speedup[0] == known.speedup[0] and generic.speedup[8][0] < known.speedup[8][0]


def test_own_acceptance_decides() -> None:
    assert not ask(batch=128, methods=["n-gram"], acceptance_per_position=[0.05, 0.02, 0.01]).speculate
    found = ask(batch=64, methods=["suffix"], acceptance=[0.9, 0.9, 0.9, 0.9, 0.9])
    assert found.speculate and found.method == "suffix"
    assert found.methods[0].acceptance_low == found.methods[0].acceptance_high
    assert any("speculation.methods" in w for w in ask("deepseek-v3", acceptance_length=2.0).warnings)


def test_nothing_drafts() -> None:
    found = ask(enabled=False)
    assert (found.speculate, found.method, found.map, found.methods) == (False, "none", None, ())


def test_a_draft_model_costs_what_it_is() -> None:
    small, large = (
        ask("llama-3.1-70b", methods=["draft-model"], draft_model=name, batch=1).methods[0]
        for name in ("llama-3.2-1b", "llama-3.1-8b")
    )
    assert small.draft_s / small.draft_tokens < 0.4 * large.draft_s / large.draft_tokens
    assert 2e9 < small.draft_weight_bytes < 4e9 and small.draft_cache_bytes > 0


@pytest.mark.parametrize(
    ("said", "key"),
    [({"methods": ["suffix"]}, "speculation.methods"), ({"methods": ["eagle"]}, "speculation.methods"),
     ({"methods": ["mtp"]}, "speculation.methods"), ({"methods": ["draft-model"]}, "speculation.draft_model")],
)  # fmt: skip
def test_methods_nobody_knows_the_acceptance_of(said: dict[str, object], key: str) -> None:
    with pytest.raises(InputError) as error:
        ask(**said)
    assert error.value.key == key


def test_the_operating_point_must_be_given(database: Database) -> None:
    for batch, context, option in ((None, 100.0, "--batch"), (4.0, None, "--context"), (0.5, 100.0, "--batch")):
        request = EstimateRequest("llama-3.1-8b", "h100-sxm", batch=batch, context=context)
        with pytest.raises(InputError) as error:
            speculate_at(request, Speculation(), database, DATA)
        assert error.value.key == option


def test_memory_decides_too(llama_8b: Model) -> None:
    """A drafter that doesn't fit is no answer, however fast."""
    small = draft_model(llama_8b, "eagle3", 32_000)
    options = [Option(Drafter("eagle3", 3, small), 2.8, 2.2, 3.4)]
    asked = Asked({}, Speculation(), 1.0, np.array([1000.0]))
    roomy, tight = (decide(place(llama_8b, room=r), options, DATA, asked) for r in (ROOM, 0.5e9))
    assert roomy.speculate and not tight.speculate
    assert roomy.batch_that_fits > 100 * max(tight.batch_that_fits, 1.0) or tight.batch_that_fits < 5


def test_crossings() -> None:
    at = np.array([1.0, 2.0, 4.0, 8.0])
    assert crossings(at, np.array([2.0, 1.5, 1.2, 1.1])) == ()
    down, up = crossings(at, np.array([1.5, 0.5, 0.5, 2.0]))
    assert not down.pays_beyond and up.pays_beyond and 1 < down.at < 2 and 4 < up.at < 8
    assert crossings(at, np.array([np.nan, 0.5, 0.5, 0.5])) == ()


def test_acceptance_files(tmp_path: Path) -> None:
    from planner.hardware.own_acceptance import with_own

    file = tmp_path / "mine.toml"
    file.write_text(
        '[[curve]]\nmethod = "eagle3"\nmodel = "llama-3.1-8b"\nacceptance_per_position = [0.8, 0.6, 0.4]\n'
        '[[curve]]\nmethod = "suffix"\ntask = "code"\nacceptance = [0.5, 0.8]\n'
        '[[curve]]\nmethod = "n-gram"\ndraft_tokens = [3, 5]\nacceptance_length = [2.0, 2.4]\n'
        '[[curve]]\nmethod = "mtp"\ndrafts = 1000\naccepted_tokens_per_position = [900, 700]\n'
    )
    data = with_own(DATA, [file])
    k = np.array([2.0, 3.0, 9.0])

    def lengths(method: str, model: str = "llama-3.1-8b", task: str = "code") -> list[float]:
        return [round(float(x), 6) for x in expected_acceptance(data, method, k, task, model=model).length]

    assert lengths("eagle3") == [2.4, 2.8, 2.8]
    assert lengths("suffix") == [1.9, 1.9, 1.9]
    assert lengths("n-gram")[1:] == [2.0, 2.4]
    assert lengths("mtp", "deepseek-v3") == [2.6, 2.6, 2.6]
    assert lengths("eagle3", "another")[1] == pytest.approx(2.86)
    assert data.users("x", "suffix", "chat") is None


def test_each_rank_rejects_its_own_drafts(llama_8b: Model) -> None:
    """Host time of verified tokens is that of a rank of attention data parallelism, not of all in turn."""
    step = StepModel(llama_8b, {}, "bf16")
    machine, contexts = reference_machine(H100, verify_overhead=1e-5), np.array([100.0])

    def host(ranks: int) -> float:
        parts = step.decode(machine, Layout(data=ranks), 64.0, contexts, 4).operators
        return sum(float(np.squeeze(o.seconds)) for o in parts if o.name == "step overhead")

    assert host(1) == pytest.approx(64 * 4 * 1e-5)
    assert host(8) == pytest.approx(host(1) / 8)
