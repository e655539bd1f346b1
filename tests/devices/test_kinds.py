"""AMD, Apple and Intel GPUs, by fakes of what the kernel and torch would say: none of this was run on one.

Nothing outside the devices' folder asks for a kind of device by its name.
"""

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import machines
import pynvml
import pytest
import torch
from conftest import logged_warnings, make_target

import autotune
from autotune.device import Device
from autotune.devices import KINDS, environment, find_device, find_devices, kind, mps, rocm, torch_name, xpu
from autotune.devices.kind import chosen, torch_built_for
from autotune.devices.probe import probe_device
from autotune.errors import UserError
from autotune.knobs import all_knobs

ROOT = Path(autotune.__file__).parent
MI300X = {"simd_count": 1216, "gfx_target_version": 90402, "unique_id": 0x4B2C_0000_0000_00AF}
PROCESSOR = {"simd_count": 0, "cpu_cores_count": 96, "gfx_target_version": 0}


@pytest.fixture(autouse=True)
def no_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml, _ = machines.Machine([], "").install(monkeypatch)
    nvml.fails = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    for name in (rocm.BY_ROCR, rocm.BY_HIP, xpu.SELECTOR):
        monkeypatch.delenv(name, raising=False)


def built_for(monkeypatch: pytest.MonkeyPatch, *what: str) -> None:
    for module in (rocm, xpu):
        monkeypatch.setattr(module, "torch_built_for", lambda: set(what))


@pytest.fixture
def two_amd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nodes = [PROCESSOR, MI300X, {**MI300X, "unique_id": 0xBEEF}]
    for number, told in enumerate(nodes):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "properties").write_text("".join(f"{k} {v}\n" for k, v in told.items()))
    monkeypatch.setattr(rocm, "NODES", tmp_path)
    built_for(monkeypatch, "hip")


