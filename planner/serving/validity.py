"""Where the closed form of time to first token is known to hold, and where only a simulation says it."""

from __future__ import annotations

#: p95 TTFT was more than 20 % off beyond these; see docs/closed-forms.md
TOGETHER = 1.5  # requests at a time
PREFILL = 0.4  # share of the time
PREFILL_BY_RANKS = 0.18
UNEVEN = 1.4  # coefficient of variation of prompts
PREFILL_OF_UNEVEN = 0.06


def simulated_only(prefill_share: float, ranks: int, arrivals: float, prompt_cv: float) -> bool:
    """Whether the closed form of p95 TTFT is not to be relied on at this load, [1].

    That is where requests come more than 1.5 at a time (``arrivals`` [1], the sequences of a request times
    the squared coefficient of variation between requests), and where prefill takes more than 40 % of the
    time (``prefill_share`` [1]), 18 % with several ``ranks`` [1] that prefill side by side, or 6 % with
    prompts whose seconds have a coefficient of variation ``prompt_cv`` [1] above 1.4.

    Source: bench/closed_forms.py, the errors of its grid by the closed forms' own inputs.

    >>> simulated_only(0.3, 1, 1.0, 1.0), simulated_only(0.3, 8, 1.0, 1.0)
    (False, True)
    """
    uneven = prompt_cv > UNEVEN and prefill_share > PREFILL_OF_UNEVEN
    side_by_side = ranks > 1 and prefill_share > PREFILL_BY_RANKS
    return arrivals > TOGETHER or prefill_share > PREFILL or side_by_side or uneven
