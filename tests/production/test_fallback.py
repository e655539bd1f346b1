"""A value that is not available here is replaced by the nearest that every rule allows, with the reason."""

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, gpu, logged_warnings, make_target
from made_up import measured, record

import autotune
from autotune import demo
from autotune.config import Value
from autotune.device import Device
from autotune.devices import find_device, probe
from autotune.devices.probe import versions
from autotune.errors import UserError
from autotune.knobs import all_knobs, complete
from autotune.pipelines.locate import revision_of
from autotune.production.fallback import fit
from autotune.production.fingerprint import device_differences, find_place, version_differences
from autotune.production.tuned_config import TunedConfig
from autotune.study.space import SearchSpace
from autotune.target import Target
from autotune.tuning.export import export

H200 = Device(
    kind="cuda",
    name="NVIDIA H200",
    memory_bytes=150_754_820_096,
    compute_capability=(9, 0),
    multiprocessors=132,
    driver="580.65.06",
    sdpa_kernels=("flash", "efficient", "cudnn", "math"),
)
FAST: dict[str, Value] = {
    "dtype": "bf16",
    "quantization": "fp8_dynamic",
    "compile": "denoiser",
    "compile_mode": "reduce-overhead",
    "inductor_flags": "fast_diffusion",
    "attention": "sdpa_cudnn",
    "qkv_fusion": True,
    "memory_format": "channels_last",
    "scheduler_sync": "avoided",
    "steps": 3,
}


def replaced(target: Target, **values: Value) -> dict[str, Value]:
    return {replacement.knob: replacement.used for replacement in fit(complete(values), target)[1]}


def test_where_every_value_is_available_nothing_is_replaced() -> None:
    config = complete(FAST)
    assert fit(config, make_target(H200)) == (config, ())


@pytest.mark.parametrize(
    ("device", "values", "used"),
    [
        (gpu(8, 0), {"quantization": "fp8_dynamic"}, {"quantization": "fp8_weight_only"}),
        (CPU, {"quantization": "fp8_dynamic"}, {"quantization": "fp8_weight_only"}),
        (CPU, {"dtype": "fp16"}, {"dtype": "bf16"}),
        (gpu(7, 5), {"dtype": "bf16"}, {"dtype": "fp32"}),
        (CPU, {"tf32": "on"}, {"tf32": "convolutions"}),
        (CPU, {"offload": "model"}, {"offload": "none"}),
        (CPU, {"attention": "xformers", "dtype": "bf16"}, {"attention": "sdpa"}),
        (CPU, {"attention": "sdpa_flash", "dtype": "bf16"}, {"attention": "sdpa"}),
        (CPU, {"compile": "denoiser", "compile_mode": "max-autotune"}, {"compile_mode": "max-autotune-no-cudagraphs"}),
        (
            gpu(8, 6, multiprocessors=30),
            {"compile": "denoiser", "compile_mode": "max-autotune"},
            {"compile_mode": "reduce-overhead"},
        ),
    ],
)
def test_the_nearest_available_value_is_used(device: Device, values: dict[str, Value], used: dict[str, Value]) -> None:
    assert replaced(make_target(device), **values) == used


def test_where_nothing_can_be_compiled_the_modifiers_go_too() -> None:
    without_compiler = CPU.model_copy(update={"compile_fault": "there is no g++"})
    config, replacements = fit(complete({"compile": "regional", "dtype": "bf16"}), make_target(without_compiler))
    assert "compile_mode" not in config
    assert [str(replacement) for replacement in replacements] == [
        "compile=off instead of compile=regional: there is no g++"
    ]


def test_a_clash_that_a_replacement_brings_is_resolved_as_well() -> None:
    """On a T4, bfloat16 becomes float32, for which the forced kernel can't run."""
    config, replacements = fit(complete({"dtype": "bf16", "attention": "sdpa_cudnn"}), make_target(gpu(7, 5)))
    assert (config["dtype"], config["attention"]) == ("fp32", "sdpa")
    assert [replacement.knob for replacement in replacements] == ["dtype", "attention"]


