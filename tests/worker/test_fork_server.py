"""A forked child measures what a spawned one does, and a fork server that can't fork safely says why.

Most fork servers here have loaded no libraries. The last tests have real ones, with torch and diffusers.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import logged_warnings
from scripted import run_script

from autotune.execution import fork_client
from autotune.execution.isolate import marked
from autotune.execution.traces import mark_of
from autotune.isolation import ISOLATIONS, Isolation
from autotune.trial import Failure

TELL = """
import json, os, pathlib, random, resource, sys
sys.path.insert(0, os.getcwd())
import numpy
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
found = {
    "how": os.environ["AUTOTUNE_ISOLATION"],
    "parent": os.getppid(),
    "environment": {name: value for name, value in os.environ.items()
                    if name not in ("AUTOTUNE_LIFELINE", "AUTOTUNE_ISOLATION", "AUTOTUNE_REQUESTED_AT")},
    "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}").partition(":")[0] for n in os.listdir("/proc/self/fd")
                          if os.path.exists(f"/proc/self/fd/{n}")),
    "cwd": os.getcwd(), "umask": status["Umask"].strip(), "threads": status["Threads"].strip(),
    "ignored": status["SigIgn"].strip(), "blocked": status["SigBlk"].strip(), "caught": status["SigCgt"].strip(),
    "cores": sorted(os.sched_getaffinity(0)), "leads": os.getpgrp() == os.getsid(0) == os.getpid(),
    "arguments": sys.argv[1:],
    "standard input": os.readlink("/proc/self/fd/0"),
}
drawn = [random.random(), float(numpy.random.rand()), os.getpid()]
pathlib.Path(sys.argv[1], "outcome.json").write_text(json.dumps({"result": {"found": found, "drawn": drawn}}))
"""


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server of an earlier test is running, and none has been refused."""
    fork_client.close()
    monkeypatch.setattr(fork_client, "_refused", {})
    yield
    fork_client.close()


def tell(folder: Path, how: Isolation, **more: object) -> dict:
    answer = run_script(folder, how, TELL, **more)  # type: ignore[arg-type]
    assert isinstance(answer, dict), answer
    return answer


def test_a_forked_child_is_what_a_spawned_one_is(tmp_path: Path) -> None:
    """Its environment, descriptors, signals, threads, group, cores ... are the same. Only its parent differs."""
    tell(tmp_path, "fork")  # so that the second child comes from a server that has forked before
    fork, spawn = (tell(tmp_path, how)["found"] for how in ISOLATIONS)
    assert (fork.pop("how"), spawn.pop("how")) == ("fork", "spawn")
    assert (spawn.pop("parent"), fork.pop("parent")) == (os.getpid(), server().process_id)
    assert fork == spawn


def server() -> fork_client.ForkServer:
    found = fork_client._server
    assert found is not None
    return found


def test_children_draw_different_random_numbers(tmp_path: Path) -> None:
    one, other = (tell(tmp_path, "fork")["drawn"] for _ in range(2))
    assert not set(one) & set(other)


def test_a_server_forks_for_jobs_of_different_marks_caches_and_lifelines(tmp_path: Path) -> None:
    first, second = (
        tell(tmp_path, "fork", env={"TORCHINDUCTOR_CACHE_DIR": name})["found"] for name in ("one", "another")
    )
    assert first["parent"] == second["parent"]
    assert [f["environment"]["TORCHINDUCTOR_CACHE_DIR"] for f in (first, second)] == ["one", "another"]


