"""Where the closed forms are known to hold, and where only a simulation says what they are about."""

from __future__ import annotations

#: beyond these a figure was, or may be, further off than its tolerance; see docs/closed-forms.md
TOGETHER = 1.5  # sequences at a time
MANY_TOGETHER = 6.0
CROWD = 2.0  # times as many in service as come at a time
PREFILL = 0.35  # share of the time
PREFILL_OF_TTFT = 0.35
PREFILL_SIDE_BY_SIDE = 0.3  # several ranks, or several prompts at a time
PREFILL_BY_RANKS_OF_TTFT = 0.15
UNEVEN = 1.5  # coefficient of variation of prompts
PREFILL_OF_UNEVEN = 0.06
PREFILL_OF_STAY = 0.05  # of the time a sequence stays

#: figures a closed form may not answer for, as reports name them
TPOT, OCCUPANCY, TTFT = "time per output token", "occupancy", "time to first token"


def simulated_only(
    prefill_share: float, ranks: int, arrivals: float, prompt_cv: float, in_service: float
) -> tuple[str, ...]:
    """The figures whose closed forms are not to be relied on at this load: of TPOT, occupancy and TTFT those.

    p95 TTFT is simulated only where requests come more than 1.5 at a time (``arrivals`` [1], the sequences of a
    request times the squared coefficient of variation between requests), and where prefill takes more than 35 %
    of the time (``prefill_share`` [1]), 15 % with several ``ranks`` [1] that prefill side by side, 6 % with
    prompts whose seconds have a coefficient of variation ``prompt_cv`` [1] above 1.5, or 5 % of the time a
    sequence stays (``prefill_share`` over the sequences ``in_service`` [1]).

    Mean TPOT is simulated only where more than 6 come at a time, or more than 1.5 and not twice as many are in
    service, and where prefill takes more than 35 % of the time, 30 % with several ranks or more than 1.5 at a
    time, or 6 % with prompts as uneven as that.

    p99 occupancy is simulated only where mean TPOT is, and where prefill is more than 5 % of a sequence's stay.

    Source: bench/closed_forms.py, the errors of its grid by the closed forms' own inputs, and of workloads drawn
    at random; limits are set by hand so that they hold on both.

    >>> simulated_only(0.2, 1, 1.0, 1.0, 20.0), simulated_only(0.2, 8, 1.0, 1.0, 20.0)
    ((), ('time to first token',))
    """
    uneven = prompt_cv > UNEVEN and prefill_share > PREFILL_OF_UNEVEN
    several = ranks > 1
    together = arrivals > TOGETHER
    groups = together and (arrivals > MANY_TOGETHER or in_service < CROWD * arrivals)
    tokens = groups or uneven or prefill_share > (PREFILL_SIDE_BY_SIDE if several or together else PREFILL)
    short = prefill_share > PREFILL_OF_STAY * in_service
    occupancy = tokens or short
    first = together or uneven or short
    first = first or prefill_share > (PREFILL_BY_RANKS_OF_TTFT if several else PREFILL_OF_TTFT)
    return tuple(name for name, flag in ((TPOT, tokens), (OCCUPANCY, occupancy), (TTFT, first)) if flag)
