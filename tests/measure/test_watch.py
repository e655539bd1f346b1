"""The processor while it is timed: others' share of it, by a /proc of our own and by the real one. Promise 8."""

import os
import time
from pathlib import Path

import pytest
from conftest import CPU

from autotune.measure import latency
from autotune.measure.watch import watch_for
from autotune.measure.watch_cpu import CpuWatch

CORES = len(os.sched_getaffinity(0))
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOTUNE_BUSY", raising=False)


class Machine:
    """A /proc whose cores do what a test says, and a clock to it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.now = folder, 100.0
        self.ticks = dict.fromkeys(("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"), 1000)
        self.ours, self.children, self.strangers = 50, 7, 0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        self.write()

    def write(self) -> None:
        line = " ".join(str(ticks) for ticks in self.ticks.values())
        idle = "0 0 0 0 0 0 0 0 0 0"
        cores = [f"cpu{core} {line if core == min(os.sched_getaffinity(0)) else idle} 0 0" for core in range(256)]
        (self.folder / "stat").write_text("\n".join([f"cpu {line} 0 0", *cores, "intr 1", "btime 1"]) + "\n")
        self.process(100, os.getpgrp(), self.ours, self.children)
        self.process(200, os.getpgrp() + 1, self.strangers, 0)

    def process(self, pid: int, group: int, ticks: int, children: int) -> None:
        (self.folder / str(pid)).mkdir(exist_ok=True)
        fields = f"S 1 {group} {group} 0 -1 0 0 0 0 0 {ticks} 0 {children} 0 20 0 1 0"
        (self.folder / str(pid) / "stat").write_text(f"{pid} (a name) with ) in it) {fields}\n")

    def work(self, seconds: float, *, ours_s: float = 0.0, children_s: float = 0.0, **others_s: float) -> None:
        """So much time goes by, in which the cores have been busy with us, our children and others."""
        self.now += seconds
        self.ours += round(ours_s / TICK_S)
        self.children += round(children_s / TICK_S)
        self.ticks["user"] += round((ours_s + children_s) / TICK_S)
        for kind, taken_s in others_s.items():
            self.ticks[kind] += round(taken_s / TICK_S)
        self.write()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", ["user", "nice", "system", "irq", "softirq", "steal"])
def test_promise_8_others_with_more_than_a_tenth_of_the_cores_are_contention(machine: Machine, kind: str) -> None:
    watch = CpuWatch(machine.folder)
    watch.begin()
    machine.work(1.0, ours_s=0.9, **{kind: 0.11 * CORES})
    disturbance = watch.end(1.0)
    assert disturbance is not None
    assert disturbance.why == "contended"
    assert "11%" in disturbance.reason


@pytest.mark.parametrize("kind", ["user", "system", "steal"])
def test_promise_8_others_with_less_are_recorded(machine: Machine, kind: str) -> None:
    watch = CpuWatch(machine.folder)
    for share in (0.02, 0.08):
        watch.begin()
        machine.work(1.0, ours_s=0.9, **{kind: share * CORES})
        assert watch.end(1.0) is None
    assert watch.health().others_cpu_share == pytest.approx(0.05, abs=0.01)


def test_our_own_work_and_that_of_our_children_is_not_others(machine: Machine) -> None:
    watch = CpuWatch(machine.folder)
    watch.begin()
    machine.work(1.0, ours_s=0.6, children_s=0.4, idle=1.0, iowait=1.0)
    assert watch.end(1.0) is None
    assert watch.health().others_cpu_share == pytest.approx(0.0)


def test_a_disturbed_window_is_not_in_the_health(machine: Machine) -> None:
    watch = CpuWatch(machine.folder)
    for others_s in (0.0, CORES * 0.5):
        watch.begin()
        machine.work(1.0, user=others_s)
        watch.end(1.0)
    assert watch.health().others_cpu_share == 0


def test_where_noise_is_accepted_contention_is_only_recorded(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_BUSY", "accept")
    watch = CpuWatch(machine.folder)
    watch.begin()
    machine.work(1.0, user=CORES * 0.5)
    assert watch.end(1.0) is None
    assert watch.health().others_cpu_share == pytest.approx(0.5)


def test_a_kernel_that_hides_its_cores_disturbs_nothing_and_the_share_is_unknown(machine: Machine) -> None:
    (machine.folder / "stat").write_text("cpu 0 0 0 0 0 0 0 0 0 0\n")
    watch = CpuWatch(machine.folder)
    watch.begin()
    machine.now += 1.0
    assert watch.end(1.0) is None
    assert watch.health().others_cpu_share is None
    assert watch.health().load_average is not None


def test_promise_8_short_calls_beside_others_are_taken_again(machine: Machine) -> None:
    """0.2 s each, so that three are judged together; others work during the second three."""
    taken: list[int] = []

    def call(number: int) -> int:
        taken.append(number)
        machine.work(0.2, ours_s=0.2, user=0.2 * CORES if 3 < len(taken) <= 6 else 0.0)
        return number

    sampled = latency.sample(call, CpuWatch(machine.folder), keep=9, device="cpu")
    assert taken == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8]
    assert [d.why for d in sampled.discarded] == ["contended"] * 3
    assert sampled.results == tuple(range(9))


def test_by_the_real_proc_our_own_work_is_not_others() -> None:
    """While we burn one core there is only the rest left for others."""
    watch = watch_for(CPU)
    assert isinstance(watch, CpuWatch)
    watch.begin()
    start, used = time.perf_counter(), time.process_time()
    while time.perf_counter() < start + 1.0:
        pass
    seconds, ours_s = time.perf_counter() - start, time.process_time() - used
    disturbance = watch.end(seconds)
    share = 0.0 if disturbance is None else int(disturbance.reason.split("%")[0].split()[-1]) / 100
    assert share <= 1 - ours_s / (seconds * CORES) + 0.1