DEVICES = (CPU, gpu(7, 0), gpu(7, 5), gpu(8, 0), gpu(8, 9), H200)


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d.name)
def test_whatever_is_requested_the_replacement_is_allowed_in_a_search(device: Device) -> None:
    """Every pair of values, on every device: the rules of a search allow the result, and fitting it changes nothing."""
    target = make_target(device)
    space = SearchSpace(target, {name: knob.values for name, knob in all_knobs().items()})
    changes = [(k.name, v) for k in all_knobs().values() for v in k.values[1:]]
    for number, (name, value) in enumerate(changes):
        for other, other_value in changes[number % 3 :: 3]:
            modified = [m for m in (all_knobs()[name].modifies, all_knobs()[other].modifies) if m]
            config = complete({**{m: all_knobs()[m].values[1] for m in modified}, other: other_value, name: value})
            fitted, replacements = fit(config, target)
            assert space.objection(fitted) is None
            assert fit(fitted, target) == (fitted, ())
            assert all(r.requested != r.used and r.why for r in replacements)


def recorded(folder: Path, device: Device = H200, **values: Value) -> Path:
    """A file as a search for the demo on this device would write it."""
    target = make_target(device)
    pipeline = target.pipeline.model_copy(update={"revision": revision_of(demo.PIPELINE)})
    workload = target.workload.model_copy(update={"steps": 4})
    target = target.model_copy(update={"pipeline": pipeline, "workload": workload, "versions": versions()})
    export(record(target), measured(1, values, latency_s=0.5), measured(0), None).save(folder / "best.json")
    return folder / "best.json"


