"""The map of speculation beside measured speed-ups and flips: the page docs/speculation-map.md.

Reads ``bench/data/speculation_flips.csv``; ``python docs/generate.py`` writes the page.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from planner.cost.acceptance import acceptance_length, alpha_from_length
from planner.cost.speculation import Drafter, draft_model
from planner.decisions.speculation import speculation_map
from planner.decisions.speculation_map import BATCHES, CONTEXTS, Place, price_map
from planner.decisions.speculation_result import SpeculationMap
from planner.hardware import load_database
from planner.hardware.acceptance import Conversations, load_acceptance, load_speculation
from planner.sizing.break_even import crossings
from planner.sizing.configuration import EstimateRequest, Setup, machine_of, set_up
from planner.sizing.footprint import footprint
from planner.sizing.operating import Option
from planner.validation.conversations import DRAWS, NONE, play, speedup_as_played

DATA = Path(__file__).resolve().parent / "data" / "speculation_flips.csv"
EAGLE, EAGLE3 = "EAGLE on one H100, SGLang 0.4.4", "EAGLE-3 on one H100, SGLang 0.4.4"
#: groups of a benchmark of 80 conversations, which does not stay as full as it is asked to
PLAYED = (EAGLE, EAGLE3)
FINE = np.exp2(np.arange(0.0, 10.01, 0.125))


@dataclass(frozen=True)
class Point:
    """One row: where, how, at which batch and context [tokens]; the speed-up measured, None where it wasn't."""

    group: str
    request: EstimateRequest
    method: str
    draft_tokens: int
    acceptance_length: float
    batch: float
    context: float
    measured: float | None
    note: str
    source: str


@lru_cache(maxsize=1)
def read() -> tuple[Point, ...]:
    """The rows of the file; acceptance where none was measured follows the nearest measured one of the group."""
    with DATA.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        k = int(row["draft_tokens"])
        found.append(
            Point(
                row["group"],
                EstimateRequest(
                    row["model"], row["gpu"], int(row["tensor_parallel"]), 1, int(row["expert_parallel"]),
                    int(row["data_parallel"]), row["weights"], "native", row["engine"],
                ),
                row["method"], k, float(row["acceptance_length"] or _implied(rows, row["group"], k)),
                float(row["batch"]), float(row["context"]), float(row["measured"]) if row["measured"] else None,
                row["note"], row["source"],
            )
        )  # fmt: skip
    return tuple(found)


def _implied(rows: Sequence[dict[str, str]], group: str, k: int) -> float:
    """Length at ``k`` as if drafts were accepted on their own with the chance of the nearest measured length."""
    known = {
        int(r["draft_tokens"]): float(r["acceptance_length"])
        for r in rows
        if r["group"] == group and r["acceptance_length"]
    }
    nearest = min(known, key=lambda one: abs(one - k))
    return float(acceptance_length(alpha_from_length(known[nearest], nearest), k))


@lru_cache(maxsize=32)
def _place(request: EstimateRequest) -> tuple[Place, Setup]:
    setup = set_up(request, load_database(), ())
    room = footprint(setup.step, setup.chip, setup.engine, setup.layout).kv_room
    return Place(setup.step, machine_of(setup), setup.layout, room, setup.engine.hybrid_kv_manager), setup


def option(point: Point) -> Option:
    """The point's way to draft, with the acceptance length that was measured."""
    data, setup = load_acceptance(), _place(point.request)[1]
    small = draft_model(setup.model, point.method, data.draft_vocab, setup.precision.formats)
    drafter = Drafter(
        point.method, point.draft_tokens, small, data.token_overhead(setup.engine.name) if small else 0.0,
        data.ngram_verify_share, setup.precision.kv, kv_budget=data.kv_budget if point.method == "sparse-kv" else 0.0,
        row_overhead=data.row_overhead(setup.engine.name, small.vocab) if small else 0.0,
    )  # fmt: skip
    length = point.acceptance_length
    return Option(drafter, length, length, length, adjusted=False)


