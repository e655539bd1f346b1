"""A config measured on one GPU loads on that GPU, on one of its model, or with a word: never on another in silence."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import machines
import pytest
import torch
from conftest import gpu, make_target

from autotune.config import Config
from autotune.device import Device
from autotune.devices import cuda, environment, find_device
from autotune.devices.probe import probe_device
from autotune.errors import UserError
from autotune.knobs import complete
from autotune.production import fingerprint
from autotune.production.fingerprint import choose_device, choose_same_kind, device_differences, find_place
from autotune.target import Target

FAST, SLOW = "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3060"


def measured_on(build: Callable[[], machines.Machine], word: str) -> Target:
    """A target that was measured on this card of this machine: torch has told its memory."""
    with pytest.MonkeyPatch.context() as patch:
        build().install(patch)
        device = find_device(word)
        for name, value in environment(device).items():
            patch.setenv(name, value)
        patch.setattr(cuda, "fault_on_gpu", lambda name, by_trial: None)
        target = make_target(probe_device(device))
    return target.model_copy(update={"versions": fingerprint.versions()})


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """(the device on which a pipe is loaded, torch's current device then), as names."""
    loaded: list[tuple[str, str | None]] = []
    inside: list[str] = []

    @contextlib.contextmanager
    def current(name: str) -> Iterator[None]:
        inside.append(name)
        yield
        inside.pop()

    def load(pipeline: object, config: object, device: str, **options: Any) -> None:
        loaded.append((device, inside[-1] if inside else None))

    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(fingerprint.build, "load", load)
    monkeypatch.setattr(fingerprint.build, "apply", lambda *args, **options: None)
    monkeypatch.setattr(cuda, "fault_on_gpu", lambda name, by_trial: None)
    return loaded


def place_of(measured: Target, word: str | None = None) -> fingerprint.Place:
    return find_place(measured, Config(complete({})), word, files=False)


def test_a_config_of_the_second_card_in_nvmls_order_loads_on_that_card_in_torchs(
    monkeypatch: pytest.MonkeyPatch, placed: list[tuple[str, str | None]]
) -> None:
    """`autotune search --device cuda:1` measured the 4090; in production cuda:1 is the 3060."""
    measured = measured_on(machines.two_cards, "cuda:1")
    assert measured.device.name == FAST
    machines.two_cards().install(monkeypatch)
    place = place_of(measured)
    assert (place.device.name, place.differences) == (FAST, ())
    fingerprint.load(measured, place, strict=True, local_files_only=True)
    assert placed == [("cuda:0", "cuda:0")]


def test_a_device_that_is_named_is_torchs_and_another_model_is_told(
    monkeypatch: pytest.MonkeyPatch, placed: list[tuple[str, str | None]]
) -> None:
    measured = measured_on(machines.two_cards, "cuda:1")
    machines.two_cards().install(monkeypatch)
    place = place_of(measured, "cuda:1")
    assert place.device.name == SLOW
    assert place.differences[0].startswith(f"this config was measured on {FAST}, this is {SLOW}")
    fingerprint.load(measured, place, strict=False, local_files_only=True)
    assert placed == [("cuda:1", "cuda:1")], "the streams of offloading belong to the current device"


def test_another_card_of_the_same_model_is_no_difference(
    monkeypatch: pytest.MonkeyPatch, placed: list[tuple[str, str | None]]
) -> None:
    measured = measured_on(machines.desktop_4090, "cuda")
    machine = machines.two_cards()
    machine.cards[1].uuid = "GPU-another"
    machine.install(monkeypatch)
    place = place_of(measured)
    assert (place.device.uuid, place.differences) == ("GPU-another", ())


@pytest.mark.parametrize("build", machines.ALL.values())
def test_on_the_machine_of_the_measurement_nothing_differs(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], machines.Machine]
) -> None:
    """Also where NVML tells no memory (GB10), or another one than torch did."""
    measured = measured_on(build, "cuda")
    build().install(monkeypatch)
    assert device_differences(measured.device, choose_device(measured.device, None)) == []


def test_what_only_torch_can_tell_is_asked_before_anything_is_compared(
    monkeypatch: pytest.MonkeyPatch, placed: list[tuple[str, str | None]]
) -> None:
    """On another GB10 than the measured one, where NVML tells no memory."""
    measured = measured_on(machines.gb10, "cuda")
    machine = machines.gb10()
    machine.cards[0].uuid = "GPU-another"
    machine.install(monkeypatch)
    assert (place_of(measured).device.memory_bytes, place_of(measured).differences) == (122_500 * machines.MIB, ())
    machine.cards[0].cuda_bytes //= 2
    assert "64.2 GB of memory" in place_of(measured).differences[0]


def test_of_two_cards_of_a_model_the_measured_one_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machines.two_cards()
    machine.cards[0].name = machine.cards[1].name
    machine.install(monkeypatch)
    measured = Device(kind="cuda", name=FAST, memory_bytes=0, uuid=machine.cards[1].uuid)
    assert choose_device(measured, None).uuid == machine.cards[1].uuid


def test_without_a_device_of_its_kind_the_best_one_is_chosen_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    machines.Machine([], "575").install(monkeypatch)
    assert choose_device(gpu(8, 9), None).kind == "cpu"
    with pytest.raises(UserError, match="--device cuda: no NVIDIA GPU was found here"):
        choose_same_kind(gpu(8, 9), None)
    assert choose_same_kind(gpu(8, 9), "cpu").kind == "cpu"
