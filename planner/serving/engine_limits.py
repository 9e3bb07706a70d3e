"""What bounds a replica's steps: token budget, sequences, cache, chunk and block sizes."""

from __future__ import annotations

from dataclasses import dataclass

from planner.errors import InputError
from planner.serving.requests import Requests


@dataclass(frozen=True)
class EngineLimits:
    """What bounds a step: all [tokens] but ``max_sequences`` [1].

    ``kv_tokens`` None: memory without end. ``max_chunk_tokens`` of one prompt in one step, None: the
    whole budget. ``prefix_block_tokens`` a hash of a request's prefix stands for. A decoding sequence
    takes ``sequence_tokens`` of the budget: more than one when it verifies drafts. ``mixed`` False: while there
    are prompts to prefill steps do nothing else, and decodes wait.
    """

    token_budget: int
    max_sequences: int
    kv_tokens: int | None = None
    block_tokens: int = 16
    max_chunk_tokens: int | None = None
    prefix_block_tokens: int = 512
    sequence_tokens: int = 1
    mixed: bool = True

    def check(self, requests: Requests) -> None:
        """Raise InputError for limits that make no sense, or a request that can never fit."""
        for name in ("token_budget", "max_sequences", "block_tokens", "prefix_block_tokens", "sequence_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", expected="1 or more")
        if requests.prefix is not None and self.prefix_block_tokens % self.block_tokens:
            raise InputError(
                f"prefix_block_tokens is {self.prefix_block_tokens}", expected=f"a multiple of {self.block_tokens}"
            )
        if self.kv_tokens is None:
            return
        capacity, block = self.kv_tokens // self.block_tokens, self.block_tokens
        capacity -= self.sequence_tokens > 1  # a block for drafts, whose acceptance is spread over the steps
        for i, (length, output) in enumerate(zip(requests.input, requests.output, strict=True)):
            if -(-(length + output) // block) > capacity:
                raise InputError(
                    f"request {i} of {length} + {output} tokens never fits the cache of {self.kv_tokens} tokens"
                )
