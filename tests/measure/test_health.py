"""Broken pictures are caught, whatever they are; good ones pass."""

import random

import numpy as np
import pytest
from PIL import Image

from autotune.demo.shapes import all_scenes, render
from autotune.measure.health import BrokenOutput, check_pictures, no_silent_nan


def check(image: Image.Image, **changes: object) -> None:
    check_pictures([image], **{"width": 64, "height": 64, "may_be_flat": False, **changes})


def flat(value: int) -> Image.Image:
    return Image.new("RGB", (64, 64), (value, value, value))


def noisy(value: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(-2, 3, (64, 64, 3))
    return Image.fromarray(np.clip(value + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (flat(0), "picture 0 is black"),
        (noisy(2), "picture 0 is black"),
        (flat(127), "picture 0 is one flat colour"),
        (flat(255), "picture 0 is one flat colour"),
        (Image.new("RGB", (64, 32)), "picture 0 is 64x32, not 64x64"),
    ],
)
def test_a_broken_picture_is_refused_with_what_it_is(image: Image.Image, says: str) -> None:
    with pytest.raises(BrokenOutput, match=says):
        check(image)


def test_every_picture_is_looked_at() -> None:
    good = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(BrokenOutput, match="picture 1 is black"):
        check_pictures([good, flat(0)], width=64, height=64, may_be_flat=False)


def test_random_weights_may_draw_flat_pictures_but_not_of_another_size() -> None:
    check(flat(127), may_be_flat=True)
    with pytest.raises(BrokenOutput, match="not 64x64"):
        check(Image.new("RGB", (8, 8)), may_be_flat=True)


def test_a_nan_that_becomes_a_pixel_is_refused() -> None:
    with pytest.raises(BrokenOutput, match="NaN"), no_silent_nan():
        np.array([0.5, np.nan]).astype("uint8")


def test_drawn_shapes_are_pictures() -> None:
    drawn = [Image.fromarray(np.asarray(render(scene, random.Random(0)))) for scene in list(all_scenes())[:50]]
    assert check_pictures(drawn, width=64, height=64, may_be_flat=False) is None
