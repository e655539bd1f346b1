"""What torch says of a processor, and why torch.compile can't be used on it."""

from importlib.metadata import PackageNotFoundError

import pytest
import torch
from conftest import CPU

from autotune.devices import cpu, probe
from autotune.devices.probe import probe_device, versions


def test_a_processor_has_the_kernels_that_torch_has_for_it() -> None:
    found = probe_device(CPU)
    assert found.sdpa_kernels == ("flash", "math")
    assert found.compile_fault is None
    assert found.evidence[-1].startswith(f"torch {torch.__version__} with ")


@pytest.mark.parametrize(("half_s", "slow"), [(0.3, False), (3.0, False), (5.0, True)])
def test_bfloat16_is_slow_where_a_layer_takes_four_times_as_long(
    monkeypatch: pytest.MonkeyPatch, half_s: float, slow: bool
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(cpu, "_seconds", lambda layer, given: half_s if given.dtype == torch.bfloat16 else 1.0)
    assert (probe_device(CPU, by_trial=True).bfloat16_fault is not None) == slow
    assert probe_device(CPU).bfloat16_fault is None  # nothing is timed in the user's own process
    assert torch.get_num_threads() == threads


def test_both_formats_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = list[tuple[torch.dtype, float]]()
    timed = cpu._seconds
    monkeypatch.setattr(cpu, "_seconds", lambda layer, given: taken.append((given.dtype, timed(layer, given))) or 1.0)
    assert cpu.bfloat16_fault() is None
    assert [format for format, _ in taken] == [torch.float32, torch.bfloat16] * 2
    assert all(0 < seconds < 5 for _, seconds in taken)


def test_no_compiler_is_a_reason_not_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert probe_device(CPU).compile_fault == "torch.compile needs a C++ compiler, and there is no no-such-compiler"


def test_a_space_in_torchs_path_is_a_reason_not_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__file__", "/home/a user/torch/__init__.py")
    fault = probe_device(CPU).compile_fault
    assert fault is not None
    assert "a space in its name" in fault


def test_versions_are_of_what_makes_the_pictures() -> None:
    assert versions()["torch"] == torch.__version__
    assert {"python", "diffusers", "transformers", "torchao", "tomesd", "peft", "DeepCache"} <= versions().keys()


def test_optional_packages_are_named_where_they_are_installed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"flash-attn": "2.8.3", "sageattention": "2.2.0"}

    def version(name: str) -> str:
        if name in ("xformers", "kernels"):
            raise PackageNotFoundError(name)
        return installed.get(name, "1.0")

    monkeypatch.setattr(probe, "version", version)
    assert installed.items() <= versions().items()
    assert not {"xformers", "kernels"} & versions().keys()
