"""The search space of a pipeline: on this device, or on a GPU that is known from the table alone. And the defaults.

The prompts and the space file that ship for a pipeline are chosen here.
"""

import tempfile
from pathlib import Path

from autotune.device import Device
from autotune.devices import find_device
from autotune.execution.probe import probe
from autotune.knobs import complete
from autotune.pipeline import Pipeline, Weights
from autotune.pipelines import presets, resolve
from autotune.study.space import SearchSpace, SpaceFile, make_space, read_space_file, shipped_space_file
from autotune.target import Target
from autotune.workload import PROMPTS, Prompts, WorkloadRequest, read_prompts

PROMPTS_IN_SEARCH = 16


def probe_space(
    word: str, weights: Weights, device: str | None, space: Path | None = None, **wishes: str | None
) -> tuple[Target, SearchSpace]:
    """The space that a search of this pipeline would have here. `wishes`: task, controlnet, lora, see resolve().

    space  a space file, instead of the one that ships for it. Raises UserError.
    """
    file = read_space_file(space) if space else None
    # The scorer plays no part in what is possible, and it may have to be downloaded.
    pipeline = resolve(word, weights, **wishes).model_copy(update={"scorer": None})
    with tempfile.TemporaryDirectory() as folder:
        target = probe(Path(folder) / "probe", pipeline, find_device(device), _default_request(pipeline))
    return target, _whole_space(target, file)


def probe_space_of(
    word: str, weights: Weights, device: Device, space: Path | None = None, **wishes: str | None
) -> tuple[Target, SearchSpace]:
    """The space on a device that is not here, such as one of the capability table. Downloads no preset's weights."""
    file = read_space_file(space) if space else None
    preset = presets().get(word)
    shape = "random" if preset and preset.architecture else weights  # its configurations ship with autotune
    pipeline = resolve(word, shape, **wishes).model_copy(update={"scorer": None})
    with tempfile.TemporaryDirectory() as folder:
        target = probe(Path(folder) / "probe", pipeline, find_device("cpu"), _default_request(pipeline))
    known = target.pipeline.model_copy(update={"weights": weights})
    target = target.model_copy(update={"pipeline": known, "device": device})
    return target, _whole_space(target, file)


def _default_request(pipeline: Pipeline) -> WorkloadRequest:
    return WorkloadRequest(prompts=default_prompts(pipeline))


def _whole_space(target: Target, file: SpaceFile | None) -> SearchSpace:
    """Nothing fixed, nothing left out."""
    return make_space(target, file or default_space(target.pipeline), fix={}, exclude=(), baseline=complete({}))


def default_space(pipeline: Pipeline) -> SpaceFile:
    preset = presets().get(pipeline.name)
    return shipped_space_file(preset.space if preset else "default.toml")


def default_prompts(pipeline: Pipeline) -> Prompts:
    """All that are shipped for it; a search takes the first PROMPTS_IN_SEARCH."""
    preset = presets().get(pipeline.name)
    return read_prompts(PROMPTS / (preset.prompts if preset else "general.txt"))
