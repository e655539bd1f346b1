"""The watch on machines that are not there (tests/machines.py): sizes, desktops, junk in NVML's answers, busy hosts."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machines
import pynvml
import pytest
from machines import BROWSER, HOST_PID, MIB, XORG

from autotune.device import Device
from autotune.measure import latency
from autotune.measure.watch import watch_for
from autotune.measure.watch_cpu import HostLoad, HostWatch
from autotune.measure.watch_gpu import GpuWatch

STRANGER = 4_100_000
CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOTUNE_BUSY", raising=False)
    monkeypatch.setattr(latency, "PAUSE_S", 0.0)


def watching(monkeypatch: pytest.MonkeyPatch, machine: machines.Machine) -> GpuWatch:
    _, cuda = machine.install(monkeypatch)
    found = watch_for(Device(kind="cuda", name="not there", memory_bytes=2**34))
    assert isinstance(found, GpuWatch)
    monkeypatch.setattr(found._host, "end", lambda: None)  # this machine is busy, and its clock is not the fake one
    cuda.allocate(2000 * MIB, keep=True)
    return found


def sampled(
    monkeypatch: pytest.MonkeyPatch, watch: Any, each: Callable[[int], None] = lambda number: None
) -> latency.Sampled[int]:
    """Calls of 0.2 s by a fake clock; `each` is what happens in the n-th that is made."""
    now, made = [100.0], [0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def call(number: int) -> int:
        each(made[0])
        made[0] += 1
        now[0] += 0.2
        return number

    return latency.sample(call, watch, keep=5, device="cuda:0")


def test_each_size_has_a_clock_of_its_own_to_be_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A T4 at its power limit runs a larger size at two thirds of the clock."""
    machine = machines.t4_slurm()
    watch = watching(monkeypatch, machine)
    assert sampled(monkeypatch, watch).discarded == ()
    machine.cards[2].sm_clock_mhz = 900
    assert sampled(monkeypatch, watch).discarded == ()
    health = watch.health()
    assert (health.sm_clock_mhz, health.slowed_steadily) == (900, False)
    assert health.throttle_reasons == ("SwPowerCap",)


