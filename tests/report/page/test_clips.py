"""Clips in a report: they play on the page, and their frames lie in a row on the contact sheet."""

import base64
import io
from pathlib import Path

import pytest
from made_up import measured
from PIL import Image, ImageSequence
from studies import VALUES, study

from autotune.pictures.video import FRAME_MS, Video
from autotune.report.page.contact_sheet import COLUMNS, GAP_PX, contact_sheet
from autotune.report.page.gallery import LOOP_FRAMES, LOOP_PX, reels
from autotune.study_folder import StudyFolder

SIDE = 16


def clip(count: int, *, side: int = SIDE, step: int = 1) -> Video:
    """Frames of one colour each, which goes from green to red."""
    shades = [step * i * (120 // count) for i in range(count)]
    return Video(tuple(Image.new("RGB", (side, side), (shade, 255 - shade, 0)) for shade in shades))


def of_clips(path: Path, count: int, *, side: int = SIDE) -> StudyFolder:
    """A study of two trials whose pictures are clips; the second one's change twice as fast."""
    folder = study(path, [measured(0), measured(1, VALUES[0])])
    for number in (0, 1):
        for index in (0, 1):
            clip(count, side=side, step=1 + number).save(folder.trial(number) / "images" / f"00{index}.png")
    return folder


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_clips_and_their_differences_play_on_the_page(tmp_path: Path) -> None:
    baseline, other = reels(of_clips(tmp_path, 5), [1], ("a", "b"))
    for uri in (baseline.shots[0].uri, other.shots[0].uri, other.shots[0].heat):
        assert uri is not None
        with opened(uri) as file:
            assert (file.format, file.size, file.info["loop"]) == ("WEBP", (SIDE, SIDE), 0)
    with opened(baseline.shots[0].uri) as file:
        assert file.n_frames == 5  # type: ignore[attr-defined]
    assert other.shots[0].difference == pytest.approx(24 * 2 * 2 / 3)  # frame i by 24 i levels, in two of three colours


def test_long_and_large_clips_are_made_small_and_last_as_long(tmp_path: Path) -> None:
    count = 2 * LOOP_FRAMES
    baseline, _ = reels(of_clips(tmp_path, count, side=LOOP_PX + 8), [1], ("a",))
    with opened(baseline.shots[0].uri) as file:
        assert file.size == (LOOP_PX, LOOP_PX)
        lasts = [frame.copy().info["duration"] for frame in ImageSequence.Iterator(file)]  # read with the frame
    assert len(lasts) <= LOOP_FRAMES  # WebP may join frames that are alike
    assert sum(lasts) == pytest.approx(count * FRAME_MS, rel=0.02)


def test_frames_lie_in_a_row_below_those_of_the_baseline(tmp_path: Path) -> None:
    sheet = contact_sheet(of_clips(tmp_path, 15), 1, side_px=SIDE)
    assert sheet is not None
    step = SIDE + GAP_PX
    assert sheet.size == (COLUMNS * step - GAP_PX, 4 * step - GAP_PX)  # two prompts, each twice
    rows = [[sheet.getpixel((x * step, y * step))[0] for x in range(COLUMNS)] for y in range(4)]  # type: ignore[index]
    assert rows[0] == rows[2] == [16 * i for i in range(COLUMNS)]
    assert rows[1] == rows[3] == [32 * i for i in range(COLUMNS)]


def test_a_clip_that_is_damaged_after_its_first_frame_shows_that_frame(tmp_path: Path) -> None:
    folder = of_clips(tmp_path, 5)
    path = folder.trial(1) / "images" / "000.png"
    path.write_bytes(path.read_bytes()[:-90])
    assert contact_sheet(folder, 1) is not None
    assert len(reels(folder, [1], ("a", "b"))) == 2
