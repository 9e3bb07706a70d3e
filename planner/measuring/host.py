"""What the operating system says of the processor: its name, memory, caches and threads."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from planner.errors import one_line
from planner.measuring.figures import Host

VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel", "0x41": "ARM", "0x4e": "NVIDIA", "0x61": "Apple"}
SIZES = {"K": 2**10, "M": 2**20, "G": 2**30}
CACHE_UNKNOWN = 64 * 2**20  # B, taken for the last-level cache where nobody says
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cpu_host(threads: int, software: str, root: Path = Path("/")) -> Host:
    """The processor as the files under ``root`` describe it; what they lack is left unknown.

    Memory and cache come out in [B].
    """
    info = _cpuinfo(root)
    name = info.get("model name") or platform.processor() or platform.machine() or "cpu"
    vendor = info.get("vendor_id") or info.get("CPU implementer") or ""
    return Host(
        one_line(name, 80), VENDORS.get(vendor, vendor or "unknown"), platform.machine() or "unknown",
        memory_bytes(root), cache_bytes(root), threads, software,
    )  # fmt: skip


def _cpuinfo(root: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in (_read(root / "proc/cpuinfo") or "").splitlines())
    found: dict[str, str] = {}
    for key, _, value in pairs:
        found.setdefault(key.strip(), value.strip())
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def memory_bytes(root: Path = Path("/")) -> float | None:
    """Memory of the machine, or the container's limit where that is less, [B]; None when nobody says."""
    found = re.search(r"MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo") or "")
    limits = [float(found.group(1)) * 1024] if found else []
    if not limits and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"))
    for path in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _read(root / path) or ""
        if limit.isdigit() and int(limit) > 0:
            limits.append(float(limit))
    return min(limits, default=None)


def cache_bytes(root: Path = Path("/")) -> float | None:
    """The last level of cache, all its instances together, [B]; None when nobody says."""
    levels: dict[int, dict[str, float]] = {}
    for cache in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cache/index[0-9]*"):
        level, size = _read(cache / "level") or "", re.fullmatch(r"(\d+)([KMG])", _read(cache / "size") or "")
        if level.isdigit() and size and _read(cache / "type") != "Instruction":
            shared = _read(cache / "shared_cpu_list") or str(cache)
            levels.setdefault(int(level), {})[shared] = float(size.group(1)) * SIZES[size.group(2)]
    return sum(levels[max(levels)].values()) if levels else None


def usable_threads() -> int:
    """Threads to measure with: what OMP_NUM_THREADS and its like ask for, else every core allowed, [1]."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    for name in THREAD_VARIABLES:
        first = os.environ.get(name, "").split(",")[0].strip()
        if first.isascii() and first.isdigit() and int(first) > 0:
            return min(int(first), cores)
    return cores
