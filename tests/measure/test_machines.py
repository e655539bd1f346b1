"""From finding the GPU to its memory and its watch, on machines that are not there: see tests/machines.py."""

from collections.abc import Callable

import machines
import pytest
from machines import CONTEXT_BYTES, MIB, FakeCuda, Machine

from autotune.device import Device
from autotune.devices import cuda, environment, find_devices
from autotune.devices.probe import probe_device
from autotune.measure.memory import cap, meter_for
from autotune.measure.watch import Watch, watch_for

# machine: the card on which is tuned, as `--device` counts; torch's memory; SM clock and its maximum that NVML tells
KNOWN: dict[str, tuple[int, int, tuple[int | None, int | None]]] = {
    "t4_slurm": (0, 14914, (1350, 1590)),
    "desktop_4090": (0, 24080, (2730, 3120)),
    "two_cards": (1, 24080, (2730, 3120)),
    "h100_mig_container": (0, 9728, (None, None)),
    "gb10": (0, 122_500, (2400, 3003)),
    "h100": (0, 81079, (1800, 1980)),
}


def in_a_child(patch: pytest.MonkeyPatch, name: str, change: Callable[[Machine], None] | None = None) -> FakeCuda:
    machine = machines.ALL[name]()
    if change:
        change(machine)
    patch.delenv("AUTOTUNE_BUSY", raising=False)
    patch.setattr(cuda, "fault_on_gpu", lambda name, by_trial: None)
    _, fake = machine.install(patch)
    return fake


def probed(patch: pytest.MonkeyPatch, name: str) -> Device:
    """The device of the machine as a child's probe describes it, in an environment as a child's."""
    device = find_devices()[KNOWN[name][0]]
    for variable, value in environment(device).items():
        patch.setenv(variable, value)
    return probe_device(device)


@pytest.mark.parametrize("name", KNOWN)
def test_a_pipes_peak_is_metered_on_its_own_card(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fake = in_a_child(monkeypatch, name)
    device = probed(monkeypatch, name)
    assert device.memory_bytes == KNOWN[name][1] * MIB
    meter = meter_for(device.torch_name)
    meter.start("load")
    fake.allocate(1024 * MIB)
    meter.stop()
    peak = meter.peaks["load"]
    assert (peak.allocated_bytes, peak.reserved_bytes) == (1024 * MIB, 1024 * MIB)
    assert peak.device_bytes == 1024 * MIB + CONTEXT_BYTES


@pytest.mark.parametrize("name", KNOWN)
def test_a_cap_leaves_the_allocator_what_the_context_leaves(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fake = in_a_child(monkeypatch, name)
    device = probed(monkeypatch, name)
    cap(device.torch_name, 4096 * MIB)
    fraction = fake.card().fraction
    assert fraction is not None
    assert fraction * device.memory_bytes == pytest.approx(4096 * MIB - CONTEXT_BYTES)


def loaded(fake: FakeCuda, watch: Watch) -> None:
    """The pipe is on the card, and a series of timed calls begins."""
    fake.allocate(1024 * MIB, keep=True)
    watch.start()


def watched(watch: Watch, seconds: float = 0.2) -> object:
    watch.begin()
    return watch.end(seconds)


@pytest.mark.parametrize("name", KNOWN)
def test_a_quiet_call_is_kept_and_the_watch_tells_what_nvml_tells(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A power-limited T4 at full load and a desktop with its compositor are as quiet as they get."""
    fake = in_a_child(monkeypatch, name)
    watch = watch_for(probed(monkeypatch, name))
    loaded(fake, watch)
    assert watched(watch) is None
    health = watch.health()
    assert health is not None
    assert (health.sm_clock_mhz, health.sm_clock_max_mhz) == KNOWN[name][2]
    assert ("ClockInfo" in health.not_told) == (name == "h100_mig_container")
    assert ("SwPowerCap" in health.throttle_reasons) == (name == "t4_slurm")


@pytest.mark.parametrize("name", ["t4_slurm", "two_cards", "gb10"])
def test_heat_on_its_own_card_is_seen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fake = in_a_child(monkeypatch, name)
    watch = watch_for(probed(monkeypatch, name))
    loaded(fake, watch)
    assert watched(watch) is None
    watch.begin()
    fake.card().reasons |= 0x8  # HwSlowdown
    assert "HwSlowdown" in str(watch.end(0.2))


def test_heat_on_another_card_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def heat(machine: Machine) -> None:
        machine.cards[0].reasons = 0x8

    fake = in_a_child(monkeypatch, "two_cards", heat)
    watch = watch_for(probed(monkeypatch, "two_cards"))
    loaded(fake, watch)
    assert watched(watch) is None
