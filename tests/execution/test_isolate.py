"""Every way in which a child can end, with real children, spawned and forked: each gives one typed outcome and leaves
no process behind. Forked children come from a fork server that has loaded no libraries, which is quick;
test_fork_server.py has a real one.
"""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import make_target
from scripted import ANY_JOB, run_script, with_tests_importable

from autotune.errors import UserError
from autotune.execution import child, fork_client, isolate
from autotune.execution.child import SpawnedChild, supervise
from autotune.execution.traces import mark_of, state_of
from autotune.isolation import INTERPRETER, ISOLATIONS, Isolation
from autotune.job import MeasureJob, ScoreJob
from autotune.trial import Failure


@pytest.fixture(params=ISOLATIONS)
def how(request: pytest.FixtureRequest) -> Isolation:
    return request.param


def failure(outcome: dict | Failure) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


def living(folder: Path, parent: int | None = None) -> list[int]:
    return isolate.marked(mark_of(folder / "job", parent))


def test_a_child_that_writes_its_outcome_is_believed(tmp_path: Path, how: Isolation) -> None:
    script = "import sys; open(sys.argv[1] + '/outcome.json', 'w').write('{\"result\": {\"answer\": 42}}')"
    assert run_script(tmp_path, how, script) == {"answer": 42}


def test_an_exit_without_an_outcome_is_a_crash(tmp_path: Path, how: Isolation) -> None:
    found = failure(run_script(tmp_path, how, "raise SystemExit(3)"))
    assert found.cause == "crash"
    assert "status 3" in found.reason


def test_a_segmentation_fault_is_a_crash_that_says_so(tmp_path: Path, how: Isolation) -> None:
    found = failure(run_script(tmp_path, how, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))
    assert found.cause == "crash"
    assert "SIGSEGV" in found.reason