def test_a_config_of_an_h200_loads_on_this_processor_and_every_replacement_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recorded(tmp_path, **{**FAST, "compile": "off", "compile_mode": "default", "inductor_flags": "default"})
    pipe = autotune.load(path, device="cpu", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a small blue star").images[0].size == (64, 64)
    here = find_device("cpu").name
    assert logged_warnings(caplog) == [
        f"this config was measured on NVIDIA H200, this is {here}: its numbers don't hold here.",
        "quantization=fp8_weight_only instead of quantization=fp8_dynamic: needs an NVIDIA GPU of compute capability "
        "8.9.",
        "scheduler_sync=default instead of scheduler_sync=avoided: needs an NVIDIA GPU: there is none to wait for.",
        "attention=sdpa instead of attention=sdpa_cudnn: torch has no cudnn kernel for this device.",
    ]


def test_strict_raises_naming_all_of_it_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        autotune.load(recorded(tmp_path, **FAST), strict=True)
    said = str(caught.value)
    for word in (
        "measured on NVIDIA H200",
        "fp8_dynamic",
        "reduce-overhead",
        "fast_diffusion",
        "sdpa_cudnn",
        "avoided",
    ):
        assert word in said


def test_other_versions_are_one_warning_and_the_config_is_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recorded(tmp_path, find_device("cpu"), qkv_fusion=True)
    data = json.loads(path.read_text())
    data["versions"] |= {"torch": "2.11.0", "xformers": "0.0.30"}
    path.write_text(json.dumps(data))
    pipe = autotune.load(path)
    assert pipe.unet.down_blocks[-1].attentions[0].transformer_blocks[0].attn1.fused_projections
    [message] = logged_warnings(caplog)
    assert message.startswith("measured with other versions (torch 2.")
    assert "xformers missing instead of 0.0.30" in message
    with pytest.raises(UserError, match="with strict=True nothing may differ: measured with other versions"):
        autotune.load(path, strict=True)


def test_only_what_matters_of_a_device_is_a_difference() -> None:
    same = H200.model_copy(
        update={"index": 3, "driver": "1", "evidence": ("x",), "memory_bytes": H200.memory_bytes - 2**30}
    )
    assert device_differences(H200, same) == []
    assert "its numbers don't hold" in device_differences(H200, gpu(9, 0))[0]
    [memory] = device_differences(H200, H200.model_copy(update={"memory_bytes": H200.memory_bytes // 2}))
    assert memory == "this NVIDIA H200 has 75.4 GB of memory, the one that was measured 150.8 GB."
    cpu = Device(kind="cpu", name="a processor", memory_bytes=2**34, cores=2)
    [cores] = device_differences(cpu, cpu.model_copy(update={"cores": 1}))
    assert cores == "this config was measured on 2 cores, here 1 can be used: its numbers don't hold."
    [capability] = device_differences(H200, H200.model_copy(update={"compute_capability": (8, 9)}))
    assert "has compute capability 8.9, the one that was measured 9.0" in capability


def test_a_library_that_is_new_here_is_no_difference() -> None:
    assert version_differences({"torch": "2.13.0"}, {"torch": "2.13.0", "xformers": "1"}) == []


def test_other_files_in_the_folder_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = recorded(tmp_path, find_device("cpu"))
    data: dict[str, Any] = json.loads(path.read_text())
    data["pipeline"]["revision"] = "files-000000000000"
    path.write_text(json.dumps(data))
    autotune.load(path)
    assert "the files of demo are not those that were measured." in logged_warnings(caplog)


def test_an_edited_config_says_so_when_it_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = recorded(tmp_path, find_device("cpu"), qkv_fusion=True)
    data = json.loads(path.read_text())
    data["knobs"]["qkv_fusion"] = False
    path.write_text(json.dumps(data))
    TunedConfig.load(path).pipeline_on("cpu")
    assert logged_warnings(caplog) == ["this config was edited after it was measured: its numbers are of another one."]


@pytest.mark.parametrize(
    ("package", "values", "used"),
    [
        ("torchao", {"quantization": "int8_weight_only"}, {"quantization": "none"}),
        ("torchao", {"conv1x1_as_linear": True}, {"conv1x1_as_linear": False}),
        ("tomesd", {"tome_ratio": 0.5}, {"tome_ratio": 0.0}),
        ("DeepCache", {"cache": "deepcache:3"}, {"cache": "none"}),
    ],
)
def test_a_missing_package_falls_back(
    package: str, values: dict[str, Value], used: dict[str, Value], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recorded(tmp_path, find_device("cpu"), **values)
    own = probe.version

    def version(name: str) -> str:
        if name == package:
            raise PackageNotFoundError(name)
        return own(name)

    monkeypatch.setattr(probe, "version", version)
    place = find_place(TunedConfig.load(path).target, TunedConfig.load(path).config, "cpu")
    [(name, value)] = used.items()
    assert place.config[name] == value
    assert any(f"{package} missing instead of" in said for said in place.differences)
    missing = f"the package {package} is not installed: pip install {package}"
    assert f"{name}={value} instead of {name}={values[name]}: {missing}." in place.differences


@pytest.mark.parametrize(
    "error", [RuntimeError("built for another torch\nsee the log"), OSError("libc10.so: not found")]
)
def test_a_package_that_is_broken_falls_back_as_a_missing_one_does(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def import_module(name: str) -> None:
        asked.append(name)
        raise error

    monkeypatch.setattr(probe, "import_module", import_module)
    tuned = TunedConfig.load(recorded(tmp_path, find_device("cpu"), quantization="int8_weight_only"))
    place = find_place(tuned.target, tuned.config, "cpu")
    assert place.config["quantization"] == "none"
    said = str(error).splitlines()[0]
    why = f"the package torchao can't be imported ({type(error).__name__}: {said})"
    assert f"quantization=none instead of quantization=int8_weight_only: {why}." in place.differences
    assert asked == ["torchao.quantization"]
    plain = TunedConfig.load(recorded(tmp_path, find_device("cpu"), qkv_fusion=True))
    assert find_place(plain.target, plain.config, "cpu").differences == ()
    assert len(asked) == 1, "a config that does without is not asked"
