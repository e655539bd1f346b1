"""The pictures of a report: the right ones beside each other, and a heat-map that shows where they differ."""

import base64
import io
from pathlib import Path

import pytest
from made_up import measured
from PIL import Image
from studies import VALUES, study

from autotune.report.page.gallery import FULL_SCALE, LARGEST_PX, MOST_PROMPTS, heat_map, reels


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def test_equal_pictures_have_a_black_heat_map() -> None:
    picture = Image.new("RGB", (8, 8), (10, 200, 30))
    heat, mean = heat_map(picture, picture)
    assert mean == 0
    assert heat.getextrema() == ((0, 0), (0, 0), (4, 4))


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_difference_shows_where_it_is_whatever_its_colour(channel: int) -> None:
    first, second = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8))
    colour = [0, 0, 0]
    colour[channel] = FULL_SCALE
    second.putpixel((3, 5), tuple(colour))
    heat, mean = heat_map(first, second)
    assert mean == pytest.approx(FULL_SCALE / 3 / 64)
    assert heat.getpixel((3, 5)) == (252, 255, 164)
    assert heat.getpixel((4, 5)) == (0, 0, 4)


def test_larger_differences_are_brighter() -> None:
    first = Image.new("RGB", (1, 1))
    levels = [
        heat_map(first, Image.new("RGB", (1, 1), (d, d, d)))[0].convert("L").getpixel((0, 0)) for d in range(FULL_SCALE)
    ]
    assert levels == sorted(levels)


def test_small_pictures_are_kept_bit_for_bit_and_large_ones_are_made_smaller(tmp_path: Path) -> None:
    folder = study(tmp_path, [measured(0), measured(1, VALUES[0])])
    big = folder.trial(1) / "images" / "000.png"
    original = decoded(reels(folder, [1], ("a", "b"))[1].shots[0].uri)
    assert original.tobytes() == Image.open(big).convert("RGB").tobytes()
    for number in (0, 1):
        Image.new("RGB", (1024, 768), (0, 0, number)).save(folder.trial(number) / "images" / "000.png")
    assert decoded(reels(folder, [1], ("a", "b"))[1].shots[0].uri).size == (LARGEST_PX, LARGEST_PX * 3 // 4)


def test_trials_without_pictures_are_left_out_and_so_are_all_without_a_baselines(tmp_path: Path) -> None:
    folder = study(tmp_path, [measured(0), measured(1, VALUES[0])])
    assert [reel.trial for reel in reels(folder, [1, 7, 0], ("a", "b"))] == [0, 1]
    for path in (folder.trial(0) / "images").iterdir():
        path.unlink()
    assert reels(folder, [1], ("a", "b")) == []


def test_prompts_shown_are_few_and_each_keeps_its_picture(tmp_path: Path) -> None:
    prompts = tuple(f"prompt {i}" for i in range(20))
    folder = study(tmp_path, [measured(0), measured(1, VALUES[0])], prompts=prompts)
    baseline, mine = reels(folder, [1], prompts)
    assert [shot.prompt for shot in mine.shots] == list(prompts[:MOST_PROMPTS])
    assert decoded(mine.shots[2].uri).getpixel((0, 0)) == (80, 10, 120)
    assert baseline.shots[2].heat is None


def test_pictures_that_stand_for_another_trials_are_shown_for_it(tmp_path: Path) -> None:
    folder = study(tmp_path, [measured(0), measured(1, VALUES[0])])
    _, own, taken = reels(folder, [1, 7], ("a", "b"), {7: 1})
    assert (own.trial, taken.trial) == (1, 7)
    assert own.shots == taken.shots
