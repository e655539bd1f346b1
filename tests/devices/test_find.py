"""Which devices are found, with and without NVML, and which values of --device are refused."""

import re

import machines
import pynvml
import pytest
from conftest import gpu

from autotune.device import Device
from autotune.devices import find_device, find_devices
from autotune.errors import UserError


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml, _ = machines.Machine([], "").install(monkeypatch)
    nvml.fails = pynvml.NVML_ERROR_DRIVER_NOT_LOADED


@pytest.fixture
def rtx_4090(monkeypatch: pytest.MonkeyPatch) -> None:
    machines.desktop_4090().install(monkeypatch)


@pytest.mark.usefixtures("rtx_4090")
def test_a_gpu_is_described_by_what_nvml_says() -> None:
    found = find_device(None)
    assert found == Device(
        kind="cuda",
        index=0,
        uuid="GPU-40900000-1111-2222-3333-444444444444",
        name="NVIDIA GeForce RTX 4090",
        memory_bytes=24564 * 2**20,
        compute_capability=(8, 9),
        driver="575.57.08",
        evidence=("NVML lists it, driver 575.57.08",),
    )
    assert (found.slug, found.torch_name) == ("rtx-4090", "cuda:0")


@pytest.mark.usefixtures("rtx_4090")
@pytest.mark.parametrize(("word", "name"), [("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cpu", "cpu")])
def test_a_device_is_found_by_its_word(word: str, name: str) -> None:
    assert find_device(word).torch_name == name


@pytest.mark.usefixtures("rtx_4090")
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"cuda:7.*found cuda:0 \(NVIDIA GeForce RTX 4090\) and cpu"):
        find_device("cuda:7")


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize("word", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_without_a_driver_is_refused_with_what_nvml_says(word: str) -> None:
    with pytest.raises(UserError, match=rf"--device {word}: no NVIDIA GPU.*Driver Not Loaded.*--device cpu"):
        find_device(word)


def test_cuda_with_a_driver_but_no_card_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machines.Machine([], "575.57.08").install(monkeypatch)
    with pytest.raises(UserError, match="NVML lists none"):
        find_device("cuda")


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize(
    "word",
    ["tpu", "", "cuda:", "cuda:x", "cuda:-1", "cuda:²", "CUDA", "gpu", "cpu:1", "mps:1", "cudaa", "GPU-", "GPU-a b"],
)
def test_a_word_that_names_no_device_is_refused(word: str) -> None:
    with pytest.raises(UserError, match=f"takes cuda, cuda:N or cpu, not {re.escape(repr(word))}"):
        find_device(word)


@pytest.mark.usefixtures("no_driver")
def test_without_a_gpu_the_processor_is_found_with_its_memory_and_cores() -> None:
    (processor,) = find_devices()
    assert processor.kind == "cpu"
    assert processor.name
    assert processor.memory_bytes > 2**28
    assert processor.cores is not None
    assert processor.cores >= 1
    assert any("/proc/cpuinfo" in line for line in processor.evidence)


def test_a_device_survives_its_json() -> None:
    device = gpu(8, 9)
    assert Device.parse(device.to_json(), "a device") == device


def test_compute_capabilities_compare_by_number() -> None:
    assert gpu(10, 0).at_least(8, 9)
    assert gpu(8, 9).at_least(8, 9)
    assert not gpu(8, 6).at_least(8, 9)
    assert not Device(kind="cpu", name="x", memory_bytes=1).at_least(0)


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("1", ["4090"]),
        ("1,0", ["4090", "3060"]),
        ("GPU-4090", ["4090"]),
        ("GPU-4090, GPU-306", ["4090", "3060"]),
        ("", []),
        ("0,7,1", ["3060"]),
        ("-1", []),
        ("0,0", []),
        ("GPU-", []),
    ],
)
def test_gpus_are_counted_as_torch_counts_those_that_are_visible(
    monkeypatch: pytest.MonkeyPatch, visible: str, names: list[str]
) -> None:
    machines.two_cards().install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = [device for device in find_devices() if device.kind == "cuda"]
    assert [device.name[-4:] for device in found] == names
    assert [device.index for device in found] == list(range(len(names)))
