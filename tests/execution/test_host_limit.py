"""A child on a GPU is ended when it holds more of the host's memory than was free: tried with a child without a GPU."""

import mmap
import os
import sys
from pathlib import Path

import pytest
from conftest import make_target
from scripted import ANY_JOB

from autotune.devices.host_memory import held_bytes
from autotune.execution import child, host_limit, isolate
from autotune.job import MeasureJob
from autotune.trial import Failure
from tests.worker.test_cuda_answers import CARD

MIB = 2**20
ON_A_GPU = MeasureJob(target=make_target(CARD), values={}, pictures=False)
TAKES = "import time; held = bytearray({} * 2**20); time.sleep({})"


def run(folder: Path, job: MeasureJob | object, script: str) -> Failure:
    command = (sys.executable, "-c", script)
    answer = isolate.run(folder / "job", job, timeout_s=60, isolation="spawn", command=command)  # type: ignore[arg-type]
    assert isinstance(answer, Failure)
    return answer


@pytest.fixture(autouse=True)
def little_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_limit, "free_bytes", lambda: 128 * MIB)
    monkeypatch.setattr(host_limit, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(child, "LOOK_EVERY_S", 0.1)


def test_a_child_on_a_gpu_that_takes_more_than_was_free_is_out_of_memory_of_the_host(tmp_path: Path) -> None:
    failure = run(tmp_path, ON_A_GPU, TAKES.format(512, 600))
    assert (failure.cause, failure.memory) == ("out_of_memory", "host")
    assert "GB is what there was for it when it began: killed; log at" in failure.reason


def test_a_child_that_stays_below_is_left_alone(tmp_path: Path) -> None:
    assert run(tmp_path, ON_A_GPU, TAKES.format(64, 0.5)).reason.startswith("exited with status 0 and no outcome")


def test_a_child_on_the_processor_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel limits it, see tests/worker/test_host.py; looks would disturb what it times."""
    monkeypatch.setattr(host_limit.HostLimit, "check", lambda self: pytest.fail("it was looked at"))
    assert run(tmp_path, ANY_JOB, TAKES.format(512, 0.5)).cause == "crash"


def test_memory_counts_and_files_that_are_mapped_do_not(tmp_path: Path) -> None:
    before = held_bytes(os.getpid())
    assert before is not None
    taken = bytearray(64 * MIB)
    after = held_bytes(os.getpid())
    assert after is not None
    assert after - before > 60 * MIB
    (tmp_path / "weights").write_bytes(taken)
    with (tmp_path / "weights").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[::4096]) == 0, "every page was read"
        with_file = held_bytes(os.getpid())
    assert with_file is not None
    assert with_file - after < 30 * MIB


def test_of_a_process_that_has_ended_nothing_is_known() -> None:
    assert held_bytes(2**22 + 1) is None
