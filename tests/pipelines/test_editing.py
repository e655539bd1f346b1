"""Editing pipelines: `--task` says that a pipeline that can draw from words alone starts from a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from tiny_classes import tiny_of

from autotune.building import build
from autotune.errors import UserError
from autotune.knobs import complete
from autotune.measure import call_pipe
from autotune.pipeline import Pipeline
from autotune.pipelines import resolve
from autotune.pipelines.classes import pipeline_class
from autotune.pipelines.inspect import traits_of
from autotune.workload import Workload

SIDE = 32
BOTH = ("FluxKontextPipeline", "Flux2KleinPipeline")  # in diffusers' lists of both tasks


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("editing")
    return lambda name: root / name if (root / name).exists() else tiny_of(name, root / name)


def drawn(pipeline: Pipeline, given: dict[str, list[Image.Image]] | None = None) -> Any:
    workload = Workload(prompts=("a red circle",), width=SIDE, height=SIDE, steps=2, guidance_scale=2.5)
    pipe = build.load(pipeline, complete({}), "cpu")
    build.apply(pipe, complete({}), workload, "cpu")
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        return call_pipe(pipe, workload, ["a red circle"], [0], given)[0]


@pytest.mark.parametrize("name", BOTH)
def test_the_task_says_whether_a_picture_is_given(name: str, checkpoint: Callable[[str], Path]) -> None:
    folder = str(checkpoint(name))
    words, editing = resolve(folder), resolve(folder, task="image2image")
    assert traits_of(words, rehearsed=False).inputs == {}
    assert traits_of(editing, rehearsed=False).inputs == {"image": "photo"}


def test_the_users_picture_decides_what_an_editing_pipeline_draws(checkpoint: Callable[[str], Path]) -> None:
    editing = resolve(str(checkpoint("FluxKontextPipeline")), task="image2image")
    red, blue = (Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue"))
    pictures = [drawn(editing, {"image": [picture]}) for picture in (red, blue, red)]
    assert pictures[0].size == (SIDE, SIDE)
    assert ImageChops.difference(pictures[0], pictures[1]).getbbox() is not None
    assert ImageChops.difference(pictures[0], pictures[2]).getbbox() is None


def test_a_class_that_does_the_task_already_stays_as_it_is(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("FluxFillPipeline")
    filling = resolve(str(folder), task="inpainting")
    assert pipeline_class(filling, folder).__name__ == "FluxFillPipeline"
    assert traits_of(filling, rehearsed=False).inputs == {"image": "photo", "mask_image": "mask"}
    with pytest.raises(UserError, match="diffusers has no image2image pipeline for FluxFillPipeline"):
        pipeline_class(resolve(str(folder), task="image2image"), folder)
