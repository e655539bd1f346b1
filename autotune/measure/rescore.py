"""Scores of the pictures that a study has saved, by any metrics. Runs in one child for all trials."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.errors import UserError
from autotune.job import MetricWish, RescoreJob
from autotune.measure.metrics import Metric, find_metric
from autotune.measure.metrics._user import is_users, user_metric
from autotune.measure.quality import read_picture, read_pictures


def run_rescore_job(job: RescoreJob, folder: Path) -> dict[str, Any]:
    """The scores of each metric by the words that asked for it, with what they are. Raises UserError."""
    _in_float32()
    references = [read_picture(Path(path)) for path in job.references]
    return {"scores": [_scored(job, wish, references) for wish in job.metrics]}


def _in_float32() -> None:
    """On a GPU too: torch would round convolutions to TF32 there."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _scored(job: RescoreJob, wish: MetricWish, references: Sequence[Any]) -> dict[str, Any]:
    metric = find(wish.name, run_code=job.run_code)
    judge = metric.load(wish.source, job.device)
    scores = {  # trials may share pictures
        folder: judge.scores(read_pictures(Path(folder), len(job.prompts)), job.prompts, references)
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


def find(name: str, *, run_code: bool) -> Metric:
    """Ours of this name, or the user's own function. Raises UserError where their code may not run."""
    if not is_users(name):
        return find_metric(name)
    if not run_code:
        raise UserError(f"{name} is code of yours: add --run-code to have it run.")
    return user_metric(name)