def test_a_child_that_somebody_else_killed_is_not_the_configs_fault(tmp_path: Path, how: Isolation) -> None:
    found = failure(run_script(tmp_path, how, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert found.cause == "environment"
    assert "SIGKILL" in found.reason


def test_an_exception_is_an_error_with_its_type_and_message(tmp_path: Path) -> None:
    job = ScoreJob(images=str(tmp_path), baseline=str(tmp_path), prompts=("a",), scorer=None)
    found = failure(isolate.run(tmp_path / "job", job, timeout_s=60, isolation="spawn"))
    assert found.cause == "error"
    assert found.reason.startswith("FileNotFoundError: ")
    assert "Traceback" in (tmp_path / "job" / "log.txt").read_text()


def test_a_hang_with_grandchildren_ends_at_the_time_limit_and_leaves_nothing(tmp_path: Path, how: Isolation) -> None:
    script = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleep)
subprocess.Popen(sleep, start_new_session=True)  # leaves the process group
print("ready", flush=True)
time.sleep(600)
"""
    started = time.monotonic()
    found = failure(run_script(tmp_path, how, script, timeout_s=3))
    assert found.cause == "timeout"
    assert time.monotonic() - started < 13
    assert (tmp_path / "job" / "log.txt").read_text() == "ready\n"
    assert living(tmp_path) == []


def test_a_process_that_forks_twice_and_leaves_its_session_is_found(tmp_path: Path, how: Isolation) -> None:
    script = """
import os, pathlib, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
"""
    assert failure(run_script(tmp_path, how, script)).cause == "crash"
    assert living(tmp_path) == []


def test_processes_of_a_running_job_carry_its_mark(tmp_path: Path, how: Isolation) -> None:
    script = """
import json, os, pathlib, subprocess, sys
from autotune.execution.traces import marked
asleep = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
forked = os.fork()
if forked == 0:
    import time; time.sleep(600)
found = {"found": sorted(marked(os.environ["AUTOTUNE_JOB"])), "mine": sorted([os.getpid(), asleep.pid, forked])}
pathlib.Path(sys.argv[1], "outcome.json").write_text(json.dumps({"result": found}))
"""
    found = run_script(tmp_path, how, script)
    assert isinstance(found, dict)
    assert set(found["mine"]) <= set(found["found"])
    assert living(tmp_path) == []


def test_a_child_that_the_kernel_killed_for_memory_is_out_of_memory(
    tmp_path: Path, how: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = iter([3, 4])
    monkeypatch.setattr(isolate, "_kernel_oom_kills", lambda: next(kills))
    found = failure(run_script(tmp_path, how, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert found.cause == "out_of_memory"
    assert found.memory == "host"


@pytest.mark.parametrize(
    ("printed", "cause"),
    [
        ("terminate called after throwing an instance of 'std::bad_alloc'", "out_of_memory"),
        ("memory allocation of 5242880000 bytes failed", "out_of_memory"),
        ("Fatal glibc error: assertion failed", "crash"),
    ],
)
def test_a_library_that_gives_up_for_lack_of_memory_is_out_of_memory(tmp_path: Path, printed: str, cause: str) -> None:
    script = f"import os; print({printed!r}, flush=True); os.abort()"
    found = failure(run_script(tmp_path, "spawn", script))
    assert (found.cause, found.memory) == (cause, "host" if cause == "out_of_memory" else None)


def test_no_code_in_the_working_directory_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint's folder may hold a json.py or a random.py. Neither a child nor what it starts imports them."""
    for name in ("json", "random", "accelerate", "torch", "autotune"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    script = "import autotune.isolation, json, random, subprocess, sys\n"
    script += "sys.exit(5 + subprocess.call([sys.executable, '-c', 'import autotune, random, json']))"
    command = [*isolate.WORKER[:-2], "-c", script]
    found = failure(isolate.run(tmp_path / "job", ANY_JOB, timeout_s=60, isolation="spawn", command=command))
    assert "status 5" in found.reason
    assert not (tmp_path / "ran").exists()


def test_every_interpreter_that_is_started_leaves_the_working_directory_out() -> None:
    for command in (isolate.WORKER, fork_client.SERVER):
        assert command[:2] == INTERPRETER == (sys.executable, "-P")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Popen, which is left behind
def test_a_child_that_can_not_be_killed_ends_the_command_with_what_holds_it(
    tmp_path: Path, how: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that hangs keeps a process in state D. Here the signal is lost instead: no test can hang a driver."""
    monkeypatch.setattr(child, "KILL_PATIENCE_S", 0.2)
    monkeypatch.setattr(child, "LOG_PATIENCE_S", 0.1)
    pids: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", lambda pid, number: pids.append(pid))
        patched.setattr(os, "kill", lambda pid, number: None)
        began = time.monotonic()
        with pytest.raises(isolate.ChildHeld, match=r"can't be ended: process \d+ does not end .*Restart the") as held:
            run_script(tmp_path, how, "import time; time.sleep(600)", timeout_s=0.5)
        assert held.value.reason.startswith("its process can't be ended: process ")
        assert held.value.config is None  # it judges pictures
        assert time.monotonic() - began < 30
    os.killpg(pids[0], signal.SIGKILL)
    wait_until(lambda: living(tmp_path) == [], 10)
    del held
    gc.collect()  # the Popen, here and not in a later test


def test_a_process_that_waits_in_the_kernel_is_described_so(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"stat": "7 (python) D 1 7 7 0", "wchan": "nvidia_ioctl"}
    monkeypatch.setattr(Path, "read_text", lambda path, **_: shown[path.name])
    assert state_of(7) == "waits in the kernel (state D, in nvidia_ioctl)"


def test_a_gigabyte_of_output_leaves_a_small_log_with_its_start_and_its_end(tmp_path: Path, how: Isolation) -> None:
    script = """
import sys
print("the start", flush=True)
block = b"x" * 2**20
for _ in range(1024):
    sys.stdout.buffer.write(block)
print("\\nthe end", flush=True)
raise SystemExit(1)
"""
    assert failure(run_script(tmp_path, how, script)).cause == "crash"
    log = (tmp_path / "job" / "log.txt").read_bytes()
    assert len(log) < 5 * 2**20
    assert log.startswith(b"the start")
    assert log.endswith(b"the end\n")
    assert b"autotune left out" in log


def test_nothing_of_an_earlier_run_survives_in_the_folder(tmp_path: Path, how: Isolation) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "outcome.json").write_text('{"result": {"stale": 1}}')
    assert failure(run_script(tmp_path, how, "pass")).cause == "crash"


PARENT = """
import sys
from pathlib import Path
from scripted import run_script, with_tests_importable
script = '''
import subprocess, sys, time
from autotune.worker.main import die_with_parent
die_with_parent()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("ready", flush=True)
while True: pass
'''
run_script(Path(sys.argv[1]), sys.argv[2], script, timeout_s=600)
"""


def carrying(word: str) -> list[int]:
    """The processes with this word in their initial environment: the fork server, its watcher and its children."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += [int(process.name)] if word.encode() in (process / "environ").read_bytes() else []
    return found


@pytest.mark.parametrize("when", ["as it starts", "as it is reaped", "both"])
def test_a_ctrl_c_at_any_moment_leaves_nothing(tmp_path: Path, when: str) -> None:
    """A lost child's watcher would hold the log's pipe open, and the parent would wait for it for ever."""
    threads = threading.active_count()
    script = "import time; from autotune.worker.main import die_with_parent; die_with_parent(); time.sleep(600)"

    class Interrupted(SpawnedChild):
        def reap(self) -> int:
            if when != "as it starts":
                os.kill(os.getpid(), signal.SIGINT)
            return super().reap()

    def start(log: int, lifeline: int, env: Mapping[str, str]) -> SpawnedChild:
        started = Interrupted([sys.executable, "-c", script], log, lifeline, env)
        if when != "as it is reaped":
            os.kill(os.getpid(), signal.SIGINT)
        return started

    (tmp_path / "job").mkdir()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        supervise(start, tmp_path / "job", 1, {**os.environ})
    assert time.monotonic() - began < 60
    assert living(tmp_path) == []
    assert threading.active_count() == threads


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_parent_is_killed_its_children_and_theirs_die_within_10_s(
    tmp_path: Path, how: Isolation, signal_: signal.Signals
) -> None:
    env = {**with_tests_importable(), "TEST_OF": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), how], env=env)
    log = tmp_path / "job" / "log.txt"
    wait_until(lambda: log.exists() and "ready" in log.read_text(), 60)
    assert len(living(tmp_path, parent.pid)) >= 2
    os.kill(parent.pid, signal_)
    parent.wait()
    wait_until(lambda: living(tmp_path, parent.pid) == [] and carrying(f"TEST_OF={tmp_path}") == [], 10)


def test_children_that_were_stopped_die_with_a_killed_parent(tmp_path: Path, how: Isolation) -> None:
    """All of them are stopped: the child, what it started, its watcher, the fork server and the server's watcher."""
    env = {**with_tests_importable(), "TEST_OF": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), how], env=env)
    log = tmp_path / "job" / "log.txt"
    wait_until(lambda: log.exists() and "ready" in log.read_text(), 60)
    for pid in carrying(f"TEST_OF={tmp_path}"):
        if pid != parent.pid:
            os.kill(pid, signal.SIGSTOP)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: carrying(f"TEST_OF={tmp_path}") == [], 10)


