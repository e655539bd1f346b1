"""Rescore: score the saved pictures of a study by any metrics, in one child process for all trials."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from autotune.errors import UserError
from autotune.job import MetricRequest, RescoreJob
from autotune.measure.metrics import Loaded, Metric, Score, find_metric
from autotune.measure.metrics._frames import clip_score
from autotune.measure.metrics._user import is_users, user_metric
from autotune.measure.quality import read_picture, read_pictures
from autotune.pictures.video import read_frames
from autotune.study_folder import picture_name


def run_rescore_job(job: RescoreJob, folder: Path) -> dict[str, Any]:
    """For each requested metric: its name, identity and unit, and the scores of each trial's pictures.

    Raises UserError for a metric that is not available, and for a prompt or picture that it can't judge.
    """
    _disable_tf32()
    references = [read_picture(Path(path)) for path in job.references] if job.frames is None else []
    return {"scores": [_scores(job, request, references) for request in job.metrics]}


def _disable_tf32() -> None:
    """Compute in float32 on a GPU, too. By default torch rounds convolutions to TF32 there."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _scores(job: RescoreJob, request: MetricRequest, references: Sequence[Image.Image]) -> dict[str, Any]:
    metric = find(request.name, run_code=job.run_code)
    judge = metric.load(request.source, job.device)
    if metric.clips_only and job.frames is None:
        raise UserError(f"{metric.name} judges the frames of videos, and this is a study of pictures.")
    scores = {  # by folder: trials may share pictures
        folder: _of_clips(metric, judge, Path(folder), job)
        if job.frames is not None
        else judge.scores(read_pictures(Path(folder), len(job.prompts)), job.prompts, references)
        for folder in dict.fromkeys(job.images.values())
    }
    return {
        "metric": metric.name,
        "identity": judge.identity,
        "better": metric.better,
        "unit": metric.unit,
        "needs_reference": metric.needs_reference,
        "trials": {number: scores[folder] for number, folder in job.images.items()},
    }


def _of_clips(metric: Metric, judge: Loaded, folder: Path, job: RescoreJob) -> tuple[Score, ...]:
    """The score of each prompt's clip. One clip and its reference at a time, as they are large."""
    return tuple(
        clip_score(
            metric,
            judge,
            read_frames(folder / picture_name(i)),
            prompt,
            read_frames(Path(job.references[i])) if job.references else (),
        )
        for i, prompt in enumerate(job.prompts)
    )


def find(name: str, *, run_code: bool) -> Metric:
    """The built-in metric of this name, or the user's function. Raises UserError where --run-code is missing."""
    if not is_users(name):
        return find_metric(name)
    if not run_code:
        raise UserError(f"{name} is code of your own: add --run-code to run it.")
    return user_metric(name)
