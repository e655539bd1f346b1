"""The gate of a host: who may load and compile at the same time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_target

from autotune.cluster.gate import Gate, GatedRunner
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.isolation import TIMED
from autotune.job import Job
from autotune.knobs import complete
from autotune.study_folder import StudyFolder
from autotune.trial import Failure
from autotune.worker.main import tell_timed


def gate(folder: Path, needs_bytes: int | None = 40, *, cores: int = 48, free_bytes: int | None = 100) -> Gate:
    return Gate(needs_bytes, folder, cores=cores, free=lambda: free_bytes)


def may_enter(own: Gate) -> bool:
    held = own._enter()
    if held is not None:
        held.close()
    return held is not None


def test_on_a_host_of_few_cores_one_trial_loads_at_a_time(tmp_path: Path) -> None:
    first = gate(tmp_path, cores=8)._wait()
    assert not may_enter(gate(tmp_path, cores=8))
    first.close()
    assert may_enter(gate(tmp_path, cores=8))


def test_as_many_load_as_there_are_cores_and_memory_for(tmp_path: Path) -> None:
    held = [gate(tmp_path)._wait()]
    assert not may_enter(gate(tmp_path, needs_bytes=None)), "what it needs is not known"
    assert not may_enter(gate(tmp_path, free_bytes=None)), "what is free is not known"
    assert not may_enter(gate(tmp_path, free_bytes=79)), "the first may not have taken its memory yet"
    held.append(gate(tmp_path)._wait())
    assert not may_enter(gate(tmp_path, free_bytes=119))
    held.append(gate(tmp_path, free_bytes=120)._wait())
    assert not may_enter(gate(tmp_path, free_bytes=10**6)), "48 cores have three places"
    for place in held:
        place.close()


def test_the_place_is_free_as_soon_as_the_calls_are_timed_and_after_a_child_that_never_says_so(tmp_path: Path) -> None:
    own = gate(tmp_path, cores=1)
    with own.passed():
        assert not may_enter(gate(tmp_path, cores=1))
        Path(os.environ[TIMED]).touch()
        end = time.monotonic() + 20
        while not may_enter(gate(tmp_path, cores=1)):
            assert time.monotonic() < end
            time.sleep(0.05)
    assert TIMED not in os.environ
    with own.passed():
        pass
    assert may_enter(gate(tmp_path, cores=1))


def test_a_worker_that_is_killed_holds_no_place_and_the_wait_for_one_is_known(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from autotune.cluster.gate import Gate
held = Gate(None, Path({str(tmp_path)!r}), cores=1)._wait()
print("held", flush=True)
time.sleep(600)
"""
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "held\n"
    own = gate(tmp_path, cores=1)
    assert not may_enter(own)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    with own.passed():
        assert own.waited_s < 10


def test_a_folder_that_others_can_write_to_is_no_gate(tmp_path: Path) -> None:
    """Whoever makes the folder first in /tmp could put a link to a file of this user there, which would be emptied."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    for name in ("open", "link"):
        with pytest.raises(UserError, match="is no folder that this user alone can write to"):
            gate(tmp_path / name)._wait()
    gate(tmp_path / "own")._wait().close()


def test_what_a_killed_worker_has_left_opens_no_gate(tmp_path: Path) -> None:
    (tmp_path / f"{os.getpid()}.timed").touch()
    with gate(tmp_path, cores=1).passed():
        assert not Path(os.environ[TIMED]).exists()
        assert not may_enter(gate(tmp_path, cores=1))


def test_a_run_passes_the_gate_before_its_child_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[bool]()

    def run(folder: Path, job: Job, **options: object) -> Failure:
        seen.append(not may_enter(gate(tmp_path / "gate", cores=1)))
        assert os.environ[TIMED].startswith(str(tmp_path / "gate"))
        return Failure(cause="error", reason="no child")

    monkeypatch.setattr(isolate, "run", run)
    runner = GatedRunner(StudyFolder(tmp_path / "study"), make_target(), 60.0)
    runner.gate = gate(tmp_path / "gate", cores=1)
    runner.run(tmp_path / "study" / "trials" / "0001", complete({}), pictures=True, earlier=[])
    assert seen == [True]


def test_a_child_says_when_its_calls_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMED, str(tmp_path / "timed"))
    tell_timed()
    assert (tmp_path / "timed").exists()