def test_a_full_disk_is_the_environments_fault_and_no_outcome_is_half_written(tmp_path: Path, how: Isolation) -> None:
    """On a real file system of 128 KiB, in a mount namespace of its own, which needs no privileges."""
    inside = tmp_path / "disk"
    inside.mkdir()
    script = f"""
import json, subprocess, sys
from pathlib import Path
from autotune import study_folder as folders
from scripted import run_script, with_tests_importable
folders.MIN_FREE_BYTES = 0  # the check before a trial would not let it start
fill = '''
import sys
from pathlib import Path
from autotune.frozen_model import write_json
from autotune.job import DISK_FULL_STATUS
folder = Path(sys.argv[1])
try:
    with (folder / "big").open("wb") as file:
        while True: file.write(b"x" * 4096); file.flush()
except OSError: pass
sys.argv[0] = "worker"
from autotune.worker import main as worker
worker.run = lambda job, folder: {{"much": "x" * 100000}}
worker.main()
'''
found = run_script(Path({str(inside)!r}), {how!r}, fill, timeout_s=100)
left = [p.name for p in (Path({str(inside)!r}) / "job").glob("*outcome*")]
print(json.dumps([found.cause, found.reason, left]))
"""
    mount = f'mount -t tmpfs -o size=128k none \'{inside}\' && exec "$0" -c "$1"'
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, sys.executable, script]
    done = subprocess.run(namespace, capture_output=True, text=True, check=False, env=with_tests_importable())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["environment", "no room left on the disk", []]


def test_a_disk_without_room_is_said_before_a_trial_starts(
    tmp_path: Path, how: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotune.study_folder.MIN_FREE_BYTES", 2**62)
    with pytest.raises(UserError, match="no room on the disk"):
        run_script(tmp_path, how, "pass")


def test_a_checkpoint_that_is_not_there_is_the_users_fault(tmp_path: Path) -> None:
    target = make_target()
    pipeline = target.pipeline.model_copy(update={"name": "gone", "source": str(tmp_path / "gone")})
    job = MeasureJob(target=target.model_copy(update={"pipeline": pipeline}), values={"dtype": "fp32"}, pictures=True)
    found = failure(isolate.run(tmp_path / "job", job, timeout_s=100, isolation="spawn"))
    assert found.cause == "bad_input"
    assert "does not exist" in found.reason


def wait_until(condition, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s} s"
        time.sleep(0.05)


def test_children_are_forked_unless_that_is_unsafe_or_unwanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (isolate.choose("fork"), isolate.choose("spawn"), isolate.choose(None)) == ("fork", "spawn", "fork")
    monkeypatch.setattr(isolate, "_has_plugin_knobs", lambda: True)
    assert isolate.choose(None) == "spawn"
    monkeypatch.setattr(isolate, "_has_plugin_knobs", lambda: False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert (isolate.choose("fork"), isolate.choose(None)) == ("fork", "spawn")
