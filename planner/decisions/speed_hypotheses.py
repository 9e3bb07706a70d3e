"""What a fast tier may be, in sentences: each lever alone and with others, against what is paid for it."""

from __future__ import annotations

from collections.abc import Sequence

from planner.decisions.speed_levers import LEVERS
from planner.decisions.speed_result import Tier

TITLES = {
    "speculation": "speculation", "precision": "another precision", "parallelism": "more parallelism",
    "batch": "a small batch", "accelerator": "another accelerator",
}  # fmt: skip


def named(tier: Tier) -> str:
    """A tier's levers in a few words. Source: the tier."""
    words = {
        "speculation": tier.speculation,
        "precision": f"{tier.weight_dtype} weights",
        "parallelism": f"{tier.gpus_per_replica} accelerators a replica",
        "batch": f"batch {tier.batch:.0f}",
        "accelerator": tier.accelerator,
    }
    return " + ".join(words[name] for name in tier.levers)


def cheapest_way(target: float, tiers: Sequence[Tier], small: Tier | None) -> str:
    """The cheapest tier in a sentence, and what a ``small`` batch alone does. Source: the tiers."""
    beside = "the batch is one already"
    if small is not None:
        beside = f"a small batch alone {_reach(small, target)}"
    if not tiers:
        return f"No lever reaches {target:.3g} times the speed; {beside}."
    best = tiers[0]
    return (
        f"Cheapest way to {target:.3g} times the speed: {named(best)}, at {best.cost_multiple:.3g} times the cost; "
        f"{beside}."
    )


def _reach(tier: Tier, target: float) -> str:
    """What a lever alone does."""
    if tier.reaches_target:
        return f"takes {named(tier)}, at {tier.cost_multiple:.3g} times the cost"
    return f"gets to {tier.speed_multiple:.2f} times, not {target:.3g}, at {tier.cost_multiple:.3g} times the cost"


def hypotheses(target: float, price: float, alone: Sequence[Tier], tiers: Sequence[Tier]) -> tuple[str, ...]:
    """What a tier ``target`` times as fast at ``price`` times the price may be: each lever alone, and with others.

    A lever fits where it reaches the target at a cost not above the price. The last line says what the numbers
    support. Source: the tiers.
    """
    single = {t.levers[0]: t for t in alone if len(t.levers) == 1}
    said = []
    for lever in LEVERS:
        if lever not in single:
            said.append(f"Only {TITLES[lever]}: there is no other to choose.")
            continue
        one = single[lever]
        line = f"Only {TITLES[lever]}: {_verdict(one, price)}; {_reach(one, target)}."
        having = [t for t in tiers if lever in t.levers and len(t.levers) > 1]
        with_others = min(having, key=lambda t: t.cost_multiple, default=None)
        if with_others is None and not one.reaches_target:
            line += " Nor does it with others."
        elif with_others is not None and not (one.reaches_target and one.cost_multiple <= with_others.cost_multiple):
            line += (
                f" With others it {_verdict(with_others, price)}: {named(with_others)}, "
                f"{with_others.cost_multiple:.3g} times the cost."
            )
        said.append(line)
    fitting = [t for t in tiers if t.cost_multiple <= price]
    if not fitting:
        said.append(f"Supported: none; {target:.3g} times the speed costs more than {price:.3g} times as much here.")
        return tuple(said)
    best = fitting[0]
    kept = price / best.cost_multiple
    said.append(
        f"Supported: {' + '.join(best.levers)}, at {best.cost_multiple:.3g} times the cost. {price:.3g} times the "
        f"price is {kept:.3g} times what it costs" + (": margin or scarcity, not cost." if kept > 1.5 else ".")
    )
    return tuple(said)


def _verdict(tier: Tier, price: float) -> str:
    return "fits" if tier.reaches_target and tier.cost_multiple <= price else "does not fit"
