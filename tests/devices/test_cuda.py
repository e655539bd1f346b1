"""NVIDIA GPUs on machines that are not there: found, shown to a child alone, described by torch and found by it."""

import os
from collections.abc import Callable
from pathlib import Path

import machines
import pynvml
import pytest
import torch
from conftest import logged_warnings
from machines import Machine
from rich.console import Console

from autotune.device import Device
from autotune.devices import (
    compiler,
    cuda,
    device_at,
    environment,
    find_device,
    find_devices,
    nvml,
    torch_name,
    unusable,
)
from autotune.devices.cuda import ASKED, _takes
from autotune.devices.probe import probe_device
from autotune.errors import UserError
from autotune.report.terminal.machine import device_table

QUESTIONS = ("UUID", "Name", "MemoryInfo", "CudaComputeCapability", "MigMode", "HandleByIndex")
ERRORS = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_GPU_IS_LOST)


@pytest.fixture(autouse=True)
def compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "fault_on_gpu", lambda name, by_trial: None)


def in_a_child(monkeypatch: pytest.MonkeyPatch, device: Device) -> Device:
    """The device as a child's probe describes it. This process is the child from here on."""
    for name, value in environment(device).items():
        monkeypatch.setenv(name, value)
    assert torch.cuda.device_count() == 1
    assert device.torch_name == "cuda:0"
    return probe_device(device)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("build", [machines.desktop_4090, machines.two_cards])
def test_no_question_that_nvml_declines_ends_a_command(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], Machine], question: str, error: int
) -> None:
    machine = build()
    machine.install(monkeypatch)
    machine.cards[0].declines[question] = error
    devices = find_devices()
    assert devices[-1] == find_device("cpu")
    asked_in_vain = question == "HandleByIndex"
    assert len(devices) == len(machine.cards) + (0 if asked_in_vain else 1)
    if question in QUESTIONS[:4]:
        assert any(f"does not tell {question}" in line for line in devices[0].evidence)


@pytest.mark.parametrize("question", ["SystemGetDriverVersion", "DeviceGetCount"])
def test_no_question_about_the_driver_that_nvml_declines_ends_a_command(
    monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    fake, _ = machines.desktop_4090().install(monkeypatch)
    fake.declines[question] = pynvml.NVML_ERROR_NO_PERMISSION
    assert find_devices()[-1].kind == "cpu"


@pytest.mark.parametrize("build", machines.ALL.values())
def test_the_processor_is_found_without_a_question_to_nvml(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], Machine]
) -> None:
    fake, _ = build().install(monkeypatch)
    assert find_device("cpu").kind == "cpu"
    assert fake.asked == []


def test_a_job_of_slurm_has_its_own_card_and_says_what_it_may_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machines.t4_slurm()
    machine.install(monkeypatch)
    (card,) = [device for device in find_devices() if device.is_gpu]
    assert (card.uuid, card.word) == (machine.cards[2].uuid, "cuda:0")
    assert "NVML's cards 0, 1, 3 can't be opened (Insufficient Permissions)" in card.evidence
    probed = in_a_child(monkeypatch, card)
    assert probed.sdpa_kernels == ("efficient", "math")
    assert probed.sdpa_heads == {}, "torch is asked of the kernels that are here"
    assert probed.memory_bytes == 14914 * machines.MIB


@pytest.mark.parametrize(("build", "largest"), [(machines.h100, 256), (machines.desktop_4090, 128)])
def test_the_probe_asks_torch_which_heads_a_kernel_takes(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], Machine], largest: int
) -> None:
    build().install(monkeypatch)
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    (card,) = [device for device in find_devices() if device.is_gpu]
    assert in_a_child(monkeypatch, card).sdpa_heads["cudnn"] == largest


def test_torch_is_asked_by_the_functions_that_it_has() -> None:
    assert not any(_takes(kernel, 64, "cpu") for kernel in ASKED), "it answers, and on a processor by no"


def test_where_every_card_is_refused_the_processor_is_taken_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine = machines.desktop_4090()
    machine.install(monkeypatch)
    machine.cards[0].reachable = False
    assert find_device(None).kind == "cpu"
    (warning,) = logged_warnings(caplog)
    assert "NVML's card 0 can't be opened (Insufficient Permissions)" in warning
    with pytest.raises(UserError, match=r"no NVIDIA GPU was found here \(NVML's card 0 can't be opened"):
        find_device("cuda")


def test_a_driver_that_nvml_does_not_reach_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After an update of the driver without a restart."""
    fake, _ = machines.desktop_4090().install(monkeypatch)
    fake.fails = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    assert find_device(None).kind == "cpu"
    assert "NVML, its interface, can't be asked" in logged_warnings(caplog)[0]


def test_a_container_in_which_the_driver_has_no_nvml_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """NVIDIA_DRIVER_CAPABILITIES=compute: the GPU is there, NVML's library is not."""
    machines.desktop_4090().install(monkeypatch)[0].fails = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    monkeypatch.setattr(nvml, "TRACES", (str(tmp_path),))
    assert find_device(None).kind == "cpu"
    assert "there is an NVIDIA driver" in logged_warnings(caplog)[0]


def test_the_table_of_devices_ends_with_what_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    machines.t4_slurm().install(monkeypatch)
    console = Console(width=200, record=True)
    console.print(device_table(find_devices(), unusable()))
    text = console.export_text()
    assert "GPU-74000002-0000-0000-0000-000000000000" in text
    assert "Not used: NVML's cards 0, 1, 3 can't be opened (Insufficient Permissions)." in text


