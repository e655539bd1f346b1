"""tf32: the settings of the process are as asked for, and only where something computes in float32."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from conftest import CPU, gpu, make_target
from live import loaded

from autotune.knobs import complete, find_knob

KNOB = find_knob("tf32")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The settings are the process's: the tests after these must not see them."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def settings() -> tuple[bool, bool]:
    """TF32 in matrix products, and in convolutions."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_the_default_is_what_torch_does_by_itself() -> None:
    """In a new process: in this one, other tests may have set them."""
    assert KNOB.default == "convolutions"
    ask = "import torch; print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


@pytest.mark.parametrize(("value", "expected"), [("off", (False, False)), ("on", (True, True))])
def test_the_settings_are_those_asked_for_whatever_they_were(value: str, expected: tuple[bool, bool]) -> None:
    assert KNOB.apply is not None
    for _ in range(2):
        assert KNOB.apply(loaded(), complete({"tf32": value}), "cpu").count == 1
        assert settings() == expected


def test_switching_between_them_leaves_nothing_behind() -> None:
    assert KNOB.apply is not None
    for value, expected in (("on", (True, True)), ("off", (False, False)), ("on", (True, True))):
        KNOB.apply(None, complete({"tf32": value}), "cpu")
        assert settings() == expected


@pytest.mark.parametrize("value", ["off", "on"])
def test_it_is_refused_where_there_is_no_tf32(value: str) -> None:
    assert "needs an NVIDIA GPU" in str(KNOB.why_not(value, make_target(CPU)))
    assert "needs compute capability 8.0; this GPU has 7.5" in str(KNOB.why_not(value, make_target(gpu(7, 5))))
    assert KNOB.why_not(value, make_target(gpu(8, 0))) is None


@pytest.mark.parametrize("value", ["off", "on"])
def test_clash_where_nothing_computes_in_float32(value: str) -> None:
    target, upcasting = make_target(gpu(8, 0)), make_target(gpu(8, 0), vae_upcasts_fp16=True)
    for dtype in ("fp16", "bf16"):
        said = KNOB.clash(complete({"tf32": value, "dtype": dtype}), target)
        assert said == f"TF32 concerns float32 only, and nothing is computed in float32 with dtype={dtype}"
    assert KNOB.clash(complete({"tf32": value}), target) is None
    assert KNOB.clash(complete({"tf32": value, "dtype": "fp16"}), upcasting) is None
    assert KNOB.clash(complete({"tf32": value, "dtype": "bf16"}), upcasting)
    assert KNOB.clash(complete({"tf32": value, "dtype": "fp16", "vae": "tiny"}), upcasting)
