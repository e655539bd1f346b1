"""dtype: the weights have the format that was asked for, from loading on."""

import pytest
import torch
from conftest import CPU, gpu, make_target
from live import built, difference, loaded, picture

from autotune.knobs import complete, find_knob

KNOB = find_knob("dtype")


@pytest.mark.parametrize(("value", "format"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_every_model_has_the_format_asked_for(value: str, format: torch.dtype) -> None:
    pipe, effects = built(dtype=value)
    models = [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
    assert len(models) == 3
    assert {p.dtype for m in models for p in m.parameters()} == {format}
    assert effects["dtype"].count == sum(p.numel() for p in pipe.unet.parameters())


def test_fp16_is_asked_of_the_loading_even_where_a_cpu_refuses_to_compute_in_it() -> None:
    assert {p.dtype for p in loaded(dtype="fp16").unet.parameters()} == {torch.float16}


def test_applied_to_a_pipe_loaded_otherwise_it_counts_nothing_and_casts_nothing() -> None:
    pipe = loaded()
    assert KNOB.apply is not None
    assert KNOB.apply(pipe, complete({"dtype": "bf16"}), "cpu").count == 0
    assert {p.dtype for p in pipe.unet.parameters()} == {torch.float32}


def test_bfloat16_draws_nearly_the_same_picture() -> None:
    fine, coarse = picture(built()[0]), picture(built(dtype="bf16")[0])
    assert 0 < difference(fine, coarse) < 0.1


def test_formats_are_refused_where_they_are_emulated() -> None:
    assert KNOB.why_not("fp16", make_target(CPU)) == "diffusers does not support float16 on a CPU"
    assert "8.0" in str(KNOB.why_not("bf16", make_target(gpu(7, 5))))
    assert KNOB.why_not("bf16", make_target(gpu(8, 0))) is None
    assert KNOB.why_not("bf16", make_target(CPU)) is None
    assert KNOB.why_not("fp16", make_target(gpu(7, 0))) is None


def test_bfloat16_is_not_worth_trying_where_the_probe_has_found_it_slow() -> None:
    slow = make_target(CPU.model_copy(update={"bfloat16_fault": "it takes long here"}))
    assert KNOB.not_worth_trying("bf16", slow) == "it takes long here"
    assert KNOB.why_not("bf16", slow) is None
    assert KNOB.not_worth_trying("fp32", slow) is None
    assert KNOB.not_worth_trying("bf16", make_target(CPU)) is None
