"""Published speed-ups and acceptance lengths of speculation beside the predicted ones."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planner.cost.acceptance import continued_length, expected_acceptance, measured_length
from planner.cost.speculation import Drafter, draft_model, eager_step_seconds, speculative_step_seconds
from planner.errors import InputError
from planner.hardware import Accelerator, Database
from planner.hardware.acceptance import Implementation, MeasuredAcceptance, Shape, load_acceptance, load_speculation
from planner.sizing.configuration import EstimateRequest, Setup, machine_of, set_up
from planner.validation.comparison import Comparison, Skipped
from planner.validation.conversations import plays, speedup_as_played
from planner.validation.labels import accelerator_named, engine_named, format_named, model_named, weight_choice
from planner.validation.points import MeasuredPoint, Workers
from planner.validation.speculation_loop import (
    DRAFT_VOCABULARY,
    Drafting,
    compare_paired,
    host_per_rank,
    implementation_of,
    run_loop,
)

__all__ = ["compare_acceptance", "compare_paired", "compare_speedups", "is_acceptance_table", "is_speculation_table"]

Row = Mapping[str, str]
#: methods as tables print them, and ours; "none" is the row without
METHODS = {
    "eagle": "eagle", "eagle-2": "eagle2", "eagle-3": "eagle3", "eagle3": "eagle3", "mtp": "mtp", "dspark": "dspark",
    "n-gram": "n-gram", "pld": "n-gram", "lookahead": "lookahead", "medusa": "medusa", "hydra": "hydra",
    "sps": "draft-model", "draft model": "draft-model", "none": "none",
}  # fmt: skip
#: models as tables abbreviate them
MODELS = {"llama-3-70b": "llama-3.1-70b"}
#: what stands in for an accelerator the source doesn't name, and why it may
UNNAMED = (
    "h100-sxm",
    "accelerator not recorded, h100-sxm stands in: at one batch a ratio of steps depends little on it",
)
#: EAGLE in vLLM V1 came in April 2025 (vllm-project/vllm pull requests 16035 and 16937); a paper of March ran V0
BEFORE_V1 = "2503.01840"
TREE = " tree"
#: share of steps in which prompt lookup finds something to draft; the others verify nothing:
#: vllm-project/vllm pull request 24344, 993 drafts beside 821 tokens without
MATCHED = 0.55


def is_speculation_table(columns: Collection[str]) -> bool:
    """Whether a results table holds measured speed-ups of speculation.

    >>> is_speculation_table(["id", "method", "speedup", "target_model"]), is_speculation_table(["id", "tpot_ms"])
    (True, False)
    """
    return {"method", "speedup", "target_model"} <= set(columns)


def is_acceptance_table(columns: Collection[str]) -> bool:
    """Whether a results table holds acceptance lengths by draft tokens.

    >>> is_acceptance_table(["id", "model", "method", "num_draft_tokens", "acceptance_length"])
    True
    """
    return {"model", "method", "num_draft_tokens", "acceptance_length"} <= set(columns)


@dataclass(frozen=True)
class Case:
    """A row as it will be priced: configuration, method, draft, accepted length [tokens], and what was assumed."""

    setup: Setup
    implementation: Implementation
    method: str
    tokens: int
    shape: Shape | None
    length: float
    batch: float
    context: float
    lengths: tuple[float, float] | None
    assumed: tuple[str, ...]


def compare_speedups(rows: Sequence[Row], file: str, database: Database) -> tuple[list[Comparison], list[Skipped]]:
    """One speed-up per row that measured one: time per output token without over with speculation, [1].

    The acceptance length is the row's where it prints one, else that of our data by task, method and model.
    """
    found: list[Comparison] = []
    skipped: list[Skipped] = []
    for row in rows:
        name = row.get("id") or "?"
        measured = _number(row.get("speedup", ""))
        if not measured:
            skipped.append(Skipped(name, file, "holds no speed-up"))
            continue
        try:
            case = _case(row, database)
            predicted = _speedup(case, row, database)
        except InputError as error:
            skipped.append(Skipped(name, file, str(error.problem)))
            continue
        found.append(
            Comparison(
                name, file, "speedup", measured, predicted, "1", "mean", case.setup.chip.name, case.setup.model.name,
                case.implementation.name, case.setup.precision.weights, f"{case.batch:g}",
                f"speculation, {case.method}", extrapolates="; ".join(case.assumed),
            )
        )  # fmt: skip
    return found, skipped


def _case(row: Row, database: Database) -> Case:
    if row.get("notes", "").lower().startswith("up to"):
        raise InputError("the most of several conditions ('up to'), which the source doesn't list")
    label = row.get("target_model", "")
    if label.endswith("?"):
        raise InputError(f"the source leaves the model open: {label}")
    model, said = model_named(MODELS.get(label.lower(), label))
    assumed: list[str] = []
    chip = _accelerator(row.get("gpu", ""), database, assumed)
    implementation, engine = _implementation(row, assumed)
    weights = weight_choice(model, format_named(row.get("weight_precision", "").split("/")[0]) or said)
    gpus = int(_number(row.get("n_gpus", "")) or 0)
    load = row.get("batch_or_concurrency", "")
    per_rank = "per rank" in load
    batch = _number(load) if re.match(r"\s*\d+(\.\d+)?\s*(per rank)?\s*$", load) else None
    if batch is None:
        raise InputError(f"batch not recorded: {load!r}")
    eager = implementation.layer > 0  # its layers sit on one accelerator after another
    if not gpus and not eager:
        raise InputError("how many accelerators served it is not recorded")
    tensor, data = (1, gpus) if per_rank else (1 if eager else gpus, 1)
    request = EstimateRequest(
        model.name, chip.name, tensor, 1, gpus if per_rank and model.is_moe else 1, data, weights, "native", engine,
    )  # fmt: skip
    setup = set_up(request, database, ())
    method = _method(row.get("method", ""))
    tokens, shape, method = _draft(row, method, implementation)
    task, context, sizes = _task(row.get("dataset_or_isl_osl", ""), assumed)
    length = 1.0 if method == "none" else _length(row, setup, method, tokens, task, assumed)
    return Case(
        setup, implementation, method, tokens, shape, length, batch * data, context,
        None if per_rank else sizes, tuple(assumed),
    )  # fmt: skip


def _accelerator(label: str, database: Database, assumed: list[str]) -> Accelerator:
    """The accelerator, or what stands in for one that is disputed or not named."""
    try:
        return accelerator_named(label, database)
    except InputError:
        pass
    known: dict[str, Accelerator] = {}
    for word in re.findall(r"[A-Z]*\s?[A-Za-z]*\d+[A-Za-z0-9-]*", label.replace("1x", "").replace("2x", "")):
        try:
            chip = accelerator_named(word, database)
        except InputError:
            continue
        known[chip.name] = chip
    chips = sorted(known.values(), key=lambda c: (c.peak("bf16") or 0.0) / c.bandwidth)
    if not chips:
        assumed.append(UNNAMED[1])
        return database.accelerator(UNNAMED[0])
    chip = chips[0]
    if len(chips) > 1:
        assumed.append(f"accelerator disputed, {chip.name}: only where compute binds first do batches lose that much")
    else:
        assumed.append(f"accelerator not stated, {chip.name} as the class the source names")
    return chip


def _implementation(row: Row, assumed: list[str]) -> tuple[Implementation, str]:
    label = row.get("engine", "")
    if "reference" in label.lower():
        return load_speculation().implementations["reference"], "generic"
    engine, _ = engine_named(label)
    if engine == "generic":
        raise InputError(f"nothing known of how {label!r} speculates")
    version = "v0" if engine == "vllm" and BEFORE_V1 in row.get("source", "") else ""
    made = implementation_of(engine, version)
    if made.name == "vllm-v0":
        assumed.append("vLLM before V1 could draft, by the paper's date")
    return made, engine


def _method(label: str) -> str:
    text = label.lower()
    for word in sorted(METHODS, key=len, reverse=True):
        if re.search(rf"(^|\s){re.escape(word)}\b", text):
            return METHODS[word]
    raise InputError(f"method {label!r} is none we price")


def _draft(row: Row, method: str, implementation: Implementation) -> tuple[int, Shape | None, str]:
    """Draft tokens, the step's shape where it is no chain, and the method's name in the data."""
    said = row.get("draft_tokens", "")
    tree = said.startswith("tree")
    data = load_speculation()
    if method == "none" or said == "0":
        return 0, None, "none"
    name = method + TREE if tree and implementation.layer == 0 else method
    shape = data.shape(name, implementation.name)
    if shape is not None:
        return max(1, shape.passes), shape, name
    tokens = _number(said)
    if tokens:
        return int(tokens), None, "eagle" if method == "eagle2" else method
    if method == "n-gram":
        return 5, None, method  # the longest of the source's own acceptance rows
    if method == "mtp":
        return 3, None, method
    raise InputError("draft tokens not recorded")


def _task(label: str, assumed: list[str]) -> tuple[str, float, tuple[float, float] | None]:
    """The task a data set is of, a context in the middle of its answers, and fixed lengths, [tokens]."""
    match = re.match(r"\s*(\d+)(k?)/(\d+)(k?)", label.lower())
    if match:
        inputs, outputs = (float(n) * (1024.0 if k else 1.0) for n, k in (match.group(1, 2), match.group(3, 4)))
        return "random, chat template", inputs + outputs / 2, (inputs, outputs)
    sets = load_speculation().datasets
    text = label.lower()
    for name in sorted(sets, key=len, reverse=True):
        if text.startswith(name):
            return sets[name][0], sets[name][1], None
    assumed.append(f"task of {label!r} taken for chat")
    return "chat", 400.0, None


def _length(row: Row, setup: Setup, method: str, tokens: int, task: str, assumed: list[str]) -> float:
    printed = _number(row.get("acceptance_length_tau", ""))
    if printed:
        return max(1.0, printed)
    rate = _number(row.get("acceptance_rate", ""))
    if rate:
        return 1.0 + rate * tokens
    known = load_speculation().find(setup.model.name, method, task)
    if known is not None:
        assumed.append(f"acceptance by task: {known.curve.source}")
        return measured_length(known.curve, tokens)
    temperature = _number(row.get("temperature", ""))
    accepted = expected_acceptance(
        load_acceptance(), method, np.array([float(tokens)]), task.split(",")[0].replace("random", "chat"),
        model=setup.model.name, temperature=1.0 if temperature is None else temperature,
    )  # fmt: skip
    assumed.append(f"acceptance by method: {accepted.source}")
    return float(accepted.length[0])


def _speedup(case: Case, row: Row, database: Database) -> float:
    """Time per output token without over with, [1]; output rates of a closed loop where lengths are given."""
    if case.method == "none":
        return 1.0
    if case.lengths is not None and case.batch > 1:
        point = _loop_point(case, row)
        drafting = Drafting(case.method, case.tokens, case.length, case.implementation)
        return run_loop(point, database, drafting).throughput / run_loop(point, database).throughput
    made = case.implementation
    machine = host_per_rank(machine_of(case.setup), case.setup.layout, made)
    contexts = np.array([case.context])
    layout, step = case.setup.layout, case.setup.step
    drafter = _drafter(case)
    if case.batch > 1 and case.shape is None and plays(made.name, row.get("dataset_or_isl_osl", "")):
        return speedup_as_played(step, drafter, machine, layout, case.length, int(case.batch))
    if made.layer:
        plain = eager_step_seconds(step, machine, layout, case.batch, contexts, made.layer)
        spent = eager_step_seconds(step, machine, layout, case.batch, contexts, made.layer, drafter.queries)
        if drafter.model is not None:
            spent = spent + drafter.seconds(machine, layout, case.batch, contexts, spent)
    else:
        plain = speculative_step_seconds(step, Drafter("none", 0), machine, layout, case.batch, contexts)
        spent = speculative_step_seconds(step, drafter, machine, layout, case.batch, contexts)
    nodes = case.batch * drafter.queries
    host = (case.shape.host if case.shape else 0.0) + made.verdict * nodes * case.setup.model.vocab
    return case.length * float(np.squeeze(plain)) / (float(np.squeeze(spent)) + host)


def _drafter(case: Case) -> Drafter:
    made, shape = case.implementation, case.shape
    name = shape.drafter if shape else case.method
    small = draft_model(case.setup.model, name, DRAFT_VOCABULARY, case.setup.step.formats)
    if small is None and name not in ("", "n-gram"):
        raise InputError(f"no drafter of {case.method} for {case.setup.model.name}")
    share = load_acceptance().ngram_verify_share if small is None and not made.layer else 0.0
    looked_up = 1 + round(MATCHED * case.tokens) if name == "n-gram" else 0
    return Drafter(
        case.method, case.tokens, small, made.token if small else 0.0, share, case.setup.precision.kv,
        pass_floor=made.pass_floor, nodes=shape.nodes if shape else looked_up,
        row_overhead=made.logit * small.vocab if small else 0.0,
    )  # fmt: skip


def _loop_point(case: Case, row: Row) -> MeasuredPoint:
    assert case.lengths is not None
    setup = case.setup
    formats = "native" if setup.precision.formats == setup.model.formats else setup.precision.weights
    return MeasuredPoint(
        row.get("id", "?"), "", setup.chip.name, setup.model.name, setup.engine.name, "", formats, "native",
        Workers(1, int(setup.layout.tensor)), case.lengths[0], case.lengths[1], "closed loop", (),
        concurrency=int(case.batch),
    )  # fmt: skip


def _number(text: str) -> float | None:
    match = re.match(r"\s*([\d.]+(?:e[+-]?\d+)?)", text)
    return float(match.group(1)) if match else None


def compare_acceptance(rows: Sequence[Row], file: str, database: Database) -> tuple[list[Comparison], list[Skipped]]:
    """Acceptance lengths, [tokens], twice a row: as our data has them, and predicted without the row's curve.

    Where the data was taken from the very row, the first is a lookup and says so. The second, of kind
    "held out", is the median of other models of the method up to three drafts, and goes on from the row's
    own first three beyond them.
    """
    data = load_speculation()
    found: list[Comparison] = []
    skipped: list[Skipped] = []
    for row in rows:
        name = row.get("id") or "?"
        try:
            length, tokens = _number(row.get("acceptance_length", "")), _number(row.get("num_draft_tokens", ""))
            if not length or not tokens:
                raise InputError("acceptance length or draft tokens not recorded")
            method = _method(row.get("method", ""))
            mine = _curves(data.measured, method, row)
            others = [m for m in data.measured if m.method == method and m.task == "code" and not _same(m, row)]
            guesses = [_looked_up(mine, others, row, int(tokens)), _held_out(mine, others, rows, row, int(tokens))]
        except InputError as error:
            skipped.append(Skipped(name, file, str(error.problem)))
            continue
        for kind, predicted, how in guesses:
            found.append(
                Comparison(
                    name, file, "acceptance_length", length, predicted, "tokens", "mean", "", row.get("model", ""), "",
                    "", f"{tokens:g}", f"{kind}, {method}", extrapolates=how,
                )
            )  # fmt: skip
    return found, skipped


def _same(known: MeasuredAcceptance, row: Row) -> bool:
    return known.model == row.get("model", "").lower()


def _curves(measured: Sequence[MeasuredAcceptance], method: str, row: Row) -> list[MeasuredAcceptance]:
    """The model's own curves, that of the row's variant and source first."""
    own = [m for m in measured if m.method == method and m.task == "code" and _same(m, row)]
    source = row.get("source", "")
    return sorted(own, key=lambda m: (m.variant != row.get("thinking", ""), m.curve.source != source))


def _typical(others: Sequence[MeasuredAcceptance], tokens: int) -> float:
    """The median over models, each the mean of its curves, [tokens]."""
    models = sorted({m.model for m in others})
    if not models:
        raise InputError("no other model of the method is known")
    return float(
        np.median([np.mean([measured_length(m.curve, tokens) for m in others if m.model == one]) for one in models])
    )


def _looked_up(
    mine: Sequence[MeasuredAcceptance], others: Sequence[MeasuredAcceptance], row: Row, tokens: int
) -> tuple[str, float, str]:
    if not mine:
        return "acceptance", _typical(others, tokens), "from other models of the method"
    first = mine[0]
    same = first.curve.source == row.get("source", "") and first.variant == row.get("thinking", "")
    how = "taken from this table" if same else f"another run of the model: {first.curve.source}"
    return "acceptance", measured_length(first.curve, tokens), how


def _held_out(
    mine: Sequence[MeasuredAcceptance],
    others: Sequence[MeasuredAcceptance],
    rows: Sequence[Row],
    row: Row,
    tokens: int,
) -> tuple[str, float, str]:
    same = ("model", "method", "thinking", "source")
    own = {
        int(k): v
        for r in rows
        if all(r.get(c) == row.get(c) for c in same)
        and (k := _number(r.get("num_draft_tokens", "")))
        and (v := _number(r.get("acceptance_length", "")))
    }
    start = [own[k] for k in (1, 2, 3) if k in own]
    if tokens > 3 and len(start) == 3:
        return "held out", continued_length(start, tokens), "from 1 to 3 drafts of the same curve"
    return "held out", _typical(others or mine, tokens), "from other models of the method"