def test_a_machine_without_a_driver_is_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake, _ = Machine([], "").install(monkeypatch)
    fake.fails = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    assert find_device(None).kind == "cpu"
    assert logged_warnings(caplog) == []


def test_hidden_gpus_are_told_unless_they_are_hidden_on_purpose(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machines.two_cards().install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_device(None).kind == "cpu"
    assert logged_warnings(caplog) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert find_device(None).kind == "cpu"
    assert "CUDA_VISIBLE_DEVICES='7' shows none of the 2 that are here" in logged_warnings(caplog)[0]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_a_mig_slice_is_a_gpu_of_its_own_with_its_own_memory(
    monkeypatch: pytest.MonkeyPatch, named: bool, listed: bool
) -> None:
    """Named by CUDA_VISIBLE_DEVICES, or listed by NVML, or both; neither is a card that can't be used."""
    machine = machines.h100_mig_container()
    machine.install(monkeypatch)
    (part,) = machine.cards[0].slices
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", part.uuid)
    if not listed:
        machine.cards[0].declines["MigDeviceHandleByIndex"] = pynvml.NVML_ERROR_NO_PERMISSION
        part.declines["HandleByUUID"] = pynvml.NVML_ERROR_NO_PERMISSION
    found = [device for device in find_devices() if device.is_gpu]
    if not named and not listed:
        assert found == []
        with pytest.raises(UserError, match="card 0 is in MIG mode, and no slice of it is here"):
            find_device("cuda")
        return
    assert [device.uuid for device in found] == [part.uuid]
    probed = in_a_child(monkeypatch, found[0])
    assert probed.name == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    assert probed.memory_bytes == 9728 * machines.MIB
    assert (probed.multiprocessors, probed.compute_capability) == (16, (9, 0))


def test_memory_that_nvml_does_not_tell_comes_from_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    machines.gb10().install(monkeypatch)
    found = find_device(None)
    assert (found.name, found.memory_bytes) == ("NVIDIA GB10", 0)
    assert any("does not tell MemoryInfo (Not Supported): torch is asked" in line for line in found.evidence)
    probed = in_a_child(monkeypatch, found)
    assert probed.memory_bytes == 122_500 * machines.MIB
    assert probed.shares_memory


def test_a_card_without_a_uuid_is_shown_to_a_child_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machines.two_cards()
    machine.install(monkeypatch)
    machine.cards[1].declines["UUID"] = pynvml.NVML_ERROR_NO_PERMISSION
    found = find_device("cuda:1")
    assert found.uuid is None
    assert environment(found) == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}
    probed = in_a_child(monkeypatch, found)
    assert (probed.uuid, probed.multiprocessors) == (machine.cards[1].uuid, 128)


@pytest.mark.parametrize("build", machines.ALL.values())
def test_a_child_sees_its_own_gpu_alone_as_the_first(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], Machine]
) -> None:
    build().install(monkeypatch)
    before = dict(os.environ)
    for device in find_devices():
        with monkeypatch.context() as patch:
            if device.is_gpu:
                probed = in_a_child(patch, device)
                assert (probed.name, probed.uuid) == (device.name, device.uuid)
                assert torch_name(device) == device.torch_name == "cuda:0"
        assert dict(os.environ) == before


def test_production_finds_a_card_in_torchs_own_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML and `autotune device` count the 3060 first, CUDA the 4090. No number may carry from one to the other."""
    machines.two_cards().install(monkeypatch)
    by_nvml = {device.name[-4:]: device.word for device in find_devices() if device.is_gpu}
    assert by_nvml == {"3060": "cuda:0", "4090": "cuda:1"}
    assert torch_name(find_device("cuda:0")) == "cuda:1"
    assert torch_name(find_device("cuda:1")) == "cuda:0"
    assert device_at("cuda:0").name[-4:] == "4090"
    assert device_at("cuda:1").name[-4:] == "3060"
    assert device_at("GPU-306").name[-4:] == "3060"
    assert device_at("cpu") == find_device("cpu")
    with pytest.raises(UserError, match=r"cuda:2: there is no such device; torch sees cuda:0 to cuda:1"):
        device_at("cuda:2")


def test_a_card_that_torch_does_not_see_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machines.two_cards().install(monkeypatch)
    slow = find_device("cuda:0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-4090")
    with pytest.raises(UserError, match=r"3060.*torch does not see it in this process: CUDA_VISIBLE_DEVICES is 'GPU"):
        torch_name(slow)


def test_a_gpu_is_named_by_the_beginning_of_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    machines.two_cards().install(monkeypatch)
    assert find_device("GPU-4090").name.endswith("4090")
    with pytest.raises(UserError, match=r"GPU-777: there is no such device; found cuda:0 .*GPU-30600000.* and cpu"):
        find_device("GPU-777")


def test_a_gpu_that_torch_can_not_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machines.desktop_4090().install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"RTX 4090 was found, but this torch .* can't use it: install a CUDA build"):
        probe_device(find_device(None))


def test_what_does_not_compile_is_part_of_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    machines.desktop_4090().install(monkeypatch)
    monkeypatch.setattr(cuda, "fault_on_gpu", lambda name, by_trial: f"{name} can't, {by_trial}")
    assert probe_device(find_device(None), by_trial=True).compile_fault == "cuda:0 can't, True"
    assert probe_device(find_device(None)).compile_fault == "cuda:0 can't, False", "nothing is compiled in production"
    assert compiler.missing() is None, "this machine has a compiler and Python's headers"