@pytest.mark.usefixtures("two_amd")
def test_amd_gpus_are_found_by_the_kernels_files(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, processor = find_devices()
    assert (first.kind, first.name, first.word, first.torch_name) == ("rocm", "AMD gfx942", "cuda:0", "cuda:0")
    assert (first.uuid, second.uuid) == ("GPU-4b2c0000000000af", "GPU-000000000000beef")
    assert find_device("cuda:1") == second
    assert find_device("GPU-0000") == second
    assert processor.kind == "cpu"
    assert environment(second) == {
        "ROCR_VISIBLE_DEVICES": second.uuid,
        "HIP_VISIBLE_DEVICES": "0",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    assert [device.uuid for device in find_devices()] == [second.uuid, None]
    assert environment(second.model_copy(update={"uuid": None, "index": 0}))["HIP_VISIBLE_DEVICES"] == "1"


@pytest.mark.usefixtures("two_amd")
def test_an_amd_gpu_with_another_build_of_torch_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    built_for(monkeypatch, "cuda")
    assert find_device(None).kind == "cpu"
    assert logged_warnings(caplog) == [
        "no GPU is used, the processor is: AMD gfx942 is here, but this torch is no ROCm build."
    ]
    with pytest.raises(UserError, match=r"this torch is no ROCm build\); use --device cpu"):
        find_device("cuda")


@pytest.mark.usefixtures("two_amd")
def test_torch_describes_an_amd_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    told = SimpleNamespace(name="AMD Instinct MI300X", total_memory=206_141_652_992, multi_processor_count=304)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: told)
    monkeypatch.setattr(rocm, "fault_on_gpu", lambda name, by_trial: None)
    probed = probe_device(find_device("cuda:1"))
    assert (probed.name, probed.memory_bytes) == ("AMD Instinct MI300X", 206_141_652_992)
    assert "autotune was never run on an AMD GPU" in probed.evidence
    refused = {name: knob for name, knob in all_knobs().items() if knob.why_not(knob.default, make_target(probed))}
    assert refused == {}, "a knob's default is possible everywhere"
    assert "NVIDIA" in str(all_knobs()["compile_mode"].why_not("max-autotune", make_target(probed)))
    assert all_knobs()["dtype"].why_not("bf16", make_target(probed)) is None


def test_an_apple_gpu_shares_the_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(mps.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(mps, "_brand", lambda: "Apple M3 Max")
    found = find_device(None)
    assert (found.name, found.word, found.torch_name) == ("Apple M3 Max", "mps", "mps")
    assert found.memory_bytes == find_device("cpu").memory_bytes
    assert environment(found) == {}
    with pytest.raises(UserError, match=r"Apple M3 Max: this torch .* can't use its GPU"):
        probe_device(found)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    probed = probe_device(found)
    assert "prototype" in str(all_knobs()["compile"].why_not("denoiser", make_target(probed)))
    assert "shares the machine's memory" in str(all_knobs()["offload"].why_not("model", make_target(probed)))


def test_an_intel_gpu_counts_where_torch_was_built_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for card, vendor in {"card0": "0x10de", "card1": "0x8086", "card1-HDMI-A-1": "0x8086"}.items():
        (tmp_path / card / "device").mkdir(parents=True)
        (tmp_path / card / "device" / "vendor").write_text(f"{vendor}\n")
        (tmp_path / card / "device" / "device").write_text("0x56a0\n")
    monkeypatch.setattr(xpu, "CARDS", tmp_path)
    assert [device.kind for device in find_devices()] == ["cpu"], "a laptop's graphics"
    built_for(monkeypatch, "xpu")
    found = find_device("xpu")
    assert (found.name, found.word) == ("Intel GPU 0x56a0", "xpu:0")
    assert environment(found) == {"ZE_AFFINITY_MASK": "0"}
    told = SimpleNamespace(name="Intel(R) Arc(TM) A770", total_memory=16 * 2**30, is_integrated_gpu=False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 1)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda name: told)
    monkeypatch.setattr(xpu, "fault_on_gpu", lambda name, by_trial: None)
    probed = probe_device(found)
    assert (probed.name, probed.memory_bytes, torch_name(probed)) == (told.name, told.total_memory, "xpu:0")


def test_what_torch_was_built_for_is_read_without_loading_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = {name for name in ("cuda", "hip", "xpu") if getattr(torch.version, name) is not None}
    assert torch_built_for() == own
    version = "cuda: Optional[str] = None\nhip: Optional[str] = '6.4.43482'\nrocm: Optional[str] = '6.4'\nxpu = None\n"
    (tmp_path / "version.py").write_text(version)
    origin = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: origin)
    assert torch_built_for() == {"hip"}
    assert kind.torch_built_for is torch_built_for


@pytest.mark.parametrize(
    ("entries", "places"),
    [(None, None), ("", []), ("1", [1]), ("1,0", [1, 0]), ("0,9,1", [0]), ("b", [1]), ("a", []), ("0,0", [])],
)
def test_a_variable_chooses_devices_as_cuda_has_it(entries: str | None, places: list[int] | None) -> None:
    """By position or by the beginning of a UUID; "a" begins two."""
    assert chosen(entries, ["ab", "b", "ac", None]) == places


def questions(source: str) -> list[str]:
    """Comparisons with the name of a kind of device, such as `device.kind == "cuda"`."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and ast.unparse(node.left).endswith("device.kind")
        and any(isinstance(part, ast.Constant) for part in node.comparators)
    ]


def test_nothing_outside_the_devices_asks_for_a_kind_by_its_name() -> None:
    assert questions('if target.device.kind == "cuda": pass') == ["target.device.kind == 'cuda'"], "a test of the test"
    files = {file: file.read_text() for file in ROOT.rglob("*.py") if file.parent.name != "devices"}
    asking = {file: questions(source) for file, source in files.items() if "device.kind" in source}
    assert {str(file.relative_to(ROOT)): found for file, found in asking.items() if found} == {}


def test_every_kind_names_its_devices_by_its_own_name() -> None:
    for name, one in KINDS.items():
        assert one.name == name
        assert all(device.kind == name for device in one.find().devices)
        made_up = Device(kind=name, name="", memory_bytes=0, index=1)
        assert made_up.torch_name.partition(":")[0] in ("cpu", "cuda", "xpu", "mps")
