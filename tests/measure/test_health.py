"""Broken pictures are caught, whatever they are; good ones pass."""

import random
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

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


def drawn(count: int = 2240, seed: int = 0) -> list[Image.Image]:
    """Scenes spread over all of them, neighbours among them."""
    scenes = list(all_scenes())
    return [Image.fromarray(np.asarray(render(s, random.Random(seed)))) for s in scenes[:: len(scenes) // count]]


def black(good: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 5, good.shape)


def one_colour(good: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(rng.integers(10, 256, 3), good.shape) + rng.integers(0, 3, good.shape)


def another_size(good: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows, columns = rng.integers(8, 64, 2)
    return good[:rows, :columns]


def salt(good: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise far beyond the range, in each channel by itself or in all alike."""
    channels = int(rng.choice([1, 3]))
    noise = rng.normal(128, rng.uniform(200, 2000), (*good.shape[:2], channels))
    return np.repeat(noise, 3 // channels, axis=2)


def repeated(good: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture before it, bit for bit or with the last bit trembling."""
    return good + rng.integers(-1, 2, good.shape) * rng.integers(0, 2)


CORRUPTIONS = {
    black: "is black",
    one_colour: "is one flat colour",
    another_size: "not 64x64",
    salt: "is saturated noise",
    repeated: "the same as picture",
}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_every_corruption_of_one_picture_among_good_ones_is_caught(corrupt: Any, seed: int) -> None:
    """Promise 15, with the NaN below: six kinds, several seeds, all of them."""
    rng = np.random.default_rng(seed)
    images = drawn(16, seed)
    at = int(rng.integers(1, len(images)))
    spoiled = corrupt(np.asarray(images[at - 1 if corrupt is repeated else at], dtype=float), rng)
    images[at] = Image.fromarray(np.clip(spoiled, 0, 255).astype(np.uint8))
    with pytest.raises(BrokenOutput, match=f"picture {at} .*{CORRUPTIONS[corrupt]}"):
        check_pictures(images, width=64, height=64, may_be_flat=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("seed", range(8))
def test_a_single_pixel_that_is_no_number_is_caught(seed: int, value: float) -> None:
    """Promise 15."""
    rng = np.random.default_rng(seed)
    picture = rng.uniform(0, 255, (64, 64, 3)).astype(np.float32)
    picture[tuple(rng.integers(0, 64, 2))] = value
    with pytest.raises(BrokenOutput, match="NaN"), no_silent_nan():
        picture.astype("uint8")


def test_no_scene_that_the_demo_knows_is_broken_nor_a_repetition_of_another() -> None:
    """Promise 15, the other half. All 2,240, with the same jitter: neighbours differ by the shape or a colour alone."""
    assert check_pictures(drawn(), width=64, height=64, may_be_flat=False) is None


def gradient(rng: np.random.Generator, brightness: float = 1.0) -> Image.Image:
    """As skies and walls are: a slow gradient with a little grain."""
    y, x = np.mgrid[0:64, 0:64] / 64
    slopes = rng.uniform(-120, 120, (2, 3))
    plane = 128 + y[..., None] * slopes[0] + x[..., None] * slopes[1] + rng.normal(0, 2, (64, 64, 3))
    return Image.fromarray(np.clip(plane * brightness, 0, 255).astype(np.uint8))


def line_art(rng: np.random.Generator) -> Image.Image:
    """Pure black on pure white: saturated everywhere, and a picture."""
    canvas = Image.new("RGB", (64, 64), "white")
    for _ in range(12):
        ImageDraw.Draw(canvas).line([*map(int, rng.integers(0, 64, 4))], fill="black", width=2)
    return canvas


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "make", [gradient, line_art, lambda rng: gradient(rng, 0.1)], ids=["gradients", "line art", "dark pictures"]
)
def test_unusual_pictures_are_pictures(make: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert check_pictures([make(rng) for _ in range(16)], width=64, height=64, may_be_flat=False) is None


def test_a_picture_of_stars_at_night_is_not_black() -> None:
    night = np.zeros((64, 64, 3), np.uint8)
    night[tuple(np.random.default_rng(0).integers(0, 64, (2, 40)))] = 200
    check(Image.fromarray(night))


def test_the_same_prompt_and_seed_may_draw_the_same_picture_twice() -> None:
    images = drawn(16)[:2] * 2
    check_pictures(images, width=64, height=64, may_be_flat=False, made_from=["a", "b", "a", "b"])
    with pytest.raises(BrokenOutput, match="picture 2 is the same as picture 0, which has another prompt or seed"):
        check_pictures(images, width=64, height=64, may_be_flat=False, made_from=["a", "b", "c", "b"])


def test_pictures_made_from_one_picture_may_be_nearly_the_same_but_not_the_same() -> None:
    one = np.asarray(drawn(16)[0]).copy()
    other = one.copy()
    other[0, 0] ^= 1
    images = [Image.fromarray(one), Image.fromarray(other)]
    size = {"width": 64, "height": 64, "may_be_flat": False}
    check_pictures(images, **size, one_start=True)
    with pytest.raises(BrokenOutput, match="nearly the same"):
        check_pictures(images, **size)
    with pytest.raises(BrokenOutput, match="1 is the same"):
        check_pictures([images[0]] * 2, **size, one_start=True)


def test_large_pictures_are_compared_too() -> None:
    large = [image.resize((512, 384), Image.Resampling.BICUBIC) for image in drawn(16)]
    check_pictures(large, width=512, height=384, may_be_flat=False)
    with pytest.raises(BrokenOutput, match="picture 16 is the same as picture 3"):
        check_pictures([*large, large[3]], width=512, height=384, may_be_flat=False)
