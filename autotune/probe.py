"""The parent's side of the probe: what are this pipeline and this device? Asked of a child, which may load torch."""

import tempfile
from pathlib import Path

from autotune import isolate
from autotune.device import Device, find_device, find_devices
from autotune.errors import UserError
from autotune.job import DeviceJob, ProbeJob
from autotune.knobs import complete
from autotune.pipeline import Pipeline, Weights
from autotune.pipelines import presets, resolve
from autotune.space import SearchSpace, SpaceFile, make_space, read_space_file, shipped_space_file
from autotune.target import Target
from autotune.trial import Failure
from autotune.workload import PROMPTS, Prompts, Shape, Workload, read_prompts

PROBE_TIMEOUT_S = 4 * 3600.0  # it may have to download the weights
PROMPTS_IN_SEARCH = 16


def probe(
    folder: Path,
    pipeline: Pipeline,
    device: Device,
    prompts: Prompts,
    *,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    also: tuple[Shape, ...] = (),
    seed: int = 0,
) -> Target:
    """Ask a child what the pipeline and the device are, and complete the workload by it. Raises UserError.

    also  other sizes of the workload
    """
    job = ProbeJob(pipeline=pipeline, device=device, prompts=prompts.texts)
    answer = isolate.run(folder, job, timeout_s=PROBE_TIMEOUT_S)
    if isinstance(answer, Failure):
        log = "" if answer.cause == "bad_input" else f"; see {folder / 'log.txt'}"
        raise UserError(answer.reason if not log else f"{pipeline.name} can't be probed: {answer.reason}{log}.")
    known = Pipeline.parse(answer["pipeline"], "the probe's pipeline")
    preset, traits = presets().get(pipeline.name), known.known
    width, height = size or ((preset.width, preset.height) if preset else (traits.default_width, traits.default_height))
    for wide, high in ((width, height), *((shape.width, shape.height) for shape in also)):
        if wide % traits.size_multiple or high % traits.size_multiple:
            option = "--workload" if also else "--size"
            raise UserError(f"{option} {wide}x{high}: {pipeline.name} needs multiples of {traits.size_multiple}.")
    workload = Workload(
        prompts=prompts.texts,
        width=width,
        height=height,
        batch=batch,
        steps=steps or (preset.steps if preset else traits.default_steps),
        guidance_scale=preset.guidance_scale if preset else traits.default_guidance_scale,
        seed=seed,
        also=also,
        seeds=prompts.seeds_from(seed),
        references=prompts.references,
    )
    found = Device.parse(answer["device"], "the probe's device")
    return Target(pipeline=known, workload=workload, device=found, versions=answer["versions"])


def probe_devices() -> list[Device]:
    """Every device here, with what torch says of each; the sentence why, where it can't use one."""
    with tempfile.TemporaryDirectory() as folder:
        return [_probe_device(Path(folder) / str(i), device) for i, device in enumerate(find_devices())]


def _probe_device(folder: Path, device: Device) -> Device:
    answer = isolate.run(folder, DeviceJob(device=device), timeout_s=PROBE_TIMEOUT_S)
    if isinstance(answer, Failure):
        return device.model_copy(update={"evidence": (*device.evidence, answer.reason)})
    return Device.parse(answer, "the probe's device")


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
        target = probe(Path(folder) / "probe", pipeline, find_device(device), default_prompts(pipeline))
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
        target = probe(Path(folder) / "probe", pipeline, find_device("cpu"), default_prompts(pipeline))
    known = target.pipeline.model_copy(update={"weights": weights})
    target = target.model_copy(update={"pipeline": known, "device": device})
    return target, _whole_space(target, file)


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
