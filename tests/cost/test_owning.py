"""Owning an accelerator: payments that return the capital, power of the site, energy per token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.owning import annual_payment, energy_per_token, power_usd_per_hour


def test_payments_by_hand() -> None:
    # 32,000 at 10 % over 4 years: 1.1^4 = 1.4641; 3,200 * 1.4641 / 0.4641
    assert annual_payment(32_000, 4, 0.10) == pytest.approx(10_095.066, abs=1e-3)
    assert annual_payment(32_000, 4, 0.0) == 8_000
    # 0.7 kW, a quarter more for the site, 12 cents
    assert power_usd_per_hour(700, 1.25, 0.12) == pytest.approx(0.105)
    assert energy_per_token(8 * 700, 1.25, 1000) == pytest.approx(7.0)


@given(
    capital=st.floats(1e3, 1e6), years=st.integers(1, 20), rate=st.floats(1e-3, 0.5)
)  # fmt: skip
def test_payments_return_the_capital_with_interest(capital: float, years: int, rate: float) -> None:
    owed = capital
    for _ in range(years):
        owed = owed * (1 + rate) - annual_payment(capital, years, rate)
    assert owed == pytest.approx(0, abs=1e-6 * capital * (1 + rate) ** years)
    assert annual_payment(capital, years, rate) > annual_payment(capital, years, 0.0)
    assert annual_payment(capital, years + 1, rate) < annual_payment(capital, years, rate)
