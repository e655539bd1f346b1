"""kernels: settings of the process are as asked for, and are refused where nothing would read them. Fakes for GPUs."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import CPU, gpu, make_target
from live import loaded

from autotune.device import Device
from autotune.knobs import complete, find_knob

ROCM = Device(kind="rocm", name="a test's AMD GPU", memory_bytes=2**36)
A100 = make_target(gpu(8, 0), vae_convolutions=20)
SWITCHES = ("fp16_accumulation", "cudnn_benchmark", "tunable_op", "reduced_sums")
ON = {"fp16_accumulation": True, "cudnn_benchmark": True, "tunable_op": True, "reduced_sums": "off"}
DTYPE = {"fp16_accumulation": "fp16", "reduced_sums": "bf16"}  # with which they act


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The settings are the process's: the tests after these must not see them."""
    products, names = torch.backends.cuda.matmul, ("allow_fp16_accumulation", *REDUCED.values())
    before = {name: getattr(products, name) for name in names}
    benchmark = torch.backends.cudnn.benchmark
    yield
    for name, value in before.items():
        setattr(products, name, value)
    torch.backends.cudnn.benchmark = benchmark


REDUCED = {dtype: f"allow_{dtype}_reduced_precision_reduction" for dtype in ("fp16", "bf16")}


class Tunable:
    """torch.cuda.tunable as on a build for AMD GPUs: this machine's torch has none of its functions."""

    def __init__(self) -> None:
        self.on = self.tuning = False
        self.results: list[Any] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fakes = {
            "enable": lambda on: setattr(self, "on", on),
            "tuning_enable": lambda on: setattr(self, "tuning", on),
            "is_enabled": lambda: self.on,
            "tuning_is_enabled": lambda: self.tuning,
            "get_results": lambda: self.results,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda.tunable, name, fake)


@pytest.mark.parametrize("name", SWITCHES)
def test_the_default_is_what_torch_does_and_a_processor_has_no_such_kernels(name: str) -> None:
    knob = find_knob(name)
    assert str(knob.why_not(ON[name], make_target(CPU))).count("GPU") == 1
    right = make_target(ROCM) if name == "tunable_op" else A100
    wrong = A100 if name == "tunable_op" else make_target(ROCM)
    assert knob.why_not(ON[name], right) is None
    assert knob.why_not(ON[name], wrong)
    assert knob.clash(complete({name: ON[name], "dtype": DTYPE.get(name, "fp32")}), right) is None


def test_fp16_accumulation_is_set_and_acts_in_float16_alone() -> None:
    knob, config = find_knob("fp16_accumulation"), {"fp16_accumulation": True}
    assert not torch.backends.cuda.matmul.allow_fp16_accumulation
    assert knob.apply is not None
    assert knob.apply(None, complete({**config, "dtype": "fp16"}), "cuda:0").count == 1
    assert torch.backends.cuda.matmul.allow_fp16_accumulation
    for dtype in ("fp32", "bf16"):
        said = knob.clash(complete({**config, "dtype": dtype}), A100)
        assert said == f"nothing is multiplied in float16 with dtype={dtype}, so fp16_accumulation would not act"


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_sums_are_in_float32_for_the_format_that_is_computed(dtype: str) -> None:
    knob, config = find_knob("reduced_sums"), complete({"reduced_sums": "off", "dtype": dtype})
    products = torch.backends.cuda.matmul
    assert all(getattr(products, name) for name in REDUCED.values())  # torch's default
    assert knob.apply is not None
    assert knob.apply(None, config, "cuda:0").count == 1
    assert [d for d, name in REDUCED.items() if not getattr(products, name)] == [dtype]
    assert "would not act" in str(knob.clash(complete({"reduced_sums": "off"}), A100))


def test_cudnn_times_the_convolutions_of_the_pipe_that_has_some() -> None:
    knob, pipe = find_knob("cudnn_benchmark"), loaded()
    assert knob.apply is not None
    effect = knob.apply(pipe, complete({"cudnn_benchmark": True}), "cuda:0")
    assert torch.backends.cudnn.benchmark
    models = (pipe.unet, pipe.vae)
    assert effect.count == sum(isinstance(m, torch.nn.Conv2d) for model in models for m in model.modules()) > 20
    none = make_target(gpu(8, 0), convolutions=0)
    assert knob.why_not(True, none) == "StableDiffusionPipeline has no convolutions"


def test_tunable_op_counts_the_shapes_that_were_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    knob, config, fake = find_knob("tunable_op"), complete({"tunable_op": True}), Tunable()
    fake.install(monkeypatch)
    assert knob.apply is not None
    assert knob.verify is not None
    assert knob.apply(None, config, "cuda:0").count == 1
    assert (fake.on, fake.tuning) == (True, True)
    assert knob.verify(None, config, {}).count == 0  # no effect: nothing was multiplied
    fake.results.append(("GemmTunableOp_half_TN", "tn_64_64_64", "Gemm_Rocblas_1", 0.1))
    assert knob.verify(None, config, {}).count == 1
