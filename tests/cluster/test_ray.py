"""A search on a real Ray cluster: four nodes on this machine, on the loopback interface, with one pretended card each.

The children are fakes that answer at once or hang, so that faults can be injected. Ray's start takes seconds of a core,
and so does each of its tasks: all tests share one cluster and have few trials, the fleet runs beside the first of them,
and the test that ends nodes comes last.
"""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_work
import pytest
from conftest import make_target
from made_up import measured, quality, record
from PIL import Image

from autotune.cluster.fleet import read_plan, statuses
from autotune.cluster.messenger import RayMessenger, Ready
from autotune.cluster.settings import Settings
from autotune.cluster.team import Team
from autotune.devices import find_device
from autotune.devices.probe import versions
from autotune.execution import isolate
from autotune.execution.runner import Runner
from autotune.frozen_model import write_json
from autotune.goal import Budget
from autotune.knobs import all_knobs, complete
from autotune.study.pareto_front import pick_trial
from autotune.study.record import read_trials
from autotune.study.space import make_space
from autotune.study.space_file import SpaceFile, shipped_space_file
from autotune.study.storage import OnDisk
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.tuning.events import CardTold, Event
from autotune.tuning.explore import Explorer

TESTS = Path(__file__).parents[1]
LOOPBACK = "127.0.0.2"  # Ray takes 127.0.0.1 for a machine whose real address it has to find
MIB = 2**20
TARGET = make_target().model_copy(update={"device": find_device("cpu"), "versions": versions(), "environment": {}})
SPACE = make_space(TARGET, shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))
FREE = {"dtype", "tome_ratio"}
FOUR = make_space(
    TARGET,
    SpaceFile(knobs={"dtype": ("fp32", "bf16"), "tome_ratio": (0.0, 0.5)}),
    fix={},
    exclude=all_knobs().keys() - FREE,
    baseline=complete({}),
)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_control(tmp_path_factory.mktemp("control"))


def make_control(folder: Path) -> Path:
    """The folder that the fake children read."""
    outcome = measured(0).outcome.model_copy(update={"quality": None})
    write_json(folder / "measure.json", outcome.model_dump(mode="json"))
    alike = quality().model_copy(update={"ssim": (1.0, 1.0)})  # the baseline drawn again is like itself
    write_json(folder / "score.json", alike.to_json())
    write_json(folder / "factors.json", {"dtype=bf16": 0.7, "tome_ratio=0.5": 0.9})
    Image.new("RGB", (64, 64), "red").save(folder / "picture.png")
    return folder


@pytest.fixture(scope="module")
def cluster(control: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_CONTROL", str(control))
        patch.setenv("PYTHONPATH", f"{TESTS}:{TESTS.parent}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        patch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")  # 60 s: who has lost the head waits so long for it
        health = {"period_ms": 1000, "timeout_ms": 3000, "initial_delay_ms": 2000, "failure_threshold": 3}
        for name, value in health.items():
            patch.setenv(f"RAY_health_check_{name}", str(value))
        patch.setenv("RAY_enable_metrics_collection", "0")
        found = start_cluster(num_cpus=0, resources={})  # no test ends the head's node alone
        try:
            for _ in range(4):
                found.add_node(**node(), **ports())
            yield found
        finally:
            found.shutdown()


def node() -> dict[str, Any]:
    memory, where = {"object_store_memory": 80 * MIB}, {"node_ip_address": LOOPBACK}
    return {"num_cpus": 1, "resources": {"card": 1}, **memory, **where}


def start_cluster(**options: Any) -> Any:
    """A cluster of one node, which is its head."""
    from ray.cluster_utils import Cluster

    unused = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    head = {**unused, **node(), **ports(), **options}
    return Cluster(initialize_head=True, head_node_args=head)


def ports() -> dict[str, int]:
    """Free ports for a node's agents: a node that has to ask them for theirs gives up on a busy machine."""
    names = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in names]
        return {name: own.getsockname()[1] for name, own in zip(names, sockets, strict=True)}


class Files(OnDisk):
    database = None


def new_study(folder: StudyFolder, space: Any) -> Study:
    kept = record(space=space.values).model_copy(update={"target": TARGET})
    write_json(folder.study, kept.to_json())
    return Study(folder, kept, space, sampler="random", parallel=True, store=Files(folder))


class Search:
    """A search on the cluster, in a thread, so that a test can do things to it meanwhile."""

    def __init__(self, path: Path, cluster: Any, budget: int, workers: int, space: Any = SPACE) -> None:
        self.folder, self.events = StudyFolder(path / "study"), list[Event]()
        self.folder.create()
        self.study = new_study(self.folder, space)
        settings = Settings(
            address=cluster.address, workers=workers, resource="card", function=fake_work.FUNCTION, driver_ip=LOOPBACK
        )
        self.messenger = RayMessenger(settings, path / "messages")
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(budget,), daemon=True)
        self.thread.start()

    def _run(self, budget: int) -> None:
        runner = Runner(self.folder, TARGET, 900.0, isolation="spawn")
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


