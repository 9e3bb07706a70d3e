"""Threads of the matrix library behind NumPy, asked and set at run time where it can be found."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

#: spellings of OpenBLAS builds: NumPy's own wheels, and distributions'
NAMES = (("scipy_openblas_", "64_"), ("scipy_openblas_", ""), ("openblas_", "64_"), ("openblas_", ""))
LIBRARY = re.compile(r"/\S*openblas\S*\.so\S*")
MAPS = Path("/proc/self/maps")


def _library() -> tuple[Any, str, str] | None:
    """The loaded OpenBLAS and how it spells its functions; None for another library or system."""
    _ = np.ones((2, 2)) @ np.ones((2, 2))  # the library is loaded
    try:
        loaded = sorted(set(LIBRARY.findall(MAPS.read_text(encoding="utf-8", errors="replace"))))
    except OSError:
        return None
    for path in loaded:
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for prefix, suffix in NAMES:
            if hasattr(library, f"{prefix}set_num_threads{suffix}"):
                return library, prefix, suffix
    return None


def controllable() -> bool:
    """Whether the number of threads can be set from here."""
    return _library() is not None


@contextmanager
def one_thread() -> Iterator[None]:
    """The matrix library on one thread inside, as before afterwards; no effect where it can't be set."""
    found = _library()
    if found is None:
        yield
        return
    library, prefix, suffix = found
    set_threads = getattr(library, f"{prefix}set_num_threads{suffix}")
    before = int(getattr(library, f"{prefix}get_num_threads{suffix}")())
    set_threads(1)
    try:
        yield
    finally:
        set_threads(before)


def description() -> str:
    """NumPy and its matrix library, with versions."""
    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"NumPy {np.__version__} with {blas['name']} {blas['version']}"
    except (KeyError, TypeError):
        return f"NumPy {np.__version__}"
