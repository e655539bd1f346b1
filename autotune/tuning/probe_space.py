"""Probe of a space: the search space of a pipeline on this device, or on one from the table of GPUs.

Chooses the prompts and the space file that ship for a pipeline as well.
"""

import tempfile
from pathlib import Path

from autotune.device import Device
from autotune.devices import find_device
from autotune.execution.probe import probe
from autotune.knobs import complete
from autotune.pipeline import Pipeline, Weights
from autotune.pipelines import presets, resolve
from autotune.study.space import SearchSpace, make_space
from autotune.study.space_file import SpaceFile, read_space_file, shipped_space_file
from autotune.target import Target
from autotune.workload import PROMPTS, Prompts, WorkloadRequest, read_prompts

PROMPTS_IN_SEARCH = 16  # of the shipped prompts; the confirmation uses all of them


def probe_space(
    word: str, weights: Weights, device: str | None, space: Path | None = None, **options: str | None
) -> tuple[Target, SearchSpace]:
    """The space that a search of this pipeline would have on this machine. Raises UserError.

    word     the pipeline: a preset, a hub id or a folder
    space    a space file; None: the one that ships for the pipeline
    options  task, controlnet, lora, see resolve()
    """
    file = read_space_file(space) if space else None
    # Without the scorer: it does not change the space, and might have to be downloaded.
    pipeline = resolve(word, weights, **options).model_copy(update={"scorer": None})
    with tempfile.TemporaryDirectory() as folder:
        target = probe(Path(folder) / "probe", pipeline, find_device(device), _default_request(pipeline))
    return target, _whole_space(target, file)


def probe_space_of(
    word: str, weights: Weights, device: Device, space: Path | None = None, **options: str | None
) -> tuple[Target, SearchSpace]:
    """The space on a device of another machine, known from the table of GPUs. Downloads no weights of a preset."""
    file = read_space_file(space) if space else None
    preset = presets().get(word)
    shipped = "random" if preset and preset.architecture else weights  # a preset's configurations ship with autotune
    pipeline = resolve(word, shipped, **options).model_copy(update={"scorer": None})
    with tempfile.TemporaryDirectory() as folder:
        target = probe(Path(folder) / "probe", pipeline, find_device("cpu"), _default_request(pipeline))
    known = target.pipeline.model_copy(update={"weights": weights})
    target = target.model_copy(update={"pipeline": known, "device": device})
    return target, _whole_space(target, file)


def _default_request(pipeline: Pipeline) -> WorkloadRequest:
    return WorkloadRequest(prompts=default_prompts(pipeline))


def _whole_space(target: Target, file: SpaceFile | None) -> SearchSpace:
    """The space with no knob fixed or excluded."""
    return make_space(target, file or default_space(target.pipeline), fix={}, exclude=(), baseline=complete({}))


def default_space(pipeline: Pipeline) -> SpaceFile:
    """The space file that ships for this pipeline."""
    preset = presets().get(pipeline.name)
    return shipped_space_file(preset.space if preset else "default.toml")


def default_prompts(pipeline: Pipeline) -> Prompts:
    """The prompts that ship for this pipeline. A search takes the first PROMPTS_IN_SEARCH of them."""
    preset = presets().get(pipeline.name)
    return read_prompts(PROMPTS / (preset.prompts if preset else "general.txt"))