PLAN = """
[search]
budget = 2
confirm_rounds = 0
quick = true
scorer = "none"
prompts = {prompts!r}
device = "cpu"
sampler = "random"
reuse = false
[[pipeline]]
pipeline = "demo"
[[pipeline]]
pipeline = "sd15"
[[workload]]
size = "64x64"
[[workload]]
size = "96x96"
"""
FLEET = [sys.executable, "-P", str(TESTS / "fake_work.py"), "fleet", "plan.toml", "--workers", "1", "--address"]


class Fleet:
    """A fleet of four searches that is killed in the second, stopped by Ctrl-C in the third, and then ends.

    In a thread: it starts many processes one after the other, and other tests go on meanwhile.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address, self.control = folder, address, make_control(folder)
        (folder / "prompts.txt").write_text("a red circle\na blue square\n")
        (folder / "plan.toml").write_text(PLAN.format(prompts=str(folder / "prompts.txt")))
        self.cells = [cell.name for cell in read_plan(folder / "plan.toml").cells]
        self.env = {**os.environ, fake_work.CONTROL: str(self.control)}

    def states(self) -> list[str]:
        return [status.state for status in statuses(read_plan(self.folder / "plan.toml"))]

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen([*FLEET, self.address], cwd=self.folder, env=self.env, stdout=-1, stderr=-2, text=True)

    def stop_in(self, cell: int, how: signal.Signals) -> tuple[int, str]:
        """Start it, and stop it while trial 1 of this cell hangs. Returns its exit code and its output."""
        (self.control / "0001.pids").unlink(missing_ok=True)
        fleet = self.start()
        try:
            before = self.folder / "plan" / self.cells[cell - 1] / "best.json"
            until(lambda: before.exists() or fleet.poll() is not None, 400, "the cell before does not end")
            (self.control / "0001.hang").touch()
            pids = hanging(self.control, 1)
            assert self.states()[cell] == "running"
            fleet.send_signal(how)
            until(lambda: are_gone(pids), 10, f"processes of a fleet that was stopped by {how.name} are left")
            fleet.wait(60)
        finally:
            (self.control / "0001.hang").unlink(missing_ok=True)
            fleet.kill()
        out, _ = fleet.communicate()
        return fleet.returncode, out

    def run(self) -> tuple[int, str]:
        """Returns the exit code and the output of the command that ends it."""
        assert len(self.cells) == 4
        code, _ = self.stop_in(1, signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert self.states() == ["done", "waiting", "waiting", "waiting"]
        code, out = self.stop_in(2, signal.SIGINT)
        assert (code, "the same command continues" in out) == (130, True), out
        assert f"{self.cells[1]}: goes on" in out
        last = self.start()
        out, _ = last.communicate()
        return last.returncode, out


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, cluster: Any) -> Iterator[tuple[Fleet, "Future[tuple[int, str]]"]]:
    """A fleet, and what it will have returned: it is under way."""
    made = Fleet(tmp_path_factory.mktemp("fleet"), cluster.address)
    with ThreadPoolExecutor(1) as pool:
        yield made, pool.submit(made.run)


@pytest.mark.usefixtures("fleet")
def test_a_worker_is_killed_a_disk_is_full_and_the_connection_is_lost(
    tmp_path: Path, cluster: Any, control: Path
) -> None:
    """No trial is lost or counted twice, no process of what was lost is left, and the pick is a local search's."""
    for name in ("0001.hang", "0003.hang"):
        (control / name).touch()
    (control / "0002.full").touch()
    search = Search(tmp_path, cluster, budget=4, workers=2, space=FOUR)
    child, descendant, worker = hanging(control, 1, search)
    (control / "0001.hang").unlink()
    os.kill(worker, signal.SIGKILL)
    until(lambda: are_gone([child, descendant]), 10, "processes of a killed worker are left")
    pids = hanging(control, 3, search)
    # What is lost with the connection, too, is lost twice.
    until((search.folder.trial(1) / "trial.json").exists, 200, "trial 1 did not find a place")
    (control / "0003.hang").unlink()
    process = search.messenger._process
    assert process is not None
    process.kill()  # as Ray itself ends its driver where the cluster's head is gone
    until(lambda: are_gone(pids), 10, "processes of a lost connection are left")
    search.join()
    assert [trial.number for trial in search.study.trials] == list(range(4))
    assert all(trial.measured for trial in search.study.trials), [trial.outcome for trial in search.study.trials]
    assert sorted(p.name for p in search.folder.trial(3).iterdir()) == [
        *("images", "job.json", "log.txt", "outcome.json", "score", "trial.json")
    ]
    assert not (tmp_path / "messages" / "arriving").exists()
    local = searched_here(tmp_path / "local", control)
    picks = [pick_trial(study.trials, study.baseline, study.record.goal) for study in (search.study, local)]
    assert [pick and (pick.values["dtype"], pick.values["tome_ratio"]) for pick in picks] == [("bf16", 0.5)] * 2


