"""The drawn pictures show what their captions say, and the shipped captions can be drawn."""

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from autotune.demo import shapes

ROOT = Path(__file__).parents[2]
DEMO_CAPTIONS = (ROOT / "autotune" / "prompts" / "demo.txt").read_text(encoding="ascii").splitlines()


def nearest_colour(pixel: np.ndarray) -> str:
    """The name of the colour closest to one pixel [3]."""
    return min(shapes.COLOURS, key=lambda name: float(np.abs(pixel - np.array(shapes.COLOURS[name])).sum()))


def area(picture: np.ndarray, colour: str) -> int:
    """How many pixels of a picture [height, width, 3] have exactly that colour."""
    return int((picture == np.array(shapes.COLOURS[colour])).all(-1).sum())


def test_one_seed_draws_one_picture() -> None:
    first, first_caption = shapes.draw(random.Random(7))
    again, again_caption = shapes.draw(random.Random(7))
    assert first_caption == again_caption
    assert np.array_equal(first, again)


def test_a_dataset_starts_alike_whatever_its_length() -> None:
    short, short_captions = shapes.dataset(3, seed=5)
    long, long_captions = shapes.dataset(6, seed=5)
    assert np.array_equal(long[:3], short)
    assert long_captions[:3] == short_captions


def test_two_seeds_draw_different_datasets() -> None:
    assert shapes.dataset(8, seed=0)[1] != shapes.dataset(8, seed=1)[1]


def test_a_picture_is_64_by_64_of_whole_bytes() -> None:
    pictures, captions = shapes.dataset(2, seed=0)
    assert pictures.shape == (2, shapes.SIDE, shapes.SIDE, 3)
    assert pictures.dtype == np.uint8
    assert len(captions) == 2


def test_the_pixel_at_the_place_has_the_named_colour() -> None:
    rng = random.Random(0)
    for scene in shapes.all_scenes():
        right, down = scene.middle
        pixel = shapes.render(scene, rng)[round(down), round(right)]
        assert nearest_colour(pixel) == scene.colour, scene.caption


def test_the_corners_have_the_background_colour() -> None:
    rng = random.Random(0)
    for scene in shapes.all_scenes():
        picture = shapes.render(scene, rng)
        for corner in (picture[0, 0], picture[0, -1], picture[-1, 0], picture[-1, -1]):
            assert nearest_colour(corner) == scene.background, scene.caption


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_a_large_shape_covers_over_twice_the_area_of_a_small_one(shape: str) -> None:
    small, large = (
        area(shapes.render(shapes.Scene(size, "red", shape, "center", "white"), random.Random(0)), "red")
        for size in ("small", "large")
    )
    assert large > 2 * small > 0


@pytest.mark.parametrize("size", shapes.SIZES)
def test_the_four_shapes_look_different(size: str) -> None:
    pictures = [
        shapes.render(shapes.Scene(size, "red", shape, "center", "white"), random.Random(0)).tobytes()
        for shape in shapes.SHAPES
    ]
    assert len(set(pictures)) == len(shapes.SHAPES)


def test_a_caption_read_back_is_the_scene_it_came_from() -> None:
    scenes = list(shapes.all_scenes())
    assert [shapes.scene_of(scene.caption) for scene in scenes] == scenes
    assert len({scene.caption for scene in scenes}) == len(scenes) == 2240


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a red circle",
        "a small pink circle at the left on a red background",
        "a small red circle at the left on a red background",
        "a small red circle at the left on a blue background.",
    ],
)
def test_a_caption_outside_the_grammar_is_refused_by_name(caption: str) -> None:
    with pytest.raises(ValueError, match="not a demo caption") as caught:
        shapes.scene_of(caption)
    assert repr(caption) in str(caught.value)


def test_an_unknown_shape_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown shape 'hexagon'.*circle, square, triangle, star"):
        shapes.render(shapes.Scene("small", "red", "hexagon", "left", "white"), random.Random(0))


def test_importing_the_shapes_does_not_import_torch() -> None:
    code = "import sys, autotune.demo.shapes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_shipped_captions_are_32_different_scenes() -> None:
    assert len({shapes.scene_of(caption) for caption in DEMO_CAPTIONS}) == len(DEMO_CAPTIONS) == 32


def test_the_shipped_captions_use_every_word_about_equally_often() -> None:
    scenes = [shapes.scene_of(caption) for caption in DEMO_CAPTIONS]
    for fact, names in (
        ("size", shapes.SIZES),
        ("colour", shapes.COLOURS),
        ("shape", shapes.SHAPES),
        ("place", shapes.PLACES),
        ("background", shapes.COLOURS),
    ):
        counts = Counter(getattr(scene, fact) for scene in scenes)
        assert set(counts) == set(names)
        assert max(counts.values()) - min(counts.values()) <= 2, fact


def test_the_first_8_shipped_captions_name_every_shape_size_place_and_colour() -> None:
    scenes = [shapes.scene_of(caption) for caption in DEMO_CAPTIONS[:8]]
    assert {scene.size for scene in scenes} == set(shapes.SIZES)
    assert {scene.shape for scene in scenes} == set(shapes.SHAPES)
    assert {scene.place for scene in scenes} == set(shapes.PLACES)
    assert {scene.colour for scene in scenes} == set(shapes.COLOURS)
