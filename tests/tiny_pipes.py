"""tiny_pipe() and draw(): live pipes of the tiny checkpoints, of any family and scheduler, with any knobs."""

from functools import cache
from pathlib import Path
from typing import Any

import copies
import numpy as np
import torch
from once_a_run import traits_once
from tiny import FAMILIES, tiny_checkpoint

from autotune.building import build
from autotune.config import Value
from autotune.knob import Effect
from autotune.knobs import complete
from autotune.measure import call_pipe
from autotune.pipeline import Pipeline, Traits, Weights
from autotune.pipelines import resolve
from autotune.workload import Workload

SIDES = {"IFPipeline": 16}  # pixels; 32 for the other families


@cache
def tiny_pipeline(family: str, root: Path, weights: Weights = "pretrained") -> Pipeline:
    folder = root / family
    return resolve(str(folder if folder.exists() else tiny_checkpoint(family, folder)), weights)


@cache
def tiny_traits(family: str, root: Path, weights: Weights = "pretrained") -> Traits:
    assert family in FAMILIES
    return traits_once(f"{family}-{weights}", tiny_pipeline(family, root, weights))


def tiny_workload(family: str, *, batch: int = 1, steps: int = 4, guidance_scale: float = 4.0) -> Workload:
    side = SIDES.get(family, 32)
    prompts = ("a red circle", "a blue star", "a green tree")
    return Workload(prompts=prompts, width=side, height=side, batch=batch, steps=steps, guidance_scale=guidance_scale)


def tiny_pipe(
    family: str, root: Path, *, weights: Weights = "pretrained", own_scheduler: str | None = None, **values: Value
) -> tuple[Any, dict[str, Effect]]:
    """The pipe with these knobs applied, and the effect of each.

    own_scheduler  the class of the scheduler before any knob acts; None: that of the checkpoint
    """
    pipeline = tiny_pipeline(family, root, weights).model_copy(update={"scheduler": own_scheduler})
    config = complete(values)
    pipe = copies.load(pipeline, config)
    pipe.set_progress_bar_config(disable=True)
    return pipe, build.apply(pipe, config, tiny_workload(family), "cpu")


def draw(pipe: Any, family: str, *, batch: int = 1, **call: Any) -> np.ndarray:
    """The pixels of one call, from 0 to 1: batch x height x width x 3."""
    with torch.no_grad():
        images = call_pipe(pipe, *_one(family, batch), **call)
    return np.stack([np.asarray(image, dtype=np.float32) / 255 for image in images])


def _one(family: str, batch: int) -> tuple[Workload, list[str], list[int]]:
    workload = tiny_workload(family, batch=batch)
    return (workload, *next(workload.calls()))
