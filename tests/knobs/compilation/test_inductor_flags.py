"""inductor_flags: named sets of settings that Inductor has, handed to it whole."""

from conftest import CPU, gpu, make_target

from autotune.knobs import find_knob
from autotune.knobs.compilation.compile import FLAGS

KNOB = find_knob("inductor_flags")


def test_every_value_is_a_set_of_flags() -> None:
    assert KNOB.values == tuple(FLAGS)
    assert FLAGS["default"] == {}


def test_inductor_has_every_flag() -> None:
    import torch._inductor.config as inductor

    names = {name for flags in FLAGS.values() for name in flags}
    assert names
    assert names <= set(inductor.get_config_copy())


def test_the_flags_are_refused_without_a_gpu() -> None:
    assert KNOB.why_not("fast_diffusion", make_target(CPU)) == (
        "sets options of Triton kernels, which need an NVIDIA GPU"
    )
    assert KNOB.why_not("fast_diffusion", make_target(gpu(8, 0))) is None
