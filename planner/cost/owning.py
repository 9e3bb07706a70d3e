"""What an accelerator of one's own costs per hour: capital paid back with interest, power, hosting."""

from __future__ import annotations

HOURS_PER_YEAR = 8760.0


def annual_payment(capital: float, years: float, rate: float) -> float:
    """Equal payments that return ``capital`` [$] over ``years`` at interest ``rate`` [1/year], [$/year].

    Source: annuity, ``C*r/(1 - (1 + r)^-n)``; ``C/n`` without interest.

    >>> round(annual_payment(30_000, 4, 0.08), 2), annual_payment(30_000, 4, 0.0)
    (9057.62, 7500.0)
    """
    return capital / years if rate == 0 else capital * rate / (1 - (1 + rate) ** -years)


def power_usd_per_hour(watts: float, pue: float, usd_per_kwh: float) -> float:
    """Cost of an hour of ``watts`` [W] of machines on a site of that ``pue`` [1], [$/h].

    Source: definition of power usage effectiveness (site energy over IT energy).

    >>> round(power_usd_per_hour(700, 1.5, 0.10), 6)
    0.105
    """
    return watts / 1000 * pue * usd_per_kwh


def energy_per_token(watts: float, pue: float, tokens_per_second: float) -> float:
    """Site energy over tokens, with all power on them, [J].

    Source: definition.

    >>> energy_per_token(5600, 1.25, 1400.0)
    5.0
    """
    return watts * pue / tokens_per_second
