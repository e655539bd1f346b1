"""Probe of a space: the search space of a pipeline on this device, or on one from the table of GPUs.

Chooses the prompts and the space file that ship for a pipeline as well.
"""

from pathlib import Path
from typing import Any

from autotune.device import Device
from autotune.devices import find_device
from autotune.execution.probe import probe
from autotune.execution.scratch import scratch
from autotune.knobs import complete
from autotune.pipeline import Pipeline, Weights
from autotune.pipelines import presets, resolve
from autotune.study.space import SearchSpace, make_space
from autotune.study.space_file import SpaceFile, read_space_file, shipped_space_file
from autotune.target import Target
from autotune.workload import PROMPTS, Prompts, WorkloadRequest, read_prompts

PROMPTS_IN_SEARCH = 16  # of the shipped prompts; the confirmation uses all of them


def probe_target(
    word: str,
    weights: Weights,
    device: str | Device | None,
    *,
    quick: bool = False,
    **options: Any,
) -> Target:
    """What a search of this pipeline would tune. Downloads no weights. Raises UserError.

    word     the pipeline: a preset, a hub id or a folder
    device   `--device`, or a device of another machine, known from the table of GPUs
    quick    what is known within seconds: enough to say what the weights take, see ProbeJob
    options  task, controlnet, lora, see resolve()
    """
    # Without the scorer: it does not change the space, and might have to be downloaded.
    pipeline = resolve(word, weights, **options).model_copy(update={"scorer": None})
    here = find_device("cpu" if isinstance(device, Device) else device)
    with scratch() as folder:
        place, request = Path(folder) / "probe", _default_request(pipeline)
        target = probe(place, pipeline, here, request, configurations_only=True, quick=quick)
    return target.model_copy(update={"device": device}) if isinstance(device, Device) else target


def probe_space(
    word: str,
    weights: Weights,
    device: str | Device | None,
    space: Path | None = None,
    **options: Any,
) -> tuple[Target, SearchSpace]:
    """The space that a search of this pipeline would have, as probe_target(). Raises UserError.

    space  a space file; None: the one that ships for the pipeline
    """
    file = read_space_file(space) if space else None
    target = probe_target(word, weights, device, quick=False, **options)
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
