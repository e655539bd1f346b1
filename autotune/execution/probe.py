"""Probe: ask a child process, which may load torch, about a pipeline and a device. Returns a Target."""

import tempfile
from pathlib import Path

from autotune.device import Device
from autotune.devices import find_devices
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.job import DeviceJob, ProbeJob
from autotune.pipeline import Pipeline
from autotune.pipelines import presets
from autotune.target import Target
from autotune.trial import Failure
from autotune.workload import Workload, WorkloadRequest

PROBE_TIMEOUT_S = 4 * 3600.0  # the child may have to download the weights


def probe(folder: Path, pipeline: Pipeline, device: Device, request: WorkloadRequest) -> Target:
    """The target of a search: pipeline and device as a child sees them, and the workload with its defaults filled in.

    folder  of the probe job

    Raises UserError where the pipeline can't be loaded, the device can't be used, or a size does not fit the pipeline.
    """
    prompts, also = request.prompts, request.also
    job = ProbeJob(pipeline=pipeline, device=device, prompts=prompts.texts)
    answer = isolate.run(folder, job, timeout_s=PROBE_TIMEOUT_S)
    if isinstance(answer, Failure):
        log = "" if answer.cause == "bad_input" else f"; see {folder / 'log.txt'}"
        raise UserError(answer.reason if not log else f"{pipeline.name} can't be probed: {answer.reason}{log}.")
    known = Pipeline.parse(answer["pipeline"], "the probe's pipeline")
    preset, traits = presets().get(pipeline.name), known.known
    width, height = request.size or (
        (preset.width, preset.height) if preset else (traits.default_width, traits.default_height)
    )
    for wide, high in ((width, height), *((shape.width, shape.height) for shape in also)):
        if wide % traits.size_multiple or high % traits.size_multiple:
            option = "--workload" if also else "--size"
            raise UserError(f"{option} {wide}x{high}: {pipeline.name} needs multiples of {traits.size_multiple}.")
    workload = Workload(
        prompts=prompts.texts,
        width=width,
        height=height,
        batch=request.batch,
        steps=request.steps or (preset.steps if preset else traits.default_steps),
        guidance_scale=preset.guidance_scale if preset else traits.default_guidance_scale,
        seed=request.seed,
        also=also,
        seeds=prompts.seeds_from(request.seed),
        references=prompts.references,
    )
    found = Device.parse(answer["device"], "the probe's device")
    return Target(pipeline=known, workload=workload, device=found, versions=answer["versions"])


def probe_devices() -> list[Device]:
    """Every device of this machine with torch's answers, or with the reason why torch can't use it as evidence."""
    with tempfile.TemporaryDirectory() as folder:
        return [_probe_device(Path(folder) / str(i), device) for i, device in enumerate(find_devices())]


def _probe_device(folder: Path, device: Device) -> Device:
    answer = isolate.run(folder, DeviceJob(device=device), timeout_s=PROBE_TIMEOUT_S)
    if isinstance(answer, Failure):
        return device.model_copy(update={"evidence": (*device.evidence, answer.reason)})
    return Device.parse(answer, "the probe's device")
