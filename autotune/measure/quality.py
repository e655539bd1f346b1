"""Quality: CLIP score, SSIM, PSNR and LPIPS of a trial's pictures, judged against the baseline's.

A clip is compared frame by frame with the baseline's; the CLIP score and LPIPS take frames spread over it.
LPIPS is left out where its weights are not on this disk. Scoring runs in a process of its own, after the pictures are
drawn.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from autotune.job import ScoreJob
from autotune.measure.health import BrokenOutput
from autotune.measure.metrics import Loaded, Score, find_metric, lpips
from autotune.measure.metrics._clip import clip as loaded_clip
from autotune.measure.metrics._frames import clip_score, frame_scores
from autotune.measure.metrics.temporal import motion, motion_fault
from autotune.measure.metrics.worst_place import Places, worst_places
from autotune.measurement import Quality
from autotune.pictures.video import Picture, frames_of, read_frames
from autotune.reuse import SourceTrial, SpotCheck
from autotune.study_folder import picture_name


def run_score_job(job: ScoreJob, folder: Path) -> dict[str, Any]:
    """The Quality of one folder of pictures, judged against another, as JSON. Raises BrokenOutput as judge_clips()."""
    judged = judge if job.frames is None else judge_clips
    return judged(Path(job.images), Path(job.baseline), job.prompts, job.scorer).to_json()


def judge(images: Path, baseline: Path, prompts: Sequence[str], scorer: str | None) -> Quality:
    """The quality of the pictures 000.png, 001.png ... in the folder `images`, one for each prompt.

    baseline  the folder of the baseline's pictures, made from the same prompts and seeds
    scorer    a CLIP model; None: judge likeness to the baseline only

    Raises OSError for a missing picture, UserError where every prompt is too long for the scorer.
    """
    pictures, references = (read_pictures(folder, len(prompts)) for folder in (images, baseline))

    def scores(metric: str) -> tuple[Score, ...]:
        return find_metric(metric).load(None, "cpu").scores(pictures, prompts, references)

    large_enough = min(min(image.size) for image in pictures) >= lpips.LEAST_PX
    likeness = {"ssim": scores("ssim"), "psnr_db": scores("psnr")}
    likeness["lpips"] = scores("lpips") if large_enough and lpips.why_not() is None else ()
    places = worst_places(pictures, references)
    likeness |= {f"worst_{name}_levels": tuple(getattr(p, name) for p in places) for name in Places._fields}
    if scorer is None:
        return Quality.model_validate({"metric": "likeness", "scorer": None, **likeness})
    clip = find_metric("clip_score").load(scorer, "cpu")
    read = _read_by(scorer, prompts)
    of_read = clip.scores([pictures[i] for i in read], [prompts[i] for i in read], [references[i] for i in read])
    by_prompt = dict(zip(read, of_read, strict=True))
    judged = {"scorer": clip.identity, "clip_scores": [by_prompt.get(i) for i in range(len(prompts))]}
    return Quality.model_validate({"metric": "clip", **judged, **likeness})


def judge_clips(images: Path, baseline: Path, prompts: Sequence[str], scorer: str | None) -> Quality:
    """The quality of the clips in the folder `images`, see judge(). One clip at a time, as they are large.

    Raises BrokenOutput for a clip that stands still or flickers where the baseline's does not.
    """
    clip = find_metric("clip_score").load(scorer, "cpu") if scorer is not None else None
    read = _read_by(scorer, prompts) if scorer is not None else []
    clips = [
        _judge_clip(
            read_frames(images / picture_name(i)),
            read_frames(baseline / picture_name(i)),
            prompt,
            i,
            clip if i in read else None,
        )
        for i, prompt in enumerate(prompts)
    ]
    known = {name: tuple(fields.get(name) for fields in clips) for one in clips for name in one}
    return Quality.model_validate(
        {"metric": "likeness" if clip is None else "clip", "scorer": clip.identity if clip else None, **known}
    )


def _read_by(scorer: str, prompts: Sequence[str]) -> list[int]:
    """The indices of the prompts that this CLIP model can read: it judges no others. Raises UserError for none."""
    model = loaded_clip(scorer, "cpu")
    long = set(model.too_long(prompts))
    read = [i for i, prompt in enumerate(prompts) if prompt not in long]
    if not read:
        model.check_prompts(prompts)
    return read


def _judge_clip(
    frames: Sequence[Image.Image], reference: Sequence[Image.Image], prompt: str, number: int, clip: Loaded | None
) -> dict[str, Any]:
    """Field of Quality -> its value for one clip. `reference`: the baseline's clip; `clip` scores CLIP."""
    moves = motion(frames)
    fault = motion_fault(moves, motion(reference))
    if fault is not None:
        raise BrokenOutput(f"clip {number} {fault}")
    places = worst_places(frames, reference)
    ssim = frame_scores(find_metric("ssim"), _loaded("ssim"), frames, prompt, reference)
    fields: dict[str, Any] = {
        "ssim": find_metric("ssim").of_clip(ssim),
        "worst_frame_ssim": min(score for score in ssim if score is not None),
        "psnr_db": _of_clip("psnr", frames, prompt, reference),
        "temporal_levels": _of_clip("temporal", frames, prompt, reference),
        "motion_levels": moves.change,
        **{f"worst_{name}_levels": max(getattr(place, name) for place in places) for name in Places._fields},
    }
    if min(frames[0].size) >= lpips.LEAST_PX and lpips.why_not() is None:
        fields["lpips"] = _of_clip("lpips", frames, prompt, reference)
    if clip is not None:
        fields["clip_scores"] = clip_score(find_metric("clip_score"), clip, frames, prompt, ())
    return fields


def _of_clip(name: str, frames: Sequence[Image.Image], prompt: str, reference: Sequence[Image.Image]) -> Score:
    return clip_score(find_metric(name), _loaded(name), frames, prompt, reference)


@cache
def _loaded(name: str) -> Loaded:
    """The metric of this name with its default model."""
    return find_metric(name).load(None, "cpu")


def read_pictures(folder: Path, count: int) -> list[Image.Image]:
    """The first `count` pictures in a trial's folder of pictures. Raises OSError where one is missing."""
    return [read_picture(folder / picture_name(i)) for i in range(count)]


def read_picture(path: Path) -> Image.Image:
    with Image.open(path) as file:
        return file.convert("RGB")


def spot_check_of(images: Sequence[Picture], first: int, source: SourceTrial) -> SpotCheck:
    """Compare the pictures or clips of one call with the source trial's, frame by frame.

    images  those of the prompts `first`, `first` + 1 ...

    Raises OSError where a picture of the source is missing, UserError where the sizes differ.
    """
    import numpy as np
    from PIL import ImageChops

    paths = [Path(source.images) / picture_name(first + i) for i in range(len(images))]
    references = [frame for path in paths for frame in read_frames(path)]
    drawn = [frame for image in images for frame in frames_of(image)]
    ssim, psnr_db = (find_metric(name).load(None, "cpu").scores(drawn, (), references) for name in ("ssim", "psnr"))
    pairs = zip(drawn, references, strict=True)
    differences = [ImageChops.difference(image.convert("RGB"), reference) for image, reference in pairs]
    levels = [int(np.asarray(difference).max()) for difference in differences]
    return SpotCheck(
        trial=source.trial,
        prompt=source.prompt,
        suspects=source.suspects,
        ssim=min(score for score in ssim if score is not None),
        psnr_db=min((score for score in psnr_db if score is not None), default=None),
        largest_levels=max(levels),
        min_psnr_db=source.min_psnr_db,
        conclusive=source.conclusive,
    )
