"""Requests as the simulator takes them, and the record it gives back for each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from planner.errors import InputError


class RequestRecord(NamedTuple):
    """What happened to one request; times in [s] from the start, lengths in [tokens].

    ``cached_tokens`` of the input were found in a prefix cache at the last admission.
    """

    arrival_s: float
    first_token_s: float
    completion_s: float
    input_tokens: int
    output_tokens: int
    preemptions: int = 0
    cached_tokens: int = 0
    replica: int = 0
    request_class: str = ""

    @property
    def ttft_s(self) -> float:
        """Arrival to first token, [s]. Source: definition."""
        return self.first_token_s - self.arrival_s

    @property
    def time_per_output_token_s(self) -> float:
        """(end - first token)/(output tokens - 1), [s]; 0 for one token. Source: definition."""
        return (self.completion_s - self.first_token_s) / max(1, self.output_tokens - 1)

    @property
    def e2e_s(self) -> float:
        """Arrival to last token, [s]. Source: definition."""
        return self.completion_s - self.arrival_s


@dataclass
class Requests:
    """Requests as columns, one entry each: ``arrival`` [s], ``input``, ``output``, ``cached`` [tokens].

    ``prefix`` block hashes of the input, empty when unknown; ``priority`` smaller is served first;
    ``kind`` the request's class.
    """

    arrival: list[float] = field(default_factory=list)
    input: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    prefix: list[Sequence[Any]] | None = None
    priority: list[int] | None = None
    kind: list[str] | None = None

    def __len__(self) -> int:
        return len(self.arrival)


def read_requests(requests: Iterable[Any] | Requests) -> Requests:
    """Columns from mappings or objects with arrival_s, input_tokens, output_tokens, [s] and [tokens].

    Optional: cached_tokens, prefix (block hashes), priority, and class (request_class on objects).
    Columns are taken as they are. Raises InputError for a malformed request. Source: none needed.

    >>> read_requests([{"arrival_s": 0, "input_tokens": 9, "output_tokens": 2}]).input
    [9]
    """
    if isinstance(requests, Requests):
        return requests
    found = Requests()
    prefixes: list[Sequence[Any]] = []
    priorities: list[int] = []
    kinds: list[str] = []
    for index, request in enumerate(requests):
        try:
            if isinstance(request, Mapping):
                arrival, tokens = float(request["arrival_s"]), int(request["input_tokens"])
                output, get = int(request["output_tokens"]), request.get
                kind = get("class", get("request_class", ""))
            else:
                arrival, tokens = float(request.arrival_s), int(request.input_tokens)
                output, get = int(request.output_tokens), _getter(request)
                kind = get("class", None) or get("request_class", "")
            found.cached.append(max(0, min(int(get("cached_tokens", 0) or 0), tokens - 1)))
            prefix = get("prefix", None)
            prefixes.append(() if prefix is None else (prefix,) if isinstance(prefix, str | int) else tuple(prefix))
            priorities.append(int(get("priority", 0) or 0))
            kinds.append(str(kind or ""))
        except (KeyError, AttributeError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"request {index} is malformed ({error})", expected="arrival_s, input_tokens, output_tokens"
            ) from None
        if not (math.isfinite(arrival) and arrival >= 0 and tokens >= 1 and output >= 1):
            raise InputError(f"request {index} has impossible values", expected="times from 0, lengths from 1")
        found.arrival.append(arrival)
        found.input.append(tokens)
        found.output.append(output)
    found.prefix = prefixes if any(prefixes) else None
    found.priority = priorities if any(priorities) else None
    found.kind = kinds if any(kinds) else None
    return found


def _getter(request: object) -> Any:
    return lambda name, default: getattr(request, name, default)
