"""Host memory by /proc and the cgroups of both versions, written as files."""

from pathlib import Path

import pytest

from autotune.devices import host_memory

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 16 GiB, of which 12 are free. `machine/cgroup` says in which cgroup this process is."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {16 * 2**20} kB\nMemFree: 1 kB\nMemAvailable:   {12 * 2**20} kB\n")
    (tmp_path / "status").write_text("VmHWM:\t    2048 kB\nVmData:\t 1024 kB\n")
    (tmp_path / "cgroup").write_text("")
    monkeypatch.setattr(host_memory, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(host_memory, "Path", lambda name: tmp_path / Path(name).name)
    return tmp_path


def group(folder: Path, limit: object, used: int, files: int = 0, *, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{'' if version == 2 else 'total_'}inactive_file {files}\n")


def figures() -> tuple[int | None, int | None, int | None]:
    return host_memory.total_bytes(), host_memory.free_bytes(), host_memory.cgroup_limit_bytes()


def test_a_machine_without_limits(machine: Path) -> None:
    assert figures() == (16 * GIB, 12 * GIB, None)
    assert host_memory.status_bytes("VmHWM") == 2 * 2**20
    assert host_memory.status_bytes("VmSwap") is None


def test_the_smallest_limit_around_a_process_holds_and_file_pages_are_free(machine: Path) -> None:
    (machine / "cgroup").write_text("0::/user.slice/job.scope\n")
    group(machine / "groups" / "user.slice", 8 * GIB, 6 * GIB, files=GIB)
    group(machine / "groups" / "user.slice" / "job.scope", "max", GIB)
    assert figures() == (8 * GIB, 3 * GIB, 8 * GIB)


def test_cgroups_of_the_first_version(machine: Path) -> None:
    (machine / "cgroup").write_text("9:cpu:/\n4:memory:/docker/abc\n0::/\n")
    group(machine / "groups" / "memory" / "docker" / "abc", 4 * GIB, 3 * GIB, files=2 * GIB, version=1)
    group(machine / "groups" / "memory", 2**63 - 4096, 9 * GIB, version=1)
    assert figures() == (4 * GIB, 3 * GIB, 4 * GIB)


def test_a_system_that_does_not_tell(machine: Path) -> None:
    for name in ("meminfo", "cgroup", "status"):
        (machine / name).unlink()
    assert figures() == (None, None, None)
    assert host_memory.status_bytes("VmHWM") is None
