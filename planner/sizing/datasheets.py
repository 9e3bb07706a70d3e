"""Accelerators side by side as their datasheets have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner.hardware import Accelerator, Database
from planner.sizing.result import DatasheetRow


def datasheet(
    database: Database,
    names: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    term: str = "on-demand",
) -> tuple[DatasheetRow, ...]:
    """One row per accelerator, in order of name: [B], [B/s], dense [FLOP/s], [FLOP/B], [W], [$/h].

    ``names`` None: all. InputError for an unknown name. Source: the hardware database.
    """
    chips = [database.accelerator(n) for n in names] if names else list(database.accelerators.values())
    named = {database.accelerator(n).name: usd for n, usd in (price_overrides or {}).items()}
    return tuple(_row(database, chip, named.get(chip.name), term) for chip in chips)


def _row(database: Database, chip: Accelerator, override: float | None, term: str) -> DatasheetRow:
    price = database.price(chip.name, override=override, term=term)
    usd = price.usd_per_gpu_hour if price else None
    kinds = {e.kind for f in chip.achieved.get("matmul", {}).values() for e in f.values()}
    return DatasheetRow(
        accelerator=chip.name,
        vendor=chip.vendor,
        released=chip.released,
        status=chip.status,
        memory_bytes=chip.memory_bytes,
        bandwidth=chip.bandwidth,
        peak_bf16=chip.peak("bf16"),
        peak_fp8=chip.peak("fp8"),
        peak_fp4=chip.peak("fp4"),
        ridge_point_bf16=chip.ridge_point("bf16"),
        scale_up_domain=chip.scale_up_domain,
        scale_up_bandwidth=chip.scale_up_bandwidth,
        tdp_w=chip.tdp_w,
        usd_per_hour=usd,
        price_source=price.label if price else "",
        bandwidth_per_usd=chip.bandwidth / usd if usd and chip.bandwidth else None,
        efficiencies="measured" if "measured" in kinds else "derived",
    )
