"""One run of the benchmarks on one device, and the names that go with it."""

from __future__ import annotations

import datetime
import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from typing import Any

from planner.documents import parse_toml
from planner.errors import InputError, nearest
from planner.hardware import load_database
from planner.hardware.loading import parse_accelerator
from planner.measuring import blas
from planner.measuring.cpu import Sizes, cpu_tasks, sizes_for
from planner.measuring.figures import Figure, Host, Measurement, Task, Unsupported
from planner.measuring.host import cpu_host, usable_threads
from planner.measuring.timing import Stopwatch

DEVICES = ("auto", "cpu", "cuda")
EXTRA = "pip install 'llm-capacity-planner[gpu]', which brings torch"
#: what is told while measuring: the figure's label, how many are done, how many there are
Said = Callable[[str, int, int], None]


def choose_device(asked: str) -> str:
    """``cpu`` or ``cuda`` (NVIDIA and AMD alike) for what was asked.

    ``auto`` is a GPU where torch sees one. InputError for another word, and for cuda without torch or a GPU.
    """
    if asked not in DEVICES:
        raise InputError(
            f"is {asked!r}", key="--device", expected=", ".join(DEVICES), suggestion=nearest(asked, DEVICES)
        )
    if asked == "cpu" or (asked == "auto" and importlib.util.find_spec("torch") is None):
        return "cpu"
    torch = _torch()
    if torch.cuda.is_available():
        return "cuda"
    if asked == "auto":
        return "cpu"
    raise InputError(
        f"torch {torch.__version__} sees no GPU", key="--device",
        expected="a CUDA or ROCm build of torch and its driver, or --device cpu",
    )  # fmt: skip


def _torch() -> Any:
    """The module torch; InputError where it isn't installed or doesn't load."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        problem = "a GPU is measured with torch, which is not installed"
        if error.name != "torch":
            problem = f"a GPU is measured with torch, which does not load ({error})"
        raise InputError(problem, key="--device", expected=f"{EXTRA}; or --device cpu") from None
    except OSError as error:
        problem = f"a GPU is measured with torch, which does not load ({error})"
        raise InputError(problem, key="--device", expected=f"{EXTRA}; or --device cpu") from None


def check_name(name: str) -> None:
    """InputError when ``name`` cannot name an accelerator; the loader's own rule."""
    from planner.measuring.entry import quoted

    document = parse_toml(f'name = {quoted(name)}\nvendor = "x"\n', "--name")
    try:
        parse_accelerator(document, load_database().defaults)
    except InputError as error:
        raise InputError(f"is {name!r}", key="--name", expected=error.expected) from None


def default_name(host: Host) -> str:
    """A name for the file: the device's own, and its threads where it is a processor.

    >>> default_name(Host("AMD EPYC (TM) 9654", "AMD", "x86_64", 1e9, None, 2, ""))
    'amd-epyc-9654-2t'
    """
    plain = re.sub(r"\((r|tm|c)\)", " ", host.name.lower())
    slug = re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.") or "device"
    return slug[:60] + (f"-{host.threads}t" if host.device == "cpu" else "")


def threads_for(asked: int | None) -> int:
    """Threads to measure with, [1]; InputError where NumPy's matrix library can't be told so many."""
    if asked is None:
        return usable_threads()
    if not blas.controllable():
        raise InputError(
            "NumPy's matrix library takes its threads from the environment", key="--threads",
            expected=f"OMP_NUM_THREADS={asked} in the environment instead",
        )  # fmt: skip
    return asked


def stopwatch_for(quick: bool) -> Stopwatch:
    """Seconds and repetitions of each figure: 1 s and at least 9, or 0.25 s and at least 7."""
    return Stopwatch(0.25, 7, longest=1.0) if quick else Stopwatch(1.0, 9)


def run_tasks(tasks: Sequence[Task], watch: Stopwatch, said: Said | None) -> tuple[list[Figure], list[str]]:
    """Figures of the tasks, one after the other, and what the device has no operator for."""
    figures, left_out = [], []
    for done, task in enumerate(tasks):
        if said is not None:
            said(task.label, done, len(tasks))
        try:
            figures.append(task.run(watch))
        except Unsupported as error:
            left_out.append(f"{task.label} ({error})")
        except MemoryError:
            left_out.append(f"{task.label} (not enough memory)")
    return figures, left_out


def measure(
    device: str = "cpu",
    *,
    quick: bool = False,
    threads: int | None = None,
    said: Said | None = None,
    watch: Stopwatch | None = None,
    sizes: Sizes | None = None,
    today: str | None = None,
) -> Measurement:
    """All figures of a device that :func:`choose_device` gave: rates in [B/s] and [FLOP/s], times in [s].

    ``threads`` of the processor, all it may use by default; ``said`` hears of progress; ``watch``, ``sizes``
    and ``today`` (ISO date) replace what ``quick`` and the machine decide. InputError when torch is missing.
    """
    date = today or datetime.date.today().isoformat()
    if device == "cuda":
        from planner.measuring.gpu import TorchKernels

        if threads is not None:
            raise InputError("is for the processor", key="--threads", expected="--device cpu")
        kernels = TorchKernels(_torch(), "cuda")
        figures, left_out = run_tasks(kernels.tasks(quick), kernels.stopwatch(watch or stopwatch_for(quick)), said)
        return Measurement(kernels.host(), date, tuple(figures), tuple(left_out))
    host = cpu_host(threads_for(threads), blas.description())
    with cpu_tasks(host, sizes or sizes_for(host, quick)) as tasks:
        figures, left_out = run_tasks(tasks, watch or stopwatch_for(quick), said)
    return Measurement(host, date, tuple(figures), tuple(left_out))
