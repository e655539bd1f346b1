"""A search on a real Ray cluster: four nodes on this machine, on the loopback interface, with one pretended card each.

The children are fakes that answer at once or hang, so that faults can be injected. Ray's start takes seconds: all tests
share one cluster, and those that end a node come last.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from made_up import measured, quality, record

from autotune.cluster.messenger import RayMessenger
from autotune.cluster.settings import Settings
from autotune.cluster.team import Team
from autotune.devices import find_device
from autotune.devices.probe import versions
from autotune.execution.runner import Runner
from autotune.frozen_model import write_json
from autotune.goal import Budget
from autotune.knobs import complete
from autotune.study.space import make_space
from autotune.study.space_file import shipped_space_file
from autotune.study.storage import OnDisk
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.tuning.events import CardTold, Event

HERE = Path(__file__).parent
LOOPBACK = "127.0.0.2"  # Ray takes 127.0.0.1 for a machine whose real address it has to find
MIB = 2**20
TARGET = make_target().model_copy(update={"device": find_device("cpu"), "versions": versions(), "environment": {}})
SPACE = make_space(TARGET, shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the fake children read."""
    folder = tmp_path_factory.mktemp("control")
    outcome = measured(0).outcome.model_copy(update={"quality": None})
    write_json(folder / "measure.json", outcome.model_dump(mode="json"))
    alike = quality().model_copy(update={"ssim": (1.0, 1.0)})  # the baseline drawn again is like itself
    write_json(folder / "score.json", alike.to_json())
    return folder


@pytest.fixture(scope="module")
def cluster(control: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_CONTROL", str(control))
        patch.setenv("PYTHONPATH", f"{HERE}:{HERE.parents[1]}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        from ray.cluster_utils import Cluster

        memory, where = {"object_store_memory": 80 * MIB}, {"node_ip_address": LOOPBACK}
        node = {"num_cpus": 1, "resources": {"card": 1}, **memory, **where}
        head = {"num_cpus": 0, "include_dashboard": False, **memory, **where, **ports()}
        found = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(4):
                found.add_node(**node, **ports())
            yield found
        finally:
            found.shutdown()


def ports() -> dict[str, int]:
    """Free ports for a node's agents: a node that has to ask them for theirs gives up on a busy machine."""
    names = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in names]
        return {name: own.getsockname()[1] for name, own in zip(names, sockets, strict=True)}


class Files(OnDisk):
    database = None


class Search:
    """A search on the cluster, in a thread, so that a test can do things to it meanwhile."""

    def __init__(self, path: Path, cluster: Any, budget: int, workers: int) -> None:
        self.folder, self.events = StudyFolder(path / "study"), list[Event]()
        self.folder.create()
        kept = record(space=SPACE.values).model_copy(update={"target": TARGET})
        write_json(self.folder.study, kept.to_json())
        store = Files(self.folder)
        self.study = Study(self.folder, kept, SPACE, sampler="random", parallel=True, store=store)
        settings = Settings(
            address=cluster.address, workers=workers, resource="card", function="fake_work:perform", driver_ip=LOOPBACK
        )
        self.messenger = RayMessenger(settings, path / "messages")
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(budget,), daemon=True)
        self.thread.start()

    def _run(self, budget: int) -> None:
        runner = Runner(self.folder, TARGET, 120.0, isolation="spawn")
        try:
            with Team(self.messenger) as team:
                explorer = team.explorer(self.folder, self.study, runner, self.events.append, reuse=False)
                explorer.explore(Budget(trials=budget))
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        self.thread.join(500)
        assert not self.thread.is_alive(), self.said
        if self.error is not None:
            raise self.error

    @property
    def said(self) -> list[str]:
        return [f"{event.card} {event.says}" for event in self.events if isinstance(event, CardTold)]


def until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def hanging(control: Path, number: int, search: Search | None = None) -> list[int]:
    """The ids of the child of this trial, of its descendant and of its worker, once it hangs."""
    path = control / f"{number:04d}.pids"
    until(
        lambda: path.exists() or (search is not None and search.error is not None), 400, f"trial {number} is not there"
    )
    if search is not None and search.error is not None:
        raise search.error
    time.sleep(0.1)
    return [int(word) for word in path.read_text().split()]


def are_gone(pids: list[int]) -> bool:
    def runs(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    return not any(map(runs, pids))


def test_a_worker_is_killed_a_disk_is_full_and_the_connection_is_lost(
    tmp_path: Path, cluster: Any, control: Path
) -> None:
    """No trial is lost or counted twice, and no process is left of what was lost."""
    for name in ("0001.hang", "0003.hang"):
        (control / name).touch()
    (control / "0002.full").touch()
    search = Search(tmp_path, cluster, budget=5, workers=2)
    child, descendant, worker = hanging(control, 1, search)
    (control / "0001.hang").unlink()
    os.kill(worker, signal.SIGKILL)
    until(lambda: are_gone([child, descendant]), 10, "processes of a killed worker are left")
    pids = hanging(control, 3, search)
    until((search.folder.trial(2) / "trial.json").exists, 200, "trial 2 did not find a place")
    (control / "0003.hang").unlink()
    process = search.messenger._process
    assert process is not None
    process.kill()  # as Ray itself ends its driver where the cluster's head is gone
    until(lambda: are_gone(pids), 10, "processes of a lost connection are left")
    search.join()
    assert [trial.number for trial in search.study.trials] == list(range(5))
    assert all(trial.measured for trial in search.study.trials), [trial.outcome for trial in search.study.trials]
    assert sorted(p.name for p in search.folder.trial(3).iterdir()) == [
        *("images", "job.json", "log.txt", "outcome.json", "score", "trial.json")
    ]
    assert not (tmp_path / "messages" / "arriving").exists()


SEARCH = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
import test_ray
class Found:
    address = {address!r}
search = test_ray.Search(Path({path!r}), Found, budget=4, workers=1)
search.join()
"""


def has_process(node: Any, pid: int) -> bool:
    """Is this worker's parent the raylet of the node?"""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return parent in [started.process.pid for started in node.all_processes["raylet"]]


def test_a_search_that_is_killed_leaves_no_process_on_any_node(tmp_path: Path, cluster: Any, control: Path) -> None:
    (control / "0000.hang").touch()
    (control / "0000.pids").unlink(missing_ok=True)
    script = SEARCH.format(paths=[str(HERE), str(HERE.parent)], address=cluster.address, path=str(tmp_path))
    search = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    try:
        pids = hanging(control, 0)
    finally:
        search.kill()
        search.wait()
        (control / "0000.hang").unlink()
    until(lambda: are_gone(pids), 10, "processes of a search that was killed are left")


def test_a_node_that_is_gone_costs_no_trial(tmp_path: Path, cluster: Any, control: Path) -> None:
    """The last test of the module: it ends a node."""
    (control / "0001.hang").touch()
    (control / "0001.pids").unlink(missing_ok=True)
    search = Search(tmp_path, cluster, budget=2, workers=4)
    pids = hanging(control, 1, search)
    node = next(node for node in cluster.worker_nodes if has_process(node, pids[2]))
    (control / "0001.hang").unlink()
    cluster.remove_node(node, allow_graceful=False)
    until(lambda: are_gone(pids), 10, "processes of a node that is gone are left")
    search.join()
    assert [trial.number for trial in search.study.trials] == [0, 1]
    assert search.study.trials[1].measured
    assert any(said.endswith("is gone with its node") for said in search.said)
