"""The GPU while it is timed, by a card that is not there: promises 7 (throttling) and 8 (other processes).

What the fake answers has the real binding's names and types, see tests/machines.py.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import machines
import pynvml
import pytest
from machines import MIB, Card, FakeCuda

from autotune.device import Device
from autotune.measure import latency
from autotune.measure.watch import watch_for
from autotune.measure.watch_cpu import HostLoad, HostWatch
from autotune.measure.watch_gpu import GpuWatch

GPU = Device(kind="cuda", name="a card that is not there", memory_bytes=80 * 2**30)
OTHER = 4_000_000  # no process has this number
SLOWDOWNS = {
    "HwSlowdown": pynvml.nvmlClocksThrottleReasonHwSlowdown,
    "SwThermal": pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
    "HwThermal": pynvml.nvmlClocksThrottleReasonHwThermalSlowdown,
    "HwPowerBrake": pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
}


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return machines.h100().install(monkeypatch)[1]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> Card:
    monkeypatch.delenv("AUTOTUNE_BUSY", raising=False)
    monkeypatch.setattr(latency, "PAUSE_S", 0.0)
    monkeypatch.setattr(HostLoad, "end", lambda self: None)  # this machine is busy, and its clock is not the fake one
    found = cuda.card()
    found.has_context = True
    return found


def watch() -> GpuWatch:
    found = watch_for(GPU)
    assert isinstance(found, GpuWatch)
    return found


class Calls:
    """Calls of 0.2 s by a fake clock. `at`: what happens to the card in the n-th call that is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: dict[int, Callable[[], None]]) -> None:
        self.now, self.at, self.numbers = 100.0, at, list[int]()
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def __call__(self, number: int) -> str:
        if len(self.numbers) in self.at:
            self.at[len(self.numbers)]()
        self.numbers.append(number)
        self.now += 0.2
        return f"picture {number}"


@pytest.mark.parametrize("word", SLOWDOWNS)
def test_promise_7_a_sample_under_a_slowdown_is_discarded_and_taken_again(
    monkeypatch: pytest.MonkeyPatch, card: Card, word: str
) -> None:
    calls = Calls(
        monkeypatch,
        {2: lambda: setattr(card, "reasons", SLOWDOWNS[word]), 3: lambda: setattr(card, "reasons", 0)},
    )
    watching = watch()
    sampled = latency.sample(calls, watching, keep=6, device="cuda:0")
    assert calls.numbers == [0, 1, 2, 2, 3, 4, 5]
    assert len(sampled.samples_s) == 6
    assert sampled.results == tuple(f"picture {n}" for n in range(6))
    assert [(d.why, word in d.reason) for d in sampled.discarded] == [("throttled", True)]
    assert watching.health().throttle_reasons == ()


def test_promise_7_time_held_down_by_heat_is_noticed_though_no_poll_saw_it(
    monkeypatch: pytest.MonkeyPatch, card: Card
) -> None:
    def heat(seconds: float) -> None:
        card.violation_ns[pynvml.NVML_PERF_POLICY_THERMAL] += round(seconds * 1e9)

    calls = Calls(monkeypatch, {1: lambda: heat(0.1), 3: lambda: heat(0.0001)})
    sampled = latency.sample(calls, watch(), keep=5, device="cuda:0")
    assert calls.numbers == [0, 1, 1, 2, 3, 4]
    assert [d.why for d in sampled.discarded] == ["throttled"]


def test_promise_7_a_clock_under_three_quarters_of_the_reference_is_throttling(
    monkeypatch: pytest.MonkeyPatch, card: Card
) -> None:
    at = {
        1: lambda: setattr(card, "sm_clock_mhz", 1400),  # 78 %
        2: lambda: setattr(card, "sm_clock_mhz", 1300),  # 72 %
        3: lambda: setattr(card, "sm_clock_mhz", 1800),
    }
    sampled = latency.sample(Calls(monkeypatch, at), watch(), keep=5, device="cuda:0")
    assert [(d.why, "1300 MHz" in d.reason) for d in sampled.discarded] == [("throttled", True)]


