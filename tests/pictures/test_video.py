"""Clips: what is saved is read again bit for bit, and people get it in the format that they name."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autotune.errors import UserError
from autotune.pictures.video import Video, frames_of, mp4_fault, read_frames, spread
from autotune.workload import open_picture
from autotune.workload import read_frames as frame_count


def noise(seed: int) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(levels)


A, B, C = noise(0), noise(1), noise(2)


@pytest.mark.parametrize("frames", [(A, B, C), (A, A, B), (A, B, B, B, A), (A, A, A), (A, B)])
def test_a_clip_is_read_as_it_was_saved_also_where_it_stands_still(
    frames: tuple[Image.Image, ...], tmp_path: Path
) -> None:
    Video(frames).save(tmp_path / "000.png")
    read = read_frames(tmp_path / "000.png")
    assert [frame.tobytes() for frame in read] == [frame.tobytes() for frame in frames]
    assert open_picture(tmp_path / "000.png", "clip").tobytes() == frames[0].tobytes()


def test_a_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    A.save(tmp_path / "000.png")
    assert [frame.tobytes() for frame in read_frames(tmp_path / "000.png")] == [A.tobytes()]
    assert frames_of(A) == (A,)
    assert frames_of(Video((A, B))) == (A, B)


def test_a_clip_that_was_cut_short_is_an_error_not_a_shorter_clip(tmp_path: Path) -> None:
    path = tmp_path / "000.png"
    Video((A, B, C)).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(OSError, match=r"truncated|damaged|broken|Truncated"):
        read_frames(path)


@pytest.mark.parametrize("name", ["clip.webp", "clip.gif", "clip.png"])
def test_people_get_an_animation_in_the_format_that_they_name(name: str, tmp_path: Path) -> None:
    Video((A, B, C)).write(tmp_path / name)
    with Image.open(tmp_path / name) as file:
        assert (file.n_frames, file.size, file.info["loop"]) == (3, A.size, 0)


def test_an_mp4_needs_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.pictures.video.find_spec", lambda name: None)
    assert mp4_fault() == "an .mp4 needs the package imageio with ffmpeg (pip install imageio[ffmpeg])"
    monkeypatch.setattr("autotune.pictures.video.find_spec", lambda name: object())
    assert mp4_fault() is None


@pytest.mark.parametrize(("count", "at_most"), [(81, 8), (9, 8), (8, 8), (2, 8), (161, 33)])
def test_frames_are_spread_over_the_whole_clip(count: int, at_most: int) -> None:
    numbers = spread(count, at_most)
    assert (numbers[0], numbers[-1], len(numbers)) == (0, count - 1, min(count, at_most))
    steps = [after - before for before, after in pairwise(numbers)]
    assert max(steps) - min(steps) <= 1


@pytest.mark.parametrize("frames", [1, 0, -5, 100_000])
def test_a_clip_has_two_frames_at_least(frames: int) -> None:
    with pytest.raises(UserError, match=f"--frames {frames}: a clip has 2 to 4096 frames"):
        frame_count(frames)
