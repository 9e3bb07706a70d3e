"""Acceptance of draft tokens as data: measured curves by model and task, and what drafting costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.documents import read_toml
from planner.hardware.database import database_root

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One measured curve: acceptance length [tokens] at draft lengths [tokens]."""

    draft_tokens: tuple[float, ...]
    lengths: tuple[float, ...]
    kind: str
    source: str

    def at(self, k: Vector) -> Vector:
        """Length at k, [tokens]: linear between points, flat beyond, never falling with k.

        Source: the measurements; their small dips are noise of sampling.
        """
        x = np.concatenate([[0.0], self.draft_tokens])
        y = np.maximum.accumulate(np.concatenate([[1.0], self.lengths]))
        return np.interp(k, x, y)


@dataclass(frozen=True)
class OwnCurve:
    """A curve the user measured: taken as it is, for one model and task where it names them."""

    method: str
    curve: Curve
    model: str = ""
    task: str = ""


@dataclass(frozen=True)
class DomainMatch:
    """What a drafter loses on text or contexts it wasn't trained on; see the data file."""

    methods: tuple[str, ...]
    factor: float
    from_tokens: float
    to_tokens: float


@dataclass(frozen=True)
class AcceptanceData:
    """Everything known about acceptance; see :func:`load_acceptance`."""

    learned: Mapping[tuple[str, str], Curve]
    defaults: Mapping[str, Curve]
    ngram: Mapping[str, Curve]
    ngram_task: Mapping[str, str]
    task_factor: Mapping[str, tuple[float, float, float]]
    temperature_slope: float
    interval: float
    token_overhead_s: float
    ngram_verify_share: float
    draft_vocab: int
    kv_budget: float
    speedup_error: float
    domain: DomainMatch
    engine_token_overhead_s: Mapping[str, float]
    engine_logit_s: Mapping[str, float]
    own: tuple[OwnCurve, ...] = ()

    def users(self, model: str, method: str, task: str) -> Curve | None:
        """The user's own curve, [tokens], the one that names most; None without one. Source: the user."""
        name = _key(model)
        fits = [
            (bool(o.model) + bool(o.task), i, o.curve)
            for i, o in enumerate(self.own)
            if o.method == method and (not o.model or _key(o.model) == name) and (not o.task or o.task == task)
        ]
        return max(fits, key=lambda fit: fit[:2])[2] if fits else None

    def token_overhead(self, engine: str) -> float:
        """Host time of a draft pass in an engine, [s]. Source: the data files."""
        return self.engine_token_overhead_s.get(engine, self.token_overhead_s)

    def row_overhead(self, engine: str, vocab: int) -> float:
        """Time of one drafted token's row of ``vocab`` [1] logits in an engine, [s]. Source: the data files."""
        return self.engine_logit_s.get(engine, 0.0) * vocab

    def family(self, model: str, method: str) -> Curve | None:
        """The measured curve of this model's drafter, [tokens], or None. Source: the data files."""
        name = _key(model)
        for (known, kind), curve in self.learned.items():
            if kind == method and (name.startswith(known) or known.startswith(name)):
                return curve
        return None

    def has_head(self, model: str, method: str) -> bool:
        """Whether a public drafter of this method was measured for this model."""
        return self.family(model, method) is not None


def _curve(entry: Mapping[str, Any]) -> Curve:
    return Curve(
        tuple(float(x) for x in entry["draft_tokens"]),
        tuple(float(x) for x in entry["acceptance_length"]),
        str(entry["kind"]),
        str(entry["source"]),
    )


@lru_cache(maxsize=1)
def load_acceptance() -> AcceptanceData:
    """The bundled acceptance data, [tokens] and [s]. Source: named in each entry of the files."""
    root = database_root() / "acceptance"
    learned_file, defaults = read_toml(root / "learned.toml").data, read_toml(root / "defaults.toml").data
    learned: dict[tuple[str, str], Curve] = {}
    for entry in learned_file["curve"]:
        # the last of a model's curves (thinking on) stands for it
        learned[_key(entry["model"]), entry["method"]] = _curve(entry)
    factors = {
        task: (v["value"], v["low"], v["high"]) for task, v in defaults["task_factor"].items() if isinstance(v, dict)
    }
    cost, domain = defaults["draft_cost"], defaults["domain_match"]
    made = read_toml(root / "implementations.toml").data
    own = [e for e in made["implementation"] if e["name"] == e["engine"]]
    return AcceptanceData(
        learned,
        {e["method"]: _curve(e) for e in defaults["default"]},
        {e["task"]: _curve(e) for e in defaults["ngram"]},
        defaults["ngram_task"],
        factors,
        float(defaults["temperature"]["slope"]),
        float(defaults["interval"]["share"]),
        float(cost["token_overhead_s"]),
        float(cost["ngram_verify_share"]),
        int(cost["draft_vocab"]),
        float(cost["kv_budget"]),
        float(defaults["speedup_error"]["share"]),
        DomainMatch(
            tuple(domain["methods"]), float(domain["value"]), float(domain["from_tokens"]), float(domain["to_tokens"])
        ),
        {e["name"]: float(e["token"]) for e in own},
        {e["name"]: float(e.get("logit", 0.0)) for e in own},
    )


