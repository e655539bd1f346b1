"""Clips: how they are judged frame by frame, and by their motion against the baseline's clip."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autotune.errors import UserError
from autotune.job import MetricRequest, RescoreJob
from autotune.measure.health import BrokenOutput, check_pictures
from autotune.measure.metrics import Judge, Metric, find_metric
from autotune.measure.metrics._frames import clip_score
from autotune.measure.metrics.temporal import motion
from autotune.measure.quality import judge_clips, spot_check_of
from autotune.measure.rescore import run_rescore_job
from autotune.pictures.video import Video
from autotune.reuse import SourceTrial
from autotune.worker.classify import classify

SIDE, FRAMES = 24, 6
Frames = tuple[Image.Image, ...]


def moving(step: int = 2, *, flash: int = 0, offset: int = 0) -> Frames:
    """A square that moves to the right by `step` pixels a frame, on a gradient. Every second frame is brighter."""
    frames = []
    for number in range(FRAMES):
        levels = np.tile(np.linspace(40, 160, SIDE), (SIDE, 1))
        levels[8:16, 2 + step * number : 8 + step * number] = 200
        levels += flash * (number % 2) + offset
        frames.append(Image.fromarray(np.repeat(levels[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)))
    return tuple(frames)


def saved(folder: Path, *clips: Frames) -> Path:
    folder.mkdir()
    for number, frames in enumerate(clips):
        Video(frames).save(folder / f"{number:03d}.png")
    return folder


def test_the_baselines_own_clips_have_no_fault_and_no_difference(tmp_path: Path) -> None:
    clips = saved(tmp_path / "a", moving(), moving(1))
    quality = judge_clips(clips, clips, ("a", "b"), None)
    assert (quality.metric, quality.ssim, quality.psnr_db) == ("likeness", (1.0, 1.0), (None, None))
    assert (quality.temporal_levels, quality.worst_frame_ssim) == ((0.0, 0.0), (1.0, 1.0))
    assert quality.worst_place_levels == 0
    assert quality.motion_levels[0] > quality.motion_levels[1] > 0


def test_one_bad_frame_is_seen_in_its_own_figure(tmp_path: Path) -> None:
    usual = moving()
    spoilt = (*usual[:3], moving(offset=20)[3], *usual[4:])
    quality = judge_clips(saved(tmp_path / "b", spoilt), saved(tmp_path / "a", usual), ("a",), None)
    assert quality.worst_frame_ssim[0] < quality.ssim[0] < 1.0
    assert quality.temporal_levels[0] == pytest.approx(2 * 20 / (FRAMES - 1))  # to the frame and from it
    assert quality.ssim[0] == pytest.approx((FRAMES - 1 + quality.worst_frame_ssim[0]) / FRAMES)
    psnr = quality.psnr_db[0]
    assert psnr is not None
    one = find_metric("psnr").load(None, "cpu").scores([spoilt[3]], ["a"], [usual[3]])[0]
    assert one is not None
    assert psnr == pytest.approx(one + 10 * np.log10(FRAMES))  # the squared error of one frame, over all frames


def test_brightness_alone_is_no_change_of_motion(tmp_path: Path) -> None:
    quality = judge_clips(saved(tmp_path / "b", moving(offset=9)), saved(tmp_path / "a", moving()), ("a",), None)
    assert quality.temporal_mean_levels == 0
    assert quality.psnr_db[0] is not None


@pytest.mark.parametrize(
    ("clip", "words"),
    [((moving()[0],) * FRAMES, "clip 1 stands still"), (moving(flash=20), "clip 1 flickers")],
    ids=["frozen", "flickering"],
)
def test_a_clip_that_stands_still_or_flickers_where_the_baselines_does_not_is_broken(
    clip: Frames, words: str, tmp_path: Path
) -> None:
    baseline = saved(tmp_path / "a", moving(), moving())
    with pytest.raises(BrokenOutput, match=words) as error:
        judge_clips(saved(tmp_path / "b", moving(), clip), baseline, ("a", "b"), None)
    assert classify(error.value).cause == "broken_output"
    same = saved(tmp_path / "c", clip, clip)  # where the baseline does so, too, it is the model's way
    assert judge_clips(same, same, ("a", "b"), None).temporal_mean_levels == 0


def test_flicker_and_motion_are_two_things() -> None:
    still, moves, flashes = motion((moving()[0],) * 3), motion(moving()), motion(moving(flash=20))
    assert still == (0, 0)
    assert flashes.flicker > moves.flicker + 15
    assert motion(moving()[:1]) == (0, 0)


def test_health_knows_the_number_of_frames_and_that_a_clip_may_begin_in_the_dark() -> None:
    def check(*clips: Frames, frames: int = FRAMES) -> None:
        check_pictures([Video(c) for c in clips], width=SIDE, height=SIDE, may_be_flat=False, frames=frames)

    black = Image.new("RGB", (SIDE, SIDE))
    check((black, *moving()[1:]))
    with pytest.raises(BrokenOutput, match="clip 0 has 6 frames, not 7"):
        check(moving(), frames=7)
    with pytest.raises(BrokenOutput, match="picture 0 is black"):
        check((black,) * FRAMES)
    with pytest.raises(BrokenOutput, match="picture 1 is the same as picture 0"):
        check(moving(), moving())


def test_a_spot_check_compares_every_frame(tmp_path: Path) -> None:
    source = SourceTrial(
        trial=0, prompt=0, suspects={}, min_psnr_db=None, conclusive=True, images=str(saved(tmp_path / "a", moving()))
    )
    assert spot_check_of([Video(moving())], 0, source).same
    late = (*moving()[:-1], moving(offset=30)[-1])
    assert not spot_check_of([Video(late)], 0, source).same


def test_a_network_judges_frames_that_are_spread_over_the_clip() -> None:
    seen: list[Any] = []
    judge = Judge("counts", lambda frames, prompts, references: seen.append((frames, prompts)) or [1.0] * len(frames))
    metric = Metric("counts", "counts", "higher", "", lambda source, device: judge)
    frames = [SimpleNamespace(number=number) for number in range(81)]
    assert clip_score(metric, judge, frames, "a cat", ()) == 1.0  # type: ignore[arg-type]
    ((judged, prompts),) = seen
    assert [frame.number for frame in judged] == [0, 11, 23, 34, 46, 57, 69, 80]
    assert prompts == ["a cat"] * 8


def test_saved_clips_are_scored_again_and_motion_is_no_metric_of_pictures(tmp_path: Path) -> None:
    baseline, other = saved(tmp_path / "a", moving()), saved(tmp_path / "b", moving(1))
    job = RescoreJob(
        metrics=(MetricRequest(name="temporal"), MetricRequest(name="ssim"), MetricRequest(name="worst_place")),
        images={0: str(baseline), 1: str(other)},
        references=(str(baseline / "000.png"),),
        prompts=("a",),
        device="cpu",
        run_code=False,
        frames=FRAMES,
    )
    temporal, ssim, worst = (scores["trials"] for scores in run_rescore_job(job, tmp_path)["scores"])
    assert (temporal[0], ssim[0], worst[0]) == ((0.0,), (1.0,), (0.0,))
    judged = judge_clips(other, baseline, ("a",), None)
    assert (temporal[1], ssim[1]) == (judged.temporal_levels, judged.ssim)
    assert worst[1] == (judged.worst_place_levels,)
    with pytest.raises(UserError, match="temporal judges the frames of videos, and this is a study of pictures"):
        run_rescore_job(job.model_copy(update={"frames": None}), tmp_path)