def test_what_this_process_takes_for_the_next_size_is_not_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container NVML does not tell whose memory it is."""
    machine = machines.h100_mig_container()
    watch = watching(monkeypatch, machine)
    assert sampled(monkeypatch, watch).discarded == ()
    machine.cards[0].slices[0].driver_bytes += 400 * MIB  # a library's workspace
    assert sampled(monkeypatch, watch).discarded == ()


def test_a_passively_cooled_card_is_measured_in_the_state_that_it_always_has(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machines.t4_slurm()
    card = machine.cards[2]
    card.reasons = pynvml.nvmlClocksThrottleReasonSwThermalSlowdown
    watch = watching(monkeypatch, machine)
    found = sampled(monkeypatch, watch)
    assert len(found.samples_s) == 5
    assert watch.health().slowed_steadily
    assert watch.health().throttle_reasons == ("SwThermal",)


def test_a_compositor_and_a_browser_are_no_disturbance_until_they_do_more(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machines.desktop_4090()
    card = machine.cards[0]
    watch = watching(monkeypatch, machine)

    def each(number: int) -> None:
        card.utilisation = [(XORG, 4, 0), (BROWSER, 40 if number == 2 else 9, 0)]

    found = sampled(monkeypatch, watch, each)
    assert [(d.why, "40%" in d.reason, "7% before" in d.reason) for d in found.discarded] == [("contended", True, True)]
    assert watch.health().others_utilisation == pytest.approx(9)


def test_a_job_that_was_there_before_is_no_compositor(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machines.desktop_4090()
    machine.cards[0].compute[STRANGER] = 8000 * MIB
    machine.cards[0].utilisation = [(STRANGER, 90, 0)]
    with pytest.raises(latency.NoCleanSamples, match="another process used 90%") as raised:
        sampled(monkeypatch, watching(monkeypatch, machine))
    assert raised.value.why == "contended"


@pytest.mark.parametrize(
    "junk",
    [
        (BROWSER, 37_100, 0),  # no share
        (BROWSER, 2_147_483_632, 0),
        (BROWSER, 90, 60_000_000),  # of a minute ago
        (STRANGER, 90, 0),  # of a process that is not there
        (0, 90, 0),
    ],
)
def test_junk_among_the_samples_of_utilisation_is_dropped(monkeypatch: pytest.MonkeyPatch, junk: Any) -> None:
    machine = machines.desktop_4090()
    watch = watching(monkeypatch, machine)
    machine.cards[0].utilisation = [(BROWSER, 6, 0), junk]
    assert sampled(monkeypatch, watch).discarded == ()
    assert watch.health().others_utilisation == pytest.approx(6)


def test_where_others_cannot_be_told_apart_their_utilisation_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machines.desktop_4090()
    card = machine.cards[0]
    card.listed_as, card.utilisation = HOST_PID, [(HOST_PID, 98, 0)]  # in a container, this is us
    watch = watching(monkeypatch, machine)
    assert sampled(monkeypatch, watch).discarded == ()
    assert watch.health().others_utilisation is None


@pytest.mark.parametrize("name", machines.ALL)
def test_every_machine_is_watched_and_its_silence_recorded(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    machine = machines.ALL[name]()
    watch = watching(monkeypatch, machine)
    assert sampled(monkeypatch, watch).discarded == ()
    watched = [c for whole in machine.cards for c in (whole, *whole.slices) if c.has_context]
    assert len(watched) == 1
    asked = {"ClockInfo", "PowerUsage", "TotalEnergyConsumption", "ViolationStatus"}
    assert asked & set(watched[0].declines) <= set(watch.health().not_told)


class Host:
    """A /proc in which others take a share of all cores, and this thread waits for one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ticks, self.ran_s, self.waited_s = folder, 1000, 1.0, 0.0
        self.task = folder / "self" / "task" / str(threading.get_native_id())
        self.task.mkdir(parents=True)
        self.work(0.0, others=0.0)

    def work(self, seconds: float, *, others: float, waited: float = 0.0, counted: bool = True) -> None:
        self.ticks += round(others * seconds * os.sysconf("SC_CLK_TCK"))
        self.ran_s, self.waited_s = self.ran_s + seconds * counted, self.waited_s + waited * seconds
        cores = [f"cpu{core} {self.ticks} 0 0 9 0 0 0 0 0 0" for core in sorted(os.sched_getaffinity(0))]
        (self.folder / "stat").write_text("\n".join(cores) + "\n")
        (self.task / "schedstat").write_text(f"{round(self.ran_s * 1e9)} {round(self.waited_s * 1e9)} 7\n")


def use(folder: Path, monkeypatch: pytest.MonkeyPatch, **work: Any) -> Any:
    """What a watch on the host says of one call of 1 s."""
    host, now = Host(folder), [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    watch = HostWatch(folder)
    watch.start()
    watch.begin()
    now[0] += 1.0
    host.work(1.0, **work)
    return watch.end(1.0), watch.health()


def test_others_who_keep_the_launching_thread_waiting_disturb_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbance, _ = use(tmp_path, monkeypatch, others=0.9, waited=0.25)
    assert disturbance.why == "contended"
    assert "90%" in disturbance.reason
    assert "25%" in disturbance.reason


def test_others_on_the_remaining_cores_disturb_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disturbance, health = use(tmp_path, monkeypatch, others=0.5, waited=0.001)
    assert disturbance is None
    assert health.others_cpu_share == pytest.approx(0.5, abs=0.02)
    assert health.waited_share == pytest.approx(0.001)


def test_a_thread_that_waits_for_its_own_process_is_not_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert use(tmp_path, monkeypatch, others=0.05, waited=0.3)[0] is None


def test_a_kernel_that_counts_no_waiting_leaves_the_share_of_others_to_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbance, _ = use(tmp_path, monkeypatch, others=0.5, counted=False)
    assert disturbance.why == "contended"


def test_a_gpus_watch_watches_the_host_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watching(monkeypatch, machines.desktop_4090())
    host = Host(tmp_path)
    monkeypatch.setattr(watch, "_host", HostLoad(tmp_path))

    def each(number: int) -> None:
        host.work(0.2, others=0.9, waited=0.4 if number == 1 else 0.0)

    found = sampled(monkeypatch, watch, each)
    assert [(d.why, "waited 40%" in d.reason) for d in found.discarded] == [("contended", True)]
    assert watch.health().waited_share == pytest.approx(0.0)
