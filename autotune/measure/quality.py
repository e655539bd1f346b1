"""Quality: CLIP score, SSIM, PSNR and LPIPS of a trial's pictures, judged against the baseline's.

LPIPS is left out where its weights are not on this disk. Scoring runs in a process of its own, after the pictures are
drawn.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from autotune.job import ScoreJob
from autotune.measure.metrics import Score, find_metric, lpips
from autotune.measure.metrics.worst_place import Places, worst_places
from autotune.measurement import Quality
from autotune.reuse import SourceTrial, SpotCheck
from autotune.study_folder import picture_name


def run_score_job(job: ScoreJob, folder: Path) -> dict[str, Any]:
    """The Quality of one folder of pictures, judged against another, as JSON."""
    return judge(Path(job.images), Path(job.baseline), job.prompts, job.scorer).to_json()


def judge(images: Path, baseline: Path, prompts: Sequence[str], scorer: str | None) -> Quality:
    """The quality of the pictures 000.png, 001.png ... in the folder `images`, one for each prompt.

    baseline  the folder of the baseline's pictures, made from the same prompts and seeds
    scorer    a CLIP model; None: judge likeness to the baseline only

    Raises OSError for a missing picture, UserError for a prompt that is too long for the scorer.
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
    judged = {"scorer": clip.identity, "clip_scores": clip.scores(pictures, prompts, references)}
    return Quality.model_validate({"metric": "clip", **judged, **likeness})


def read_pictures(folder: Path, count: int) -> list[Image.Image]:
    """The first `count` pictures in a trial's folder of pictures. Raises OSError where one is missing."""
    return [read_picture(folder / picture_name(i)) for i in range(count)]


def read_picture(path: Path) -> Image.Image:
    with Image.open(path) as file:
        return file.convert("RGB")


def spot_check_of(images: Sequence[Image.Image], first: int, source: SourceTrial) -> SpotCheck:
    """Compare the pictures of one call with the source trial's.

    images  the pictures of the prompts `first`, `first` + 1 ...

    Raises OSError where a picture of the source is missing, UserError where the sizes differ.
    """
    import numpy as np
    from PIL import ImageChops

    references = [read_picture(Path(source.images) / picture_name(first + i)) for i in range(len(images))]
    ssim, psnr_db = (find_metric(name).load(None, "cpu").scores(images, (), references) for name in ("ssim", "psnr"))
    pairs = zip(images, references, strict=True)
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
