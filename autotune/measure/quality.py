"""Quality of a folder of pictures against the baseline's, as the search judges it: CLIP score, SSIM, PSNR, and LPIPS
where its weights are on this disk. Runs in a process of its own, when the pictures have been made.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from autotune.job import ScoreJob
from autotune.measure.metrics import Score, find_metric, lpips
from autotune.measurement import Quality
from autotune.reuse import SourceTrial, SpotCheck
from autotune.study_folder import picture_name


def run_score_job(job: ScoreJob, folder: Path) -> dict[str, Any]:
    """The Quality of one folder of pictures, judged against another."""
    return judge(Path(job.images), Path(job.baseline), job.prompts, job.scorer).to_json()


def judge(images: Path, baseline: Path, prompts: Sequence[str], scorer: str | None) -> Quality:
    """The quality of the pictures 000.png, 001.png ... in `images`, one for each prompt.

    scorer  a CLIP model; None: likeness alone. Raises UserError for a prompt that it can't read whole.
    """
    mine, theirs = (read_pictures(folder, len(prompts)) for folder in (images, baseline))

    def scores(metric: str) -> tuple[Score, ...]:
        return find_metric(metric).load(None, "cpu").scores(mine, prompts, theirs)

    large_enough = min(min(image.size) for image in mine) >= lpips.LEAST_PX
    likeness = {"ssim": scores("ssim"), "psnr_db": scores("psnr")}
    likeness["lpips"] = scores("lpips") if large_enough and lpips.why_not() is None else ()
    if scorer is None:
        return Quality.model_validate({"metric": "likeness", "scorer": None, **likeness})
    clip = find_metric("clip_score").load(scorer, "cpu")
    judged = {"scorer": clip.identity, "clip_scores": clip.scores(mine, prompts, theirs)}
    return Quality.model_validate({"metric": "clip", **judged, **likeness})


def read_pictures(folder: Path, count: int) -> list[Image.Image]:
    """The first `count` pictures of a trial. Raises OSError where one is missing."""
    return [read_picture(folder / picture_name(i)) for i in range(count)]


def read_picture(path: Path) -> Image.Image:
    with Image.open(path) as file:
        return file.convert("RGB")


def spot_check_of(images: Sequence[Image.Image], first: int, source: SourceTrial) -> SpotCheck:
    """Pictures of one call, the first of them of prompt `first`, beside the source's.

    Raises OSError where one of the source's is missing, UserError where the sizes differ.
    """
    import numpy as np
    from PIL import ImageChops

    theirs = [read_picture(Path(source.images) / picture_name(first + i)) for i in range(len(images))]
    ssim, psnr_db = (find_metric(name).load(None, "cpu").scores(images, (), theirs) for name in ("ssim", "psnr"))
    apart = [ImageChops.difference(mine.convert("RGB"), other) for mine, other in zip(images, theirs, strict=True)]
    levels = [int(np.asarray(one).max()) for one in apart]
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
