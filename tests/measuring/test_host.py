"""What made-up operating systems say."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.measuring.host import cache_bytes, cpu_host, memory_bytes, usable_threads


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def cache(cpu: int, index: int, level: int, size: str, shared: str, kind: str = "Unified") -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
    return {f"{folder}/level": str(level), f"{folder}/size": size, f"{folder}/shared_cpu_list": shared,
            f"{folder}/type": kind}  # fmt: skip


def test_names(tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/cpuinfo": "vendor_id\t: GenuineIntel\nmodel name\t: A (R) CPU\nmodel name\t: B\n"})
    host = cpu_host(3, "NumPy", root)
    assert (host.name, host.vendor, host.threads) == ("A (R) CPU", "Intel", 3)


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    host = cpu_host(1, "NumPy", tmp_path)
    assert host.name
    assert host.vendor == "unknown"
    assert host.cache_bytes is None


def test_a_container_has_less_memory(tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/meminfo": "MemTotal:       16000000 kB\n", "sys/fs/cgroup/memory.max": "max"})
    assert memory_bytes(root) == 16e6 * 1024
    machine(root, {"sys/fs/cgroup/memory.max": "8000000000\n"})
    assert memory_bytes(root) == 8e9


def test_instances_of_the_last_level_add_up(tmp_path: Path) -> None:
    files = {}
    for cpu in range(4):
        files |= cache(cpu, 0, 1, "32K", str(cpu)) | cache(cpu, 3, 3, "16M", "0-1" if cpu < 2 else "2-3")
    assert cache_bytes(machine(tmp_path, files)) == 2 * 16 * 2**20


@pytest.mark.parametrize(("value", "threads"), [("1", 1), ("1,2", 1), ("99999", None), ("x", None), ("0", None)])
def test_threads_of_the_environment(monkeypatch: pytest.MonkeyPatch, value: str, threads: int | None) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    cores = usable_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert usable_threads() == (threads or cores) >= 1