def searched_here(path: Path, control: Path) -> Study:
    """The study of a search of the same four configs by this process, with the same fake children."""
    folder = StudyFolder(path)
    folder.create()
    study = new_study(folder, FOUR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolate, "run", functools.partial(isolate.run, command=fake_work.COMMAND))
        patch.setattr(isolate, "WORKER", fake_work.COMMAND)
        runner = Runner(folder, TARGET, 120.0, isolation="spawn")
        Explorer(folder, study, runner, lambda event: None, reuse=False).explore(Budget(trials=4))
    return study


def test_a_ray_of_our_own_is_reached_from_this_machine_alone(
    tmp_path: Path, control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray takes 127.0.0.1 for this machine's address in the network, and whoever reaches it can run code here."""
    from psutil import Process

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a token into it
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "60")  # on a busy machine its node may give up: then once more
    messenger = RayMessenger(Settings(cards=1, resource="card", function=fake_work.FUNCTION), tmp_path)
    try:
        news = next(news for news in iter(lambda: messenger.news(60.0), "never") if news is not None)
        assert isinstance(news, Ready), news
        assert messenger._process is not None
        started = Process(messenger._process.pid).children(recursive=True)
        listening = {
            (process.name(), connection.laddr.ip)
            for process in started
            for connection in process.net_connections()
            if connection.status == "LISTEN"
        }
        assert {"raylet", "gcs_server"} <= {name for name, _ in listening}
        assert {ip.removeprefix("::ffff:") for _, ip in listening} == {"127.0.0.1"}, listening
    finally:
        messenger.close()
    until(lambda: are_gone([process.pid for process in started]), 10, "processes of our own Ray are left")


def test_a_fleet_is_killed_stopped_by_ctrl_c_and_then_ends_by_the_same_command(
    fleet: tuple[Fleet, "Future[tuple[int, str]]"],
) -> None:
    """Each time, no process is left on any node after 10 s."""
    made, running = fleet
    code, out = running.result()
    assert code == 0, out
    assert [f"{cell}: is finished" in out for cell in made.cells] == [True, True, False, False]
    assert made.states() == ["done"] * 4
    for cell in made.cells:
        trials = read_trials(StudyFolder(made.folder / "plan" / cell))
        assert [trial.number for trial in trials] == [0, 1]
        assert (made.folder / "plan" / cell / "best.json").exists()
    page = (made.folder / "plan" / "fleet.html").read_text()
    assert all(cell in page for cell in made.cells)


def test_what_a_task_has_raised_is_said_in_its_own_words() -> None:
    from ray.exceptions import RayTaskError

    from autotune.cluster import courier

    raised = RayTaskError("perform", "\x1b[36mray::perform()\x1b[39m (pid=1)\nTraceback", KeyError("says"))
    for error in (raised, raised.as_instanceof_cause()):
        assert courier._clause(error) == "KeyError: 'says'"


def has_process(node: Any, pid: int) -> bool:
    """Is this worker's parent the raylet of the node?"""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return parent in [started.process.pid for started in node.all_processes["raylet"]]


def test_a_node_without_answer_a_node_that_is_gone_and_a_head_that_is_restarted_cost_no_trial(
    tmp_path: Path, cluster: Any, control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test of the module: at its end the whole cluster is gone."""
    monkeypatch.setattr("autotune.cluster.messenger.PAUSE_S", (0.0, 1.0, 1.0, 2.0, 40.0))  # the head is soon back
    for number in (1, 2, 3):
        (control / f"{number:04d}.hang").touch()
        (control / f"{number:04d}.pids").unlink(missing_ok=True)
    search = Search(tmp_path, cluster, budget=4, workers=1)

    # The network of the first node is cut until it is taken for dead: its result comes too late, and counts nothing.
    pids = hanging(control, 1, search)
    silent = next(node for node in cluster.list_all_nodes() if has_process(node, pids[2]))
    raylet = next(started.process.pid for started in silent.all_processes["raylet"])
    os.kill(raylet, signal.SIGSTOP)
    until(lambda: any(said.endswith("is gone with its node") for said in search.said), 120, "it is not noticed")
    (control / "0001.hang").unlink()  # it ends as if nothing had happened
    os.kill(raylet, signal.SIGCONT)
    until(lambda: are_gone([*pids, raylet]), 60, "processes of a node that was taken for dead are left")  # Ray's own

    pids = hanging(control, 2, search)
    gone = next(node for node in cluster.list_all_nodes() if has_process(node, pids[2]))
    (control / "0002.hang").unlink()
    cluster.remove_node(gone, allow_graceful=False)
    until(lambda: are_gone(pids), 10, "processes of a node that is gone are left")

    # A new cluster of a single node is started at the address of the old one.
    pids, address = hanging(control, 3, search), cluster.address
    assert sum(said.endswith("is gone with its node") for said in search.said) == 2
    cluster.shutdown()
    until(lambda: are_gone(pids), 10, "processes of a cluster that is gone are left")
    (control / "0003.hang").unlink()
    again = start_cluster(gcs_server_port=int(address.rpartition(":")[2]))
    try:
        assert again.address == address
        search.join()
    finally:
        again.shutdown()
    assert [trial.number for trial in search.study.trials] == [0, 1, 2, 3]
    assert all(trial.measured for trial in search.study.trials), [trial.outcome for trial in search.study.trials]
