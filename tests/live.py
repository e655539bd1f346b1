"""loaded(), built() and picture(): live pipes of the demo with any knobs, and their pictures."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import copies
import numpy as np
import torch

from autotune import demo
from autotune.building import build
from autotune.config import Config, Value
from autotune.knob import Effect
from autotune.knobs import complete, find_knob
from autotune.measure.kernels import attention_kernels
from autotune.pipeline import Pipeline
from autotune.pipelines import resolve
from autotune.workload import Workload

WORKLOAD = Workload(
    prompts=("a large red circle at the top on a white background",),
    width=64,
    height=64,
    steps=3,
    guidance_scale=4.0,
)


@cache
def _demo() -> Pipeline:
    return resolve("demo")


def loaded(**values: Value) -> Any:
    """The demo, loaded with these values of the loading knobs."""
    pipe = copies.load(_demo(), complete(values))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def built(pipe: Any = None, **values: Value) -> tuple[Any, dict[str, Effect]]:
    """The demo, or the given pipe, with these knobs applied; and the effect of each knob."""
    pipe = pipe or loaded(**values)
    return pipe, build.apply(pipe, complete(values), WORKLOAD, "cpu")


def picture(pipe: Any, *, seed: int = 0, count: int = 1, **call: Any) -> np.ndarray:
    """The pixels of one call, from 0 to 1: count x height x width x 3."""
    generators = [torch.Generator("cpu").manual_seed(seed + i) for i in range(count)]
    prompts = list(WORKLOAD.prompts) * count
    pixels: np.ndarray = pipe(prompt=prompts, generator=generators, output_type="np", **call).images
    return pixels


def profiled_kernels(pipe: Any) -> dict[str, int]:
    """Attention kernel -> number of calls, as a measurement profiles them."""
    return attention_kernels(pipe, lambda: picture(pipe, num_inference_steps=WORKLOAD.steps))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two pictures in any pixel."""
    assert np.isfinite(one).all()
    return float(np.abs(one - other).max())


def acting(name: str, value: Value) -> Config:
    """The config in which only this value is not a default, and, for a modifier, the knob that it modifies."""
    modified = find_knob(name).modifies
    return complete({name: value} | ({modified: find_knob(modified).values[1]} if modified else {}))


def configured(folder: Path) -> Pipeline:
    """The pipeline with random weights that a folder of configurations describes."""
    return resolve(str(folder), "random")


def configurations(folder: Path, **unet: Any) -> Path:
    """A copy of the demo's folder without weights and vocabulary; `unet` overrides single settings of the UNet."""
    ignored = shutil.ignore_patterns("*.safetensors", "tokenizer")
    shutil.copytree(demo.PIPELINE, folder, ignore=ignored)
    settings = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(settings | unet))
    return folder
