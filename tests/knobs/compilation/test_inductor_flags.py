"""inductor_flags: named sets of settings that Inductor has, handed to it whole."""

from pathlib import Path

import pytest
from conftest import CPU, gpu, make_target

from autotune.knobs import find_knob
from autotune.knobs.compilation._inductor import FLAGS, _unread, flags_of, unread

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


def test_every_flag_that_is_set_is_read_by_the_installed_inductor() -> None:
    """torch 2.13 has a function that reads force_fuse_int_mm_with_mul, and nothing calls it."""
    flags = flags_of("fast_diffusion")
    assert set(FLAGS["fast_diffusion"]) - set(flags) == unread(FLAGS["fast_diffusion"])
    assert "force_fuse_int_mm_with_mul" not in flags
    assert {"conv_1x1_as_mm", "coordinate_descent_tuning", "epilogue_fusion"} <= set(flags)


def test_a_flag_is_read_where_code_that_is_named_reads_it(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("dead = True\nlive = True\nunknown = True\nat_the_top = True\n")
    (tmp_path / "passes.py").write_text(
        "def forgotten():\n    return config.dead\n\ndef used():\n    return config.live\n\n"
        "register(extra_check=used)\nWHERE = config.at_the_top\n"
    )
    assert _unread(tmp_path, frozenset({"dead", "live", "unknown", "at_the_top"})) == {"dead", "unknown"}


@pytest.mark.parametrize("value", [value for value in FLAGS if value not in ("default", "fast_diffusion")])
def test_the_installed_inductor_reads_every_flag_of_our_own_sets_and_none_is_its_default(value: str) -> None:
    import torch._inductor.config as inductor

    assert flags_of(value) == FLAGS[value]
    defaults = inductor.get_config_copy()
    assert all(defaults[name] != setting for name, setting in FLAGS[value].items())