def speedups(point: Point, batches: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """Speed-up of the point's method over contexts (rows) [tokens] and batches [sequences], [1]."""
    place, _ = _place(point.request)
    priced = price_map(place, [option(point)], load_acceptance(), "in-domain", batches, contexts[:, None])
    return priced.speedup()[0]


def predicted(point: Point) -> float:
    """The map's cell of a point, [1]."""
    return float(speedups(point, np.array([point.batch]), np.array([point.context]))[0, 0])


def as_played(point: Point) -> float:
    """The speed-up of a point of SGLang's MT-bench table as its script plays it, so many conversations at once, [1]."""
    return _played(point, int(point.batch), load_speculation().conversations)


@lru_cache(maxsize=128)
def _played(point: Point, at_once: int, played: Conversations) -> float:
    place, _ = _place(point.request)
    drafter = option(point).drafter
    return speedup_as_played(
        place.step, drafter, place.machine, place.layout, point.acceptance_length, at_once, played
    )  # fmt: skip


def guess(point: Point) -> float:
    """What stands beside the measurement, [1]: the map's cell, or the table as it was played."""
    return as_played(point) if point.group in PLAYED else predicted(point)


def played_flip(point: Point, answer_p95: float | None = None) -> float:
    """Conversations at once from which the point's method costs time as played, [1]; infinite up to 64.

    ``answer_p95`` [tokens] in place of the data file's.
    """
    known = load_speculation().conversations
    known = replace(known, answer_p95=answer_p95) if answer_p95 else known
    at = np.array([8, 16, 20, 24, 28, 32, 40, 48, 56, 64])
    found = crossings(at.astype(float), np.array([_played(point, int(n), known) for n in at]))
    return found[0].at if found else float("inf")


def mean_at_once(point: Point) -> tuple[float, float]:
    """Fewest and most conversations that run on average, over draws, where the point's batch is asked for, [1]."""
    place, _ = _place(point.request)
    known = load_speculation().conversations
    runs = [
        play(place.step, NONE, place.machine, place.layout, known, (), int(point.batch), seed) for seed in range(DRAWS)
    ]
    means = [sum(r.completion_s - r.arrival_s for r in run.records) / run.duration_s for run in runs]
    return min(means), max(means)


def flips(point: Point) -> tuple[float, ...]:
    """Batches at which the point's method crosses one at its context, [sequences]."""
    return tuple(c.at for c in crossings(FINE, speedups(point, FINE, np.array([point.context]))[0]))


def whole(point: Point) -> SpeculationMap:
    """The map of the point's method alone."""
    place, _ = _place(point.request)
    priced = price_map(place, [option(point)], load_acceptance(), "in-domain", BATCHES, CONTEXTS[:, None])
    return speculation_map(priced, load_acceptance().speedup_error)


def groups() -> dict[str, list[Point]]:
    """Points by group, in the file's order."""
    found: dict[str, list[Point]] = {}
    for point in read():
        found.setdefault(point.group, []).append(point)
    return found


@dataclass(frozen=True)
class Claim:
    """What was measured about where speculation turns, what the map says, and whether it says the same."""

    claim: str
    measured: str
    map: str
    held: bool
    comment: str = ""


def point_at(group: str, batch: float | None = None, draft_tokens: int | None = None) -> Point:
    """The first point of a group, at a batch and a draft length where given; KeyError without one."""
    for point in groups()[group]:
        if (batch is None or point.batch == batch) and (draft_tokens is None or point.draft_tokens == draft_tokens):
            return point
    raise KeyError(group)


CHAT, EDIT = "n-gram in chat on one H100, vLLM", "n-gram in code edits on one H100, vLLM"
MTP, EXPERTS = "MTP on 8 B200, TensorRT-LLM", "EAGLE-3 of a mixture of experts on one H200, vLLM"
WIDE = "MTP at 65k tokens on 16 H200, SGLang"
SPARSE = "Drafting from a sparse cache on 8 A100"


def _per_rank(point: Point) -> float:
    """The point's speed-up if each rank's host looked after its own sequences alone, [1]."""
    place, setup = _place(point.request)
    host = replace(place.machine, sequence_overhead=place.machine.sequence_overhead / setup.layout.data)
    batch, context = np.array([point.batch]), np.array([[point.context]])
    priced = price_map(replace(place, machine=host), [option(point)], load_acceptance(), "in-domain", batch, context)
    return float(priced.speedup()[0, 0, 0])


def best_draft_length(group: str) -> int:
    """The draft length of a group with the highest predicted speed-up, [tokens]."""
    return max(groups()[group], key=predicted).draft_tokens


def worst_batch(point: Point, highest: float = 128.0) -> float:
    """The batch up to ``highest`` at which the point's speed-up is least, [sequences]."""
    batches = FINE[highest >= FINE]
    return float(batches[int(np.argmin(speedups(point, batches, np.array([point.context]))[0]))])


def claims() -> list[Claim]:
    """Every measured flip beside the map's."""
    eagle, eagle3 = point_at(EAGLE), point_at(EAGLE3, 64)
    chat, edit = point_at(CHAT, 64, 5), point_at(EDIT, 128)
    experts = point_at(EXPERTS, 8)
    row = speedups(edit, np.array([1.0, 16.0, 128.0]), np.array([512.0, 32768.0]))
    sparse = [predicted(p) for p in groups()[SPARSE]]
    flip, bare, bare3 = played_flip(eagle), flips(eagle)[0], flips(eagle3)[0]
    short, long = played_flip(eagle, 900.0), played_flip(eagle, 1400.0)
    fewest, most = mean_at_once(eagle3)
    worst = worst_batch(experts)
    return [
        Claim(
            "EAGLE below 1x from batch 24", "0.94x at batch 32, 0.88x at 48",
            f"below 1x from {flip:.0f} conversations at once", 24 / 1.25 <= flip <= 24 * 1.25,
            f"played as SGLang's script does it, 80 conversations of two turns; a batch that stays full crosses at "
            f"{bare:.0f}. With answers of 900 or 1,400 tokens at p95 instead of 1,150 it is {short:.0f} or {long:.0f}",
        ),
        Claim(
            "EAGLE-3 still 1.38x at batch 64", f"{eagle3.measured:.2f}x", f"{as_played(eagle3):.2f}x",
            as_played(eagle3) > 1.2,
            f"asked for 64 at once, {fewest:.0f} to {most:.0f} of the 80 conversations run on average, as the longest "
            f"outlast the others. Kept full it would break even at batch {bare3:.0f}: `planner speculate` says that, "
            "as a service has no last conversation",
        ),
        Claim(
            "n-gram in chat below 1x by batch 64", f"{chat.measured:.2f}x (k = 5)",
            f"{predicted(chat):.2f}x; below 1x from batch {flips(chat)[0]:.0f}", predicted(chat) < 1,
        ),
        Claim(
            "n-gram in code edits above 1x at batch 128", f"{edit.measured:.2f}x", f"{predicted(edit):.2f}x",
            predicted(edit) > 1,
        ),
        Claim(
            "MTP on B200 best at k = 3", "2.28x at 3, 2.21x at 4",
            ", ".join(f"{predicted(point_at(MTP, draft_tokens=k)):.2f}x at {k}" for k in (3, 4, 2)),
            best_draft_length(MTP) == 3,
        ),
        Claim(
            "mixtures of experts worst at batch 2 to 16", "of batches 1, 8, 64 and 256 least at 8: 0.91x",
            f"least at batch {worst:.0f}: {speedups(experts, np.array([worst]), np.array([8704.0]))[0, 0]:.2f}x",
            2 <= worst <= 16,
            "the level at batch 1 (0.97x for 1.08x) and 64 (1.12x for 0.93x) is off: the measured runs prefill 8k "
            "prompts between their steps, which the map doesn't",
        ),
        Claim(
            "long contexts rise with the batch", "up to 2.51x from batch 32 to 256 (sparse cache)",
            f"from {sparse[2]:.2f}x at batch 32 to {sparse[-1]:.2f}x at 256, {sparse[0]:.2f}x at 1; n-gram in code "
            f"edits at batch 128 {row[0, 2]:.2f}x at 512 tokens, {row[1, 2]:.2f}x at 32k",
            sparse[-1] > sparse[2] > sparse[0],
        ),
    ]  # fmt: skip


def page() -> str:
    """docs/speculation-map.md."""
    from planner.report.blocks import Sheet
    from planner.report.render import plain
    from planner.report.speculation import map_blocks

    measured = [p for p in read() if p.measured is not None]
    errors = sorted(abs(guess(p) / p.measured - 1) for p in measured if p.measured)
    signs = [(guess(p) > 1) == (p.measured > 1) for p in measured if p.measured]
    lines = [
        "# The map of speculation beside measurements", "",
        "Generated from `bench/data/speculation_flips.csv` by `docs/generate.py`. Acceptance lengths are those",
        "measured with each row, or the note says otherwise; steps, drafting and host time are the planner's, of bare",
        "steps: no prefill between them. SGLang's EAGLE and EAGLE-3 rows are of MT-bench as its script plays it, which",
        "doesn't stay as full as asked; they are played so, and errors are of that. Nothing was fitted to this page,",
        "but host times were fitted to tables it shows: those of SGLang to the EAGLE and EAGLE-3 rows, that of vLLM to",
        "SpecDecode-Bench.", "",
        f"{len(measured)} speed-ups: median error {errors[len(errors) // 2]:.1%}, 80 % within "
        f"{errors[int(0.8 * len(errors))]:.0%}, the worst {errors[-1]:.0%}; on the right side of one in "
        f"{sum(signs)} of {len(signs)}.", "",
        "## Flips", "",
        "| measured | figure | the map | same |", "|---|---|---|---|",
    ]  # fmt: skip
    found = claims()
    lines += [f"| {c.claim} | {c.measured} | {c.map} | {'yes' if c.held else 'no'} |" for c in found]
    lines += ["", *(f"- {c.claim}: {c.comment}." for c in found if c.comment), ""]
    for name, points in groups().items():
        lines += [f"## {name}", "", f"Source: {points[0].source}.", ""]
        ran = name in PLAYED
        lines += [
            f"| k | tokens a step | batch | context | measured | map |{' as played |' * ran} error | note |",
            f"|---|---|---|---|---|---|---|---|{'---|' * ran}",
        ]
        for p in points:
            error = f"{guess(p) / p.measured - 1:+.0%}" if p.measured else ""
            lines.append(
                f"| {p.draft_tokens} | {p.acceptance_length:.2f} | {p.batch:g} | {p.context:g} "
                f"| {f'{p.measured:.2f}x' if p.measured else ''} | {predicted(p):.2f}x "
                f"|{f' {guess(p):.2f}x |' * ran} {error} | {p.note} |"
            )
        turned = flips(points[-1])
        if turned:
            at = ", ".join(f"{x:.0f}" for x in turned)
            lines += [
                "",
                f"At {points[-1].context:g} tokens and k = {points[-1].draft_tokens} it crosses one at batch {at}.",
            ]
        if name in (EAGLE3, EDIT, EXPERTS, SPARSE):
            sheets = [b for b in map_blocks(whole(points[-1])) if isinstance(b, Sheet)]
            lines += ["", "Batch across, context down:", "", "```text", plain(sheets[:1]).rstrip(), "```"]
        lines.append("")
    lines += [
        "## What defeats it", "",
        "- EAGLE's measured curve rises again from 0.88x at 48 to 0.99x at 56; no description here does that, and the",
        "  played one is 9 % low there. Lengths of MT-bench's answers are assumed, see the flips.",
        "- What takes 4e-10 s for each entry of a drafted or verified row of logits in SGLang 0.4.4 is unknown: memory",
        "  traffic would be a hundredth of it. With a time per token in its place EAGLE, whose head covers four times",
        "  the vocabulary of EAGLE-3's, flips at 44 instead, and DeepSeek-R1's MTP on SGLang, which wasn't fitted, is",
        "  worse: median error 21 % instead of 14 % on H200 (InferenceX).",
        "- n-gram on TensorRT-LLM at batch 32: the map verifies all drafts in every step; an engine drafts nothing",
        "  where the lookup finds nothing. `planner validate` counts that; the plan and the map are cautious.",
        "- MTP at 128 sequences a rank on 128 accelerators: near the measured 1.14x for a doubtful reason. The host's",
        "  time per sequence counts for all ranks of a replica in turn, which makes the plain step too long; counted",
        f"  per rank, as `planner validate` does, the same row reads {_per_rank(point_at(WIDE, 16384)):.2f}x.",
        "- Served speed-ups (gpt-oss-120b above) have prefill between the steps, which dilutes gains and losses.",
    ]  # fmt: skip
    return "\n".join(lines)
