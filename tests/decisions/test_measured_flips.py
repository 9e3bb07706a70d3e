"""Where speculation was measured to turn, and where the map has it turn; docs/speculation-map.md shows both."""

from __future__ import annotations

import numpy as np
import pytest

from bench import speculation_map as b

#: groups, and how far any of their points may be off: bare steps at measured acceptance; served runs, runs of
#: unknown mean batch, or with acceptance that was not printed are looser
TOLERANCE = {b.EAGLE: 0.20, b.EAGLE3: 0.30, b.CHAT: 0.16, b.EDIT: 0.10, b.MTP: 0.10, b.EXPERTS: 0.22}


@pytest.mark.parametrize("group", list(TOLERANCE))
def test_speedups_of_a_group(group: str) -> None:
    errors = [abs(b.predicted(p) / p.measured - 1) for p in b.groups()[group] if p.measured]
    assert max(errors) <= TOLERANCE[group]
    assert float(np.median(errors)) <= 0.12


def test_over_all_points() -> None:
    measured = [(p.measured, b.predicted(p)) for p in b.read() if p.measured]
    assert np.median([abs(guess / known - 1) for known, guess in measured]) <= 0.06
    assert np.mean([(guess > 1) == (known > 1) for known, guess in measured]) >= 0.85


def test_eagle_stops_to_pay_between_batch_16_and_48() -> None:
    """Measured 1.23x at batch 8 and below one from 24; the map has it at 36 with fitted constants, and says so."""
    (flip,) = b.flips(b.point_at(b.EAGLE))
    assert 16 <= flip <= 48


def test_eagle_3_pays_for_longer_than_eagle() -> None:
    """Measured 1.38x at batch 64: the map has it break even there, 28 % too low, and says so in the docs."""
    (eagle,), (eagle3,) = b.flips(b.point_at(b.EAGLE)), b.flips(b.point_at(b.EAGLE3))
    assert eagle3 > 1.7 * eagle and eagle3 > 56
    missed = next(c for c in b.claims() if "1.38" in c.claim)
    assert missed.held == (b.predicted(b.point_at(b.EAGLE3, 64)) > 1) and "missed" in missed.comment


def test_n_gram_in_chat_stops_to_pay_before_batch_64() -> None:
    """Five drafts always; one draft pays for longer, as measured."""
    (flip,) = b.flips(b.point_at(b.CHAT, draft_tokens=5))
    assert 25 <= flip <= 64  # the fit of the measured steps crosses between 32 and 64
    assert b.predicted(b.point_at(b.CHAT, 64, 5)) == pytest.approx(0.87, rel=0.05)
    assert b.predicted(b.point_at(b.CHAT, 64, 1)) > 1


def test_n_gram_in_code_edits_still_pays_at_batch_128() -> None:
    assert b.predicted(b.point_at(b.EDIT, 128)) > 1.1


def test_three_drafts_are_best_for_mtp_on_b200() -> None:
    assert b.best_draft_length(b.MTP) == 3


def test_experts_are_worst_between_batch_2_and_16() -> None:
    point = b.point_at(b.EXPERTS, 8)
    worst = b.worst_batch(point)
    assert 2 <= worst <= 16
    low, at, high = b.speedups(point, np.array([1.0, worst, 128.0]), np.array([point.context]))[0]
    assert at < 0.95 * low and at < 0.8 * high


def test_long_contexts_rise_with_the_batch() -> None:
    sparse = b.groups()[b.SPARSE]
    gains = [b.predicted(p) for p in sparse]
    assert gains == sorted(gains) and gains[0] < 1
    assert gains[-1] == pytest.approx(2.51, rel=0.15)  # "up to"
    edit = b.speedups(b.point_at(b.EDIT, 128), np.array([32.0, 128.0, 256.0]), np.array([512.0, 32768.0, 131072.0]))
    assert np.all(np.diff(edit, axis=0) > 0)  # the longer the context, the more at any batch
    assert edit[0, 2] < 1.2 < edit[1, 2] < edit[2, 2]


def test_the_page_shows_every_claim_and_every_point() -> None:
    page = b.page()
    assert all(c.claim in page for c in b.claims())
    assert page.count("| no |") == sum(not c.held for c in b.claims()) <= 2
    assert all(f"## {name}" in page for name in b.groups())
