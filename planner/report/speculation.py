"""A decision about speculation as a person reads it: the answer, the methods, the flips, the map."""

from __future__ import annotations

from collections.abc import Sequence

from planner.decisions.speculation_result import SpeculationDecision, SpeculationMap
from planner.report.blocks import Block, Heading, Sheet, Text, sheet
from planner.sizing.result import SpeculationFlip
from planner.units import format_bytes, format_count

LETTERS = {
    "n-gram": "n", "suffix": "s", "eagle": "e", "eagle3": "E", "mtp": "m", "dspark": "b", "draft-model": "d",
    "sparse-kv": "k",
}  # fmt: skip
LABEL, CELL, PAYS = 9, 6, 14  # widths of the map's columns


def speculation_blocks(decision: SpeculationDecision, width: int | None = None) -> list[Block]:
    """The blocks of a decision; the map keeps to ``width`` characters, leaving batches out where it must."""
    c = decision.configuration
    degrees = [
        ("TP", "tensor_parallel"),
        ("PP", "pipeline_parallel"),
        ("DP", "data_parallel"),
        ("EP", "expert_parallel"),
    ]
    layout = " ".join(f"{n}{c[key]}" for n, key in degrees if c[key] > 1 or n == "TP")
    blocks: list[Block] = [
        Heading(
            f"Speculation: {c['model']} on {c['accelerator']}, {layout}, {c['engine']}, weights {c['weight_dtype']}"
        ),
        _answer(decision),
    ]
    if decision.reason is not None:
        blocks += [Text(decision.reason.statement), *_flip_lines(decision), _methods(decision)]
    if decision.map is not None:
        blocks += map_blocks(decision.map, width)
    rows = [(a.key, a.value, a.origin) for a in decision.assumptions]
    blocks += [Heading("Assumed"), sheet(("Key", "Value", "From"), rows)]
    return blocks + [Text(f"warning: {w}", "bad") for w in decision.warnings]


def _answer(d: SpeculationDecision) -> Text:
    if d.reason is None:
        return Text("No: nothing drafts.")
    at = f"at batch {d.batch:.3g} and {format_count(d.context)} tokens of context"
    gain = f"{d.speedup:.2f}x ({d.speedup_low:.2f} to {d.speedup_high:.2f})"
    what = f"{d.method} with {d.draft_tokens} draft tokens"
    if d.speculate:
        unsure = "" if d.speedup_low > 1 else "; the interval reaches below one, so measure it first"
        return Text(f"Yes: {what}, {gain} {at}{unsure}.", "good")
    if not d.methods[0].fits:
        return Text(f"No: memory holds no drafter {at}.", "bad")
    return Text(f"No: the best, {what}, makes {gain} {at}; {1 + d.margin:.2f}x is required.", "bad")


def _flip_lines(d: SpeculationDecision) -> list[Block]:
    batch = pays(d.flip_batches, d.speedup > 1, "batch {}")
    context = pays(d.flip_contexts, d.speedup > 1, "{} tokens")
    return [
        Text(
            f"At this context it pays {batch} (memory holds {format_count(d.batch_that_fits)} sequences); "
            f"at this batch, {context}."
        )
    ]


def pays(flips: Sequence[SpeculationFlip], pays_now: bool, unit: str = "{}") -> str:
    """Where speculation pays in words: "up to batch 43", "from 2k tokens", "at any", "at none"."""
    if not flips:
        return "at any" if pays_now else "at none"
    words = []
    for flip in flips:
        at = unit.format(format_count(flip.at) if flip.at >= 1000 else f"{flip.at:.0f}")
        words.append(f"from {at}" if flip.pays_beyond else f"up to {at}")
    return ", ".join(words)


def _methods(d: SpeculationDecision) -> Sheet:
    rows = [
        (m.method, m.draft_tokens, f"{m.acceptance_length:.2f}", f"{m.verify_s * 1e3:.2f} ms",
         f"{m.draft_s * 1e3:.2f} ms",
         f"{m.speedup:.2f}x" if m.fits else "no room", f"{m.speedup_low:.2f} to {m.speedup_high:.2f}",
         pays(m.flip_batches, m.speedup > 1),
         format_bytes(m.draft_weight_bytes) if m.draft_weight_bytes else None)
        for m in d.methods
    ]  # fmt: skip
    columns = ("Method", "k", "Tokens/step", "Verify", "Draft", "Speed-up", "Interval", "Pays at batch", "Weights")
    return sheet(columns, rows, numeric=("k", "Tokens/step", "Verify", "Draft", "Speed-up", "Weights"))


def map_blocks(found: SpeculationMap, width: int | None = None) -> list[Block]:
    """The map as two sheets: the best speed-up over context and batch, and which method makes it."""
    room = (width or 10_000) - LABEL - PAYS
    step = next((s for s in (1, 2, 4) if CELL * len(found.batches[::s]) <= room), 8)
    shown = range(0, len(found.batches), step)
    head = ("Context", *(f"{found.batches[i]:.0f}" for i in shown))
    rows, tones, methods = [], [], []
    used: dict[str, None] = {}
    for r, context in enumerate(found.contexts):
        label = format_count(context)
        cells = [f"{found.speedup[r][i]:.2f}" if found.fits[r][i] else "." for i in shown]
        turns = pays(found.flip_batches[r], found.speedup[r][0] > 1) if any(found.fits[r]) else "-"
        rows.append((label, *cells, turns))
        tones.append(("", *(_tone(found.speedup[r][i]) if found.fits[r][i] else "note" for i in shown), ""))
        names = [found.method[r][i] if found.speedup[r][i] > 1 and found.fits[r][i] else "" for i in shown]
        used |= dict.fromkeys(n for n in names if n)
        methods.append(
            (
                label,
                *(f"{LETTERS[n]}{found.draft_tokens[r][i]}" if n else "." for n, i in zip(names, shown, strict=True)),
            )
        )
    numeric = head[1:]
    legend = ", ".join(f"{LETTERS[n]} {n}" for n in used)
    blocks: list[Block] = [
        Heading("Speed-up of the best method over batch (columns) and context (rows)"),
        Sheet((*head, "Pays at batch"), tuple(rows), numeric=frozenset(numeric), tones=tuple(tones)),
        Text("A point: memory doesn't hold so many sequences.", "note"),
    ]
    if used:
        blocks += [
            Heading("Which method, with how many draft tokens"),
            Sheet(head, tuple(methods), numeric=frozenset(numeric)),
            Text(f"{legend}; a point: none pays.", "note"),
        ]
    return blocks


def _tone(speedup: float) -> str:
    for limit, tone in ((0.95, "worse"), (1.05, "even"), (1.5, "gain-1"), (2.0, "gain-2")):
        if speedup < limit:
            return tone
    return "gain-3"
