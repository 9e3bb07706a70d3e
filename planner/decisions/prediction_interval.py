"""How far a prediction may be off, as an interval, and factors drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from planner.sizing.intervals import known_of
from planner.sizing.search import Search, Sized

Vector = npt.NDArray[np.float64]
#: share of cases that low and high of an acceptance are meant for; its source names a range and no share
ACCEPTANCE_LEVEL = 0.8


@dataclass(frozen=True)
class PredictionInterval:
    """Actual over predicted lies between ``low`` and ``high`` [1] in a share ``level`` of cases [1]."""

    low: float
    high: float
    level: float
    source: str

    def draw(self, count: int, generator: np.random.Generator) -> Vector:
        """Lognormal factors whose central interval of this level is this one, (count,), [1].

        Source: a lognormal is what independent relative errors multiply to.

        >>> factors = PredictionInterval(0.8, 1.2, 0.8, "").draw(20_001, np.random.default_rng(0))
        >>> [round(float(x), 2) for x in np.quantile(factors, [0.1, 0.9])]
        [0.8, 1.2]
        """
        normal = generator.standard_normal(count)
        z = NormalDist().inv_cdf(0.5 + self.level / 2)
        middle, spread = np.log(self.low * self.high) / 2, np.log(self.high / self.low) / 2
        found: Vector = np.exp(middle + spread / z * normal)
        return found


def step_time_interval(found: Search, sized: Sized) -> PredictionInterval:
    """Actual over predicted step time of a candidate, [1]: the only place that knows where it comes from.

    Source: the intervals of time per output token, :class:`planner.hardware.intervals.Intervals`.
    """
    factors = known_of(found, sized).tpot
    return PredictionInterval(factors.low, factors.high, factors.level, factors.source)


def acceptance_interval(sized: Sized) -> PredictionInterval | None:
    """Actual over predicted drafts accepted, acceptance length less one, [1]; None without drafting or an interval.

    Source: low and high of the acceptance data.
    """
    option = sized.rows.options[0]
    gain = option.acceptance - 1
    if not option.drafter.draft_tokens or gain <= 0 or option.acceptance_high <= option.acceptance_low:
        return None
    low, high = (max(x - 1, 1e-3 * gain) / gain for x in (option.acceptance_low, option.acceptance_high))
    return PredictionInterval(low, high, ACCEPTANCE_LEVEL, option.source)