def test_a_low_clock_of_an_idle_gpu_says_nothing(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    def idle() -> None:
        card.sm_clock_mhz, card.reasons = 300, pynvml.nvmlClocksThrottleReasonGpuIdle

    sampled = latency.sample(Calls(monkeypatch, {2: idle}), watch(), keep=5, device="cuda:0")
    assert sampled.discarded == ()


def slowed(card: Card, word: str, *, from_call: int, mhz: Sequence[int] = (1000,)) -> Any:
    """Slowed down for this reason from this call on, at these clocks in turn."""

    def slow(clock: int) -> Callable[[], None]:
        def change() -> None:
            card.reasons, card.sm_clock_mhz = SLOWDOWNS[word], clock

        return change

    return {from_call + n: slow(mhz[n % len(mhz)]) for n in range(30)}


@pytest.mark.parametrize("word", SLOWDOWNS)
def test_promise_7_a_gpu_whose_slowdown_changes_most_of_the_time_has_no_latency(
    monkeypatch: pytest.MonkeyPatch, card: Card, word: str
) -> None:
    at = slowed(card, word, from_call=2, mhz=(1000, 1200, 800))
    with pytest.raises(latency.NoCleanSamples, match=word) as raised:
        latency.sample(Calls(monkeypatch, at), watch(), keep=5, device="cuda:0")
    assert raised.value.why == "throttled"


@pytest.mark.parametrize("word", SLOWDOWNS)
def test_promise_7_a_slowdown_that_stays_is_the_state_that_is_measured_and_labelled(
    monkeypatch: pytest.MonkeyPatch, card: Card, word: str
) -> None:
    """The calls before it, and those that showed that it stays, don't count."""
    watching = watch()
    sampled = latency.sample(Calls(monkeypatch, slowed(card, word, from_call=2)), watching, keep=5, device="cuda:0")
    assert len(sampled.discarded) == 2 + 5
    assert "stays in that state" in sampled.discarded[-1].reason
    assert len(sampled.samples_s) == 5
    assert sampled.results == tuple(f"picture {n}" for n in range(5))
    health = watching.health()
    assert health.slowed_steadily
    assert health.throttle_reasons == (word,)
    assert health.sm_clock_mhz == 1000


def test_promise_7_a_gpu_that_leaves_its_slowed_down_state_is_changing(
    monkeypatch: pytest.MonkeyPatch, card: Card
) -> None:
    def cool() -> None:
        card.reasons, card.sm_clock_mhz = 0, 1800

    at = {**slowed(card, "HwThermal", from_call=0), **dict.fromkeys(range(7, 40), cool)}
    with pytest.raises(latency.NoCleanSamples, match="left the slowed-down state") as raised:
        latency.sample(Calls(monkeypatch, at), watch(), keep=5, device="cuda:0")
    assert raised.value.why == "throttled"


def test_a_clock_that_falls_at_the_power_limit_and_stays_is_the_steady_state(
    monkeypatch: pytest.MonkeyPatch, card: Card
) -> None:
    """A power-limited card is faster as long as it is cool."""

    def limited() -> None:
        card.reasons, card.sm_clock_mhz = pynvml.nvmlClocksThrottleReasonSwPowerCap, 1200

    watching = watch()
    sampled = latency.sample(Calls(monkeypatch, {2: limited}), watching, keep=5, device="cuda:0")
    assert len(sampled.samples_s) == 5
    assert watching.health().sm_clock_mhz == 1200
    assert watching.health().slowed_steadily


def test_the_power_cap_is_recorded_and_invalidates_nothing(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    at = {2: lambda: setattr(card, "reasons", pynvml.nvmlClocksThrottleReasonSwPowerCap)}
    watching = watch()
    assert latency.sample(Calls(monkeypatch, at), watching, keep=5, device="cuda:0").discarded == ()
    assert watching.health().throttle_reasons == ("SwPowerCap",)


def test_time_under_the_power_cap_is_recorded_though_no_poll_saw_it(
    monkeypatch: pytest.MonkeyPatch, card: Card
) -> None:
    at = {2: lambda: card.violation_ns.update({pynvml.NVML_PERF_POLICY_POWER: 10**8})}
    watching = watch()
    latency.sample(Calls(monkeypatch, at), watching, keep=5, device="cuda:0")
    assert watching.health().throttle_reasons == ("SwPowerCap",)


@pytest.mark.parametrize("kind", ["compute", "graphics", "mps"])
def test_promise_8_another_process_that_takes_memory_is_contention(
    monkeypatch: pytest.MonkeyPatch, card: Card, kind: str
) -> None:
    theirs = getattr(card, kind)
    at = {
        0: lambda: theirs.update({OTHER: 255 * MIB}),
        2: lambda: theirs.update({OTHER: 300 * MIB}),
        3: lambda: theirs.pop(OTHER),
    }
    sampled = latency.sample(Calls(monkeypatch, at), watch(), keep=5, device="cuda:0")
    assert [(d.why, "300 MiB" in d.reason) for d in sampled.discarded] == [("contended", True)]


def test_promise_8_memory_that_others_held_before_is_not_contention(
    monkeypatch: pytest.MonkeyPatch, card: Card
) -> None:
    card.compute[OTHER] = 4096 * MIB
    watching = watch()
    assert latency.sample(Calls(monkeypatch, {}), watching, keep=5, device="cuda:0").discarded == ()
    assert watching.health().others_memory_bytes == 4096 * MIB


def test_promise_8_another_process_at_work_is_contention_and_we_are_not(
    monkeypatch: pytest.MonkeyPatch, card: Card
) -> None:
    card.compute[OTHER] = 400 * MIB
    at = {
        0: lambda: setattr(card, "utilisation", [(os.getpid(), 95), (OTHER, 5)]),
        2: lambda: setattr(card, "utilisation", [(os.getpid(), 60), (OTHER, 30)]),
        3: lambda: setattr(card, "utilisation", [(os.getpid(), 95)]),
    }
    sampled = latency.sample(Calls(monkeypatch, at), watch(), keep=5, device="cuda:0")
    assert [(d.why, "30%" in d.reason) for d in sampled.discarded] == [("contended", True)]


def test_promise_8_in_a_container_we_are_no_stranger_to_ourselves(
    monkeypatch: pytest.MonkeyPatch, card: Card, cuda: FakeCuda
) -> None:
    """NVML knows us by the host's number: our own growth and work are not others', theirs still are."""
    card.listed_as = OTHER
    card.utilisation = [(OTHER, 100)]

    def ours() -> None:
        cuda.allocate(2048 * MIB)

    def theirs(size: int) -> None:
        card.driver_bytes += size

    at = {1: ours, 3: lambda: theirs(300 * MIB), 4: lambda: theirs(-300 * MIB)}
    watching = watch()
    sampled = latency.sample(Calls(monkeypatch, at), watching, keep=5, device="cuda:0")
    assert [(d.why, "300 MiB" in d.reason) for d in sampled.discarded] == [("contended", True)]
    assert watching.health().others_memory_bytes is None


def test_another_process_with_our_number_on_the_host_is_not_us(
    monkeypatch: pytest.MonkeyPatch, card: Card, cuda: FakeCuda
) -> None:
    cuda.allocate(1024 * MIB)
    card.listed_as, card.compute = OTHER, {os.getpid(): 100 * MIB}
    card.utilisation = [(os.getpid(), 0), (OTHER, 100)]
    sampled = latency.sample(Calls(monkeypatch, {}), watch(), keep=5, device="cuda:0")
    assert sampled.discarded == ()


def test_where_noise_is_accepted_everything_is_kept_and_recorded(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    monkeypatch.setenv("AUTOTUNE_BUSY", "accept")
    at = {2: lambda: setattr(card, "reasons", SLOWDOWNS["HwThermal"])}
    watching = watch()
    sampled = latency.sample(Calls(monkeypatch, at), watching, keep=5, device="cuda:0")
    assert sampled.discarded == ()
    assert watching.health().throttle_reasons == ("HwThermal",)


def test_health_is_that_of_the_kept_calls(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    def throttled() -> None:
        card.reasons, card.temperature_c, card.power_mw = SLOWDOWNS["HwThermal"], 95, 100_000

    def cool() -> None:
        card.reasons, card.temperature_c, card.power_mw = 0, 70, 300_000

    watching = watch()
    latency.sample(Calls(monkeypatch, {1: throttled, 2: cool}), watching, keep=5, device="cuda:0")
    health = watching.health()
    assert (health.temperature_c, health.power_w) == (70, 300.0)
    assert (health.sm_clock_mhz, health.sm_clock_max_mhz) == (1800.0, 1980.0)
    assert health.load_average is not None
    assert health.not_told == ()


def test_a_long_sample_is_polled_ten_times_a_second(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    """A slowdown that is over before the sample ends is seen."""
    watching = watch()
    watching.begin()
    card.reasons = SLOWDOWNS["HwSlowdown"]
    time.sleep(0.2)
    card.reasons = 0
    time.sleep(0.2)
    disturbance = watching.end(0.4)
    assert disturbance is not None
    assert disturbance.why == "throttled"
    assert len(watching._polls) >= 4


def test_energy_is_what_the_counter_gained_in_the_kept_calls(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    def burn() -> None:
        card.energy_mj += 60_000

    def throttled() -> None:
        burn()
        card.reasons = SLOWDOWNS["HwSlowdown"]

    def again() -> None:
        burn()
        card.reasons = 0

    watching = watch()
    latency.sample(
        Calls(monkeypatch, {0: burn, 1: throttled, **dict.fromkeys(range(2, 6), again)}),
        watching,
        keep=5,
        device="cuda:0",
    )
    assert watching.energy_j() == pytest.approx(5 * 60.0)


ALL = {
    "CurrentClocksEventReasons",
    "CurrentClocksThrottleReasons",
    "ViolationStatus",
    "ClockInfo",
    "MaxClockInfo",
    "Temperature",
    "PowerUsage",
    "TotalEnergyConsumption",
    "ComputeRunningProcesses",
    "GraphicsRunningProcesses",
    "MPSComputeRunningProcesses",
    "ProcessUtilization",
    "MemoryInfo",
}


def test_a_card_that_tells_nothing_is_timed_all_the_same_and_the_silence_is_recorded(
    monkeypatch: pytest.MonkeyPatch, card: Card
) -> None:
    card.declines = dict.fromkeys(ALL, pynvml.NVML_ERROR_NOT_SUPPORTED)
    card.utilisation = [(OTHER, 100)]
    watching = watch()
    sampled = latency.sample(Calls(monkeypatch, {}), watching, keep=5, device="cuda:0")
    assert sampled.discarded == ()
    health = watching.health()
    assert set(health.not_told) == ALL
    assert (health.sm_clock_mhz, health.power_w, health.temperature_c, health.others_memory_bytes) == (None,) * 4
    assert watching.energy_j() is None


def test_an_older_driver_is_asked_by_the_older_name(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    card.declines = {"CurrentClocksEventReasons": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
    card.reasons = SLOWDOWNS["HwSlowdown"]
    watching = watch()
    latency.sample(Calls(monkeypatch, {}), watching, keep=5, device="cuda:0")
    assert watching.health().throttle_reasons == ("HwSlowdown",)


def test_a_gpu_that_nvml_does_not_know_has_no_health_of_its_own(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    """The processor that launches its work is watched all the same."""
    card.declines = {"HandleByUUID": pynvml.NVML_ERROR_NOT_FOUND}
    found = watch_for(GPU)
    assert type(found) is HostWatch
    assert len(latency.sample(Calls(monkeypatch, {}), found, keep=5, device="cuda:0").samples_s) >= 5
    health = found.health()
    assert (health.sm_clock_mhz, health.temperature_c, health.others_memory_bytes) == (None,) * 3
    assert health.load_average is not None
    assert found.energy_j() is None
