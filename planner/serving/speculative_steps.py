"""How many verification steps a request takes: drawn once, so that nothing random happens later."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def step_lengths(acceptance: Sequence[float]) -> Vector:
    """P(a step makes j+1 tokens) for j = 0..k from the acceptance of each position, (k+1,), [1].

    ``acceptance`` (k,) [1]: that draft token j is accepted given the ones before. Source: Leviathan
    et al., arXiv 2211.17192: the first rejection ends the step, and one token is always made.

    >>> [round(float(p), 3) for p in step_lengths([0.8, 0.5])]
    [0.2, 0.4, 0.4]
    """
    reached = np.cumprod(np.concatenate([[1.0], np.asarray(acceptance, dtype=float)]))
    return reached - np.concatenate([reached[1:], [0.0]])


def draw_steps(tokens: npt.ArrayLike, lengths: Vector, rng: np.random.Generator) -> Counts:
    """Steps until at least ``tokens`` [tokens] are made, (n,), [1]; step lengths are independent.

    ``lengths`` (k+1,) [1] as :func:`step_lengths` gives them. The distribution is exact: as many steps
    as cannot overshoot are taken at once, as a multinomial. Source: renewal counting.

    >>> import numpy as np
    >>> found = draw_steps(np.full(4000, 600), step_lengths([0.8, 0.5]), np.random.default_rng(1))
    >>> round(600 / float(found.mean()), 2), int(found.min()) >= 200
    (2.2, True)
    """
    left = np.array(tokens, dtype=np.int64)
    steps = np.zeros(left.shape, dtype=np.int64)
    sizes = np.arange(1, len(lengths) + 1)
    share = lengths / lengths.sum()
    open_ = np.flatnonzero(left > 0)
    while len(open_):
        run = np.maximum(1, left[open_] // len(sizes))
        made = rng.multinomial(run, share) @ sizes
        left[open_] -= made
        steps[open_] += run
        open_ = open_[left[open_] > 0]
    return steps