@dataclass(frozen=True)
class MeasuredAcceptance:
    """Acceptance lengths [tokens] of one drafter on one task, at its ``draft_tokens`` [tokens].

    ``variant``: thinking on or off, where a model has both.
    """

    model: str
    method: str
    task: str
    curve: Curve
    variant: str = ""


@dataclass(frozen=True)
class Implementation:
    """Host time of speculation in one implementation, all in seconds; see the data file for each field."""

    name: str
    engine: str
    source: str
    token: float = 0.0
    verified_token: float = 0.0
    layer: float = 0.0
    pass_floor: float = 0.0
    verdict: float = 0.0
    logit: float = 0.0


@dataclass(frozen=True)
class Shape:
    """One step of a published method: drafting ``passes`` [1], ``nodes`` verified [tokens], ``host`` [s]."""

    drafter: str
    passes: int
    nodes: int
    host: float
    source: str


@dataclass(frozen=True)
class Conversations:
    """A benchmark of ``count`` [1] conversations of two turns; lengths in [tokens], see the data file."""

    engine: str
    dataset: str
    count: int
    prompt: float
    shared: float
    question: float
    answer_p50: float
    answer_p95: float
    answer_limit: float


@dataclass(frozen=True)
class SpeculationData:
    """What published speed-ups were made with; see :func:`load_speculation`."""

    measured: tuple[MeasuredAcceptance, ...]
    datasets: Mapping[str, tuple[str, float]]
    implementations: Mapping[str, Implementation]
    shapes: Mapping[tuple[str, str], Shape]
    conversations: Conversations

    def find(self, model: str, method: str, task: str) -> MeasuredAcceptance | None:
        """The lengths of a model's drafter on a task, or None. Source: the data files."""
        name = _key(model)
        for one in self.measured:
            if (one.method, one.task) == (method, task) and name.startswith(_key(one.model)):
                return one
        return None

    def shape(self, method: str, implementation: str) -> Shape | None:
        """The step of a method in an implementation, or None for a chain of drafts. Source: the data files."""
        return self.shapes.get((method, implementation)) or self.shapes.get((method, "*"))


@lru_cache(maxsize=1)
def load_speculation() -> SpeculationData:
    """Acceptance by task, implementations and shapes of methods, [tokens] and [s]. Source: in the entries.

    >>> load_speculation().find("llama-3.1-8b", "eagle3", "chat").curve.at(3).item()
    2.79
    """
    root = database_root() / "acceptance"
    learned, by_task, made = (
        read_toml(root / f"{name}.toml").data for name in ("learned", "measured", "implementations")
    )
    measured = [
        MeasuredAcceptance(e["model"], e["method"], "code", _curve(e), e.get("thinking", "")) for e in learned["curve"]
    ]
    measured += [MeasuredAcceptance(e["model"], e["method"], e["task"], _curve(e)) for e in by_task["measured"]]
    sets = {k: (v["task"], float(v["context"])) for k, v in by_task["datasets"].items() if isinstance(v, dict)}
    numbers = ("token", "verified_token", "layer", "pass_floor", "verdict", "logit")
    implementations = {
        e["name"]: Implementation(e["name"], e["engine"], e["source"], *(float(e.get(n, 0.0)) for n in numbers))
        for e in made["implementation"]
    }
    shapes = {
        (e["method"], e["implementation"]): Shape(
            e["drafter"], int(e["passes"]), int(e["nodes"]), float(e["host"]), e["source"]
        )
        for e in made["shape"]
    }
    play = by_task["conversations"]
    played = Conversations(
        play["engine"], play["dataset"], int(play["count"]), *(float(play[f.name]) for f in fields(Conversations)[3:])
    )  # fmt: skip
    return SpeculationData(tuple(measured), sets, implementations, shapes, played)


def _key(model: str) -> str:
    return model.lower().split("/")[-1].replace("-instruct", "")