@pytest.mark.parametrize("what", ["environment", "cwd", "umask"])
def test_a_job_that_differs_in_what_a_child_inherits_gets_another_server(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tell(tmp_path, "fork")["found"]
    umask = os.umask(0o077) if what == "umask" else None
    try:
        if what == "environment":
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        if what == "cwd":
            monkeypatch.chdir(tmp_path)
        after = tell(tmp_path, "fork")["found"]
    finally:
        if umask is not None:
            os.umask(umask)
    assert after["parent"] != before["parent"]
    assert after[what] != before[what]
    assert not Path(f"/proc/{before['parent']}").exists(), "the one before it has ended"


THREADS = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
CUDA = """
import types
fake = types.SimpleNamespace(cuda=types.SimpleNamespace(_is_in_bad_fork=lambda: True))
sys.modules["torch"] = fake
"""
UNSEEN = "fork_server.forked.set_mark = lambda mark: None"
BROKEN = "raise ImportError('no module named diffusers')"


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (THREADS, "started threads"),
        (CUDA, "asked CUDA"),
        (UNSEEN, "the environment"),
        (BROKEN, "status 1, ImportError: no module named diffusers"),
    ],
)
def test_a_server_that_can_not_fork_safely_says_why_once_and_children_are_spawned(
    tmp_path: Path, first: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert tell(tmp_path, "fork", first=first)["found"]["how"] == "spawn"
    assert len(logged_warnings(caplog)) == 1
    assert said in logged_warnings(caplog)[0]


def test_a_thread_that_starts_later_stops_the_forking(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = "import threading\nsoon = threading.Timer(1.0, lambda: threading.Event().wait())\nsoon.daemon = True\n"
    first += "serve = fork_server.serve\n"
    first += "send = fork_server._send\ndef late(c, m):\n    send(c, m)\n    if 'ready' in m: soon.start()\n"
    first += "fork_server._send = late"
    assert tell(tmp_path, "fork", first=first)["found"]["how"] == "spawn"
    assert "threads" in logged_warnings(caplog)[0]


def test_a_job_whose_server_is_killed_is_the_environments_fault_and_the_next_has_another(tmp_path: Path) -> None:
    script = "import os, signal, time; os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)"
    begun = time.monotonic()
    found = run_script(tmp_path, "fork", script, timeout_s=60)
    assert isinstance(found, Failure)
    assert found.cause == "environment"
    assert time.monotonic() - begun < 10
    assert tell(tmp_path, "fork")["found"]["how"] == "fork"


def test_a_server_that_was_killed_between_two_jobs_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = tell(tmp_path, "fork")["found"]["parent"]
    os.kill(before, signal.SIGKILL)
    after = tell(tmp_path, "fork")["found"]
    assert after["how"] == "fork"
    assert after["parent"] != before
    assert logged_warnings(caplog) == []


def test_a_child_that_ends_cleans_up_as_an_interpreter_does(tmp_path: Path) -> None:
    """Exit handlers run, and all output is in the log, whatever the status."""
    script = """
import atexit, pathlib, sys, tempfile
from autotune.worker import fork_server
kept = tempfile.TemporaryDirectory()
atexit.register(lambda: print("at the exit", not print("cleaning")))
pathlib.Path(sys.argv[1], "where").write_text(kept.name)
print("at work")
fork_server.leave(3)
"""
    found = run_script(tmp_path, "fork", script)
    assert isinstance(found, Failure)
    assert "status 3" in found.reason
    assert (tmp_path / "job" / "log.txt").read_text() == "at work\ncleaning\nat the exit True\n"
    assert not Path((tmp_path / "job" / "where").read_text()).exists()


def test_ctrl_c_leaves_no_child_and_no_server_in_the_middle_of_a_job(tmp_path: Path) -> None:
    """As in a terminal: only this process gets the signal, the children are in groups of their own."""
    script = f"import os, signal, time; os.kill({os.getpid()}, signal.SIGINT); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        run_script(tmp_path, "fork", script)
    assert tell(tmp_path, "fork")["found"]["how"] == "fork"


LOADED = "from importlib import import_module\nfor name in fork_server.LIBRARIES: import_module(name)"
ALLOCATE = """
import json, pathlib, sys
from importlib import import_module
from autotune.worker import fork_server
for name in fork_server.LIBRARIES: import_module(name)
import torch
from autotune.measure.memory import ResidentMeter
meter = ResidentMeter()
meter.start("run")
block = torch.ones(64 * 2**20, dtype=torch.uint8)
torch.nn.Conv2d(16, 16, 3)(torch.rand(1, 16, 32, 32)).sum().item()  # code that importing has not touched
meter.stop()
found = {"peak": meter.peaks["run"].device_bytes, "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
         "seed": torch.initial_seed()}
pathlib.Path(sys.argv[1], "outcome.json").write_text(json.dumps({"result": found}))
"""


def test_the_memory_of_a_forked_child_is_counted_as_a_spawned_ones_is(tmp_path: Path) -> None:
    """A known 64 MiB, and the pages of the libraries' code that are used for the first time."""
    forks = [run_script(tmp_path, "fork", ALLOCATE, first=LOADED) for _ in range(2)]
    spawn = run_script(tmp_path, "spawn", ALLOCATE)
    for fork in forks:
        assert isinstance(fork, dict), fork
        assert isinstance(spawn, dict), spawn
        assert abs(fork["peak"] - spawn["peak"]) < 4 * 2**20
        assert 64 * 2**20 < fork["peak"] < 80 * 2**20
        assert fork["threads"] == spawn["threads"]
    assert len({found["seed"] for found in (*forks, spawn)}) == 3


COMPILE = """
import json, os, pathlib, sys, torch
double = torch.compile(lambda x: torch.sin(x) * 2 + x)
assert torch.allclose(double(torch.ones(64)), torch.ones(64).sin() * 2 + 1)
code = [str(path) for path in pathlib.Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.so")]
pathlib.Path(sys.argv[1], "outcome.json").write_text(json.dumps({"result": {"code": code}}))
"""


def test_a_forked_child_compiles_into_its_own_cache_and_its_compile_workers_end_with_it(tmp_path: Path) -> None:
    env = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "TORCHINDUCTOR_COMPILE_THREADS": "2"}
    answer = run_script(tmp_path, "fork", COMPILE, first=LOADED, env=env, timeout_s=300)
    assert isinstance(answer, dict), answer
    assert answer["code"]
    assert marked(mark_of(tmp_path / "job")) == []
