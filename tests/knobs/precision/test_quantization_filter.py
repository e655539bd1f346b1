"""quantization_filter: which shapes each filter takes."""

import pytest
from conftest import make_target
from live import configured

from autotune.knobs import find_knob
from autotune.knobs.precision._linear_layers import SDXL_LEFT_OUT, selected
from autotune.pipelines.inspect import traits_of
from autotune.pipelines.locate import ARCHITECTURES

KNOB = find_knob("quantization_filter")
SHAPES = [(8, 8), (64, 512), (512, 512), (1280, 1280), (640, 5120)]


def test_all_takes_every_layer() -> None:
    assert all(selected("all", shape) for shape in SHAPES)


@pytest.mark.parametrize(("filter", "taken"), [("min_features:8", 5), ("min_features:512", 3), ("min_features:513", 2)])
def test_a_least_width_holds_for_both_sides(filter: str, taken: int) -> None:
    assert [shape for shape in SHAPES if selected(filter, shape)] == SHAPES[-taken:]


def test_the_sdxl_filter_leaves_out_its_list_and_the_narrowest() -> None:
    assert not any(selected("sdxl", shape) for shape in SDXL_LEFT_OUT)
    assert not selected("sdxl", (16, 4096))
    assert selected("sdxl", (1280, 1280))
    assert selected("sdxl", (17, 1))


def test_the_sdxl_filter_takes_some_of_sdxl_and_leaves_some() -> None:
    traits = traits_of(configured(ARCHITECTURES / "sdxl"), rehearsed=False)
    taken = [shape for shape in traits.linear_shapes if selected("sdxl", shape)]
    assert 0 < len(taken) < len(traits.linear_shapes)
    assert KNOB.why_not("sdxl", make_target(**traits.model_dump())) is None


def test_a_filter_that_makes_no_difference_is_refused() -> None:
    target = make_target(linear_shapes=((64, 64), (128, 1024)))
    assert KNOB.why_not("min_features:512", target) == "selects none of this denoiser's linear layers"
    assert KNOB.why_not("min_features:64", target) == "selects every linear layer, as 'all' does"
    assert KNOB.why_not("min_features:128", target) is None
    assert KNOB.why_not("all", target) is None


def test_the_list_of_sdxl_is_for_sdxl() -> None:
    target = make_target(linear_shapes=((640, 640), (1280, 1280)))
    assert KNOB.why_not("sdxl", target) == "is a list of layer shapes of SDXL"


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("min_features:1", True),
        ("min_features:4096", True),
        ("min_features:0", False),
        ("min_features:-8", False),
        ("min_features:", False),
        ("min_features:many", False),
        ("min_features:²", False),
        ("max_features:8", False),
        (512, False),
    ],
)
def test_any_positive_width_is_a_value(value: str | int, is_one: bool) -> None:
    assert KNOB.accepts(value) == is_one
