"""The hardware database: bundled facts, overlaid by the user's own files, loaded when needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from planner.documents import Document, read_toml
from planner.errors import InputError, nearest
from planner.hardware.accelerator import Accelerator, Defaults
from planner.hardware.assumptions import Assumptions, load_assumptions
from planner.hardware.calibration import (
    Calibration,
    applied_to_accelerator,
    applied_to_engine,
    load_calibration,
)
from planner.hardware.engine import Engine, parse_engine
from planner.hardware.grid import Power, load_power
from planner.hardware.intervals import Intervals, load_intervals
from planner.hardware.loading import parse_accelerator, parse_defaults
from planner.hardware.prices import Price, PriceBook, parse_prices, user_price

FOLDERS = ("accelerators", "prices", "engines")


def database_root() -> Path:
    """Folder of the bundled facts: the repository's in a checkout, the package's once installed."""
    package = Path(__file__).resolve().parent.parent
    beside = package.parent / "hardware_db"
    return beside if (beside / "accelerators").is_dir() else package / "hardware_db"


@dataclass(frozen=True, eq=False)
class Database:
    """Accelerators, prices, engines and constants; user overlays replace entries by name. Each is its own key."""

    root: Path
    overlays: tuple[Path, ...] = ()
    extra_prices: tuple[Path, ...] = ()
    calibration_files: tuple[Path, ...] = ()
    fitted: tuple[Calibration, ...] = ()
    extra_grids: tuple[Path, ...] = ()
    _parsed: dict[Path, Accelerator | Engine] = field(default_factory=dict, compare=False, repr=False)
    _one: dict[str, Accelerator | Engine] = field(default_factory=dict, compare=False, repr=False)

    def _files(self, folder: str) -> Iterator[Path]:
        yield from sorted((self.root / folder).glob("*.toml"))
        for overlay in self.overlays:
            if overlay.is_file():
                if _kind(overlay) == folder:
                    yield overlay
                continue
            nested = overlay / folder
            if nested.is_dir():
                yield from sorted(nested.glob("*.toml"))
            elif not any((overlay / f).is_dir() for f in FOLDERS):
                yield from (p for p in sorted(overlay.glob("*.toml")) if _kind(p) == folder)

    @cached_property
    def defaults(self) -> Defaults:
        """Fallback efficiencies. Source: ``defaults.toml``."""
        return parse_defaults(read_toml(self.root / "defaults.toml"))

    @cached_property
    def assumptions(self) -> Assumptions:
        """Planning constants. Source: ``assumptions.toml``."""
        return load_assumptions(self.root)

    @property
    def intervals(self) -> Intervals:
        """How far measured figures lie from predictions of the constants in use, [1]. Source: the file.

        Of fitted constants where a calibration with a name is in use; one without is somebody's what-if.
        """
        return load_intervals(self.root, "fitted" if any(c.name for c in self.calibrations) else "kernels")

    @cached_property
    def calibrations(self) -> tuple[Calibration, ...]:
        """The shipped calibration and the user's on top. Source: their files."""
        shipped = self.root / "calibration.toml"
        files = (shipped, *self.calibration_files) if shipped.is_file() else self.calibration_files
        return (*(load_calibration(path) for path in files), *self.fitted)

    @cached_property
    def power(self) -> Power:
        """Grids and the usual PUE, the user's files on top. Source: ``grid.toml`` and those."""
        return load_power(self.root, self.extra_grids)

    def with_grids(self, files: Sequence[Path]) -> Database:
        """This database with the user's files of grids on top. Source: none needed."""
        return replace(self, extra_grids=(*self.extra_grids, *files)) if files else self

    def uncalibrated(self) -> Database:
        """This database without any calibration: what kernels achieve alone. Source: none needed."""
        found = replace(self, fitted=(), calibration_files=(), _one={})
        found.__dict__["defaults"] = self.defaults
        found.__dict__["calibrations"] = ()
        return found

    def calibrated(self, *more: Calibration) -> Database:
        """This database with calibrations on top of those it has; files are not read again. Source: none needed."""
        found = replace(self, fitted=(*self.fitted, *more), _one={})
        found.__dict__["defaults"] = self.defaults
        found.__dict__["assumptions"] = self.assumptions
        found.__dict__["calibrations"] = (*self.calibrations, *more)
        return found

    def _accelerator(self, path: Path) -> Accelerator:
        chip = self._parsed.get(path)
        if not isinstance(chip, Accelerator):
            chip = self._parsed[path] = parse_accelerator(read_toml(path), self.defaults)
        return applied_to_accelerator(chip, self.calibrations)

    @cached_property
    def accelerators(self) -> Mapping[str, Accelerator]:
        """Every accelerator by name, overlays included, in order of name. Source: their files."""
        found: dict[str, Accelerator] = {}
        for path in self._files("accelerators"):
            chip = self._accelerator(path)
            found[chip.name] = chip
        return dict(sorted(found.items()))

    @cached_property
    def _names(self) -> Mapping[str, str]:
        names: dict[str, str] = {}
        for chip in self.accelerators.values():
            for name in (chip.name, *chip.aliases):
                names[name.lower()] = chip.name
        return names

    def bundled(self, name: str) -> Accelerator | None:
        """The accelerator as shipped, without overlays; None when it is the user's own. Source: its file."""
        path = self.root / "accelerators" / f"{name}.toml"
        return parse_accelerator(read_toml(path), self.defaults) if self.overlays and path.is_file() else None

    def accelerator(self, name: str) -> Accelerator:
        """One accelerator by name or alias, any case; InputError with the nearest name."""
        key = name.strip().lower()
        path = self.root / "accelerators" / f"{key}.toml"
        if not self.overlays and "accelerators" not in self.__dict__ and _is_name(key) and path.is_file():
            chip = self._one.get(key)
            if not isinstance(chip, Accelerator):
                chip = self._one[key] = self._accelerator(path)
            return chip
        if key not in self._names:
            raise InputError(
                f"unknown accelerator {name!r}",
                expected="a name of `planner list gpus`",
                suggestion=nearest(key, self._names),
            )
        return self.accelerators[self._names[key]]

    def _engine(self, path: Path) -> Engine:
        engine = self._parsed.get(path)
        if not isinstance(engine, Engine):
            engine = self._parsed[path] = parse_engine(read_toml(path))
        return applied_to_engine(engine, self.calibrations)

    @cached_property
    def engines(self) -> Mapping[str, Engine]:
        """Every engine by name. Source: their files."""
        parsed = [self._engine(path) for path in self._files("engines")]
        return {engine.name: engine for engine in parsed}

    def engine(self, name: str) -> Engine:
        """One engine by name; InputError with the nearest name."""
        path = self.root / "engines" / f"{name.lower()}.toml"
        if not self.overlays and "engines" not in self.__dict__ and _is_name(name) and path.is_file():
            key = f"engine {name.lower()}"
            engine = self._one.get(key)
            if not isinstance(engine, Engine):
                engine = self._one[key] = self._engine(path)
            return engine
        if name.lower() not in self.engines:
            raise InputError(
                f"unknown engine {name!r}",
                expected="one of " + ", ".join(self.engines),
                suggestion=nearest(name, self.engines),
            )
        return self.engines[name.lower()]

    def generation(self, family: str, version: str) -> Engine:
        """The engine that stands for a version of a family: the oldest generation that covers it.

        InputError for an unknown family. Source: the engines' files.
        """
        known = [e for e in self.engines.values() if e.family == family and e.covers(version)]
        return min(known, key=lambda e: (not e.until, e.until)) if known else self.engine(family)

    @cached_property
    def prices(self) -> PriceBook:
        """All price rows; rows of user files come first for their accelerators. Source: the rows."""
        bundled = [p for f in self._files("prices") for p in parse_prices(read_toml(f))]
        mine = [p for f in self.extra_prices for p in self._own_prices(read_toml(f))]
        covered = {(p.accelerator, p.term) for p in mine}
        kept = (p for p in bundled if (p.accelerator, p.term) not in covered)
        return PriceBook((*mine, *kept))

    def _own_prices(self, document: Document) -> list[Price]:
        """The rows of a user's file under the names accelerators have here; InputError for one nobody has."""
        rows = []
        for i, row in enumerate(parse_prices(document)):
            try:
                rows.append(replace(row, accelerator=self.accelerator(row.accelerator).name))
            except InputError as error:
                raise document.error(
                    ("prices", i, "accelerator"), error.problem, error.expected, error.suggestion
                ) from None
        return rows

    def price(
        self,
        accelerator: str,
        *,
        override: float | None = None,
        providers: Sequence[str] = (),
        term: str = "on-demand",
    ) -> Price | None:
        """The price a plan uses for ``accelerator``, [$/h]; None when nobody knows it.

        ``override`` is the user's own. Source: :meth:`planner.hardware.prices.PriceBook.price`.
        """
        if override is not None:
            return user_price(accelerator, override)
        if providers:
            self.prices.check_providers(providers)
        return self.prices.price(accelerator, providers, term)


def _is_name(text: str) -> bool:
    return text.replace("-", "").replace("_", "").replace(".", "").isalnum() and ".." not in text


def _kind(path: Path) -> str:
    """Which folder a single overlay file belongs to, by what it holds."""
    data = read_toml(path).data
    if "prices" in data or "provider" in data:
        return "prices"
    return "engines" if "overhead" in data else "accelerators"


def load_database(
    overlays: Sequence[Path] = (), prices: Sequence[Path] = (), calibrations: Sequence[Path] = ()
) -> Database:
    """The bundled database with user overlays (folders or files), price files and calibrations on top.

    InputError when an overlay doesn't exist; files are read when first needed.
    """
    for path in (*overlays, *prices, *calibrations):
        if not Path(path).exists():
            raise InputError("no such file or folder", file=str(path))
    return Database(
        database_root(),
        tuple(Path(p) for p in overlays),
        tuple(Path(p) for p in prices),
        tuple(Path(p) for p in calibrations),
    )
