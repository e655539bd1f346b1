"""Probe job: find out what a pipeline is and what torch can do with a device. Downloads missing weights."""

from pathlib import Path
from typing import Any

from autotune.devices.probe import probe_device, versions
from autotune.job import ProbeJob
from autotune.measure.metrics._clip import Clip
from autotune.pipelines.components import components_of
from autotune.pipelines.inspect import traits_of
from autotune.pipelines.locate import fetch, is_on_disk, revisions


def run_probe_job(job: ProbeJob, folder: Path) -> dict[str, Any]:
    """The pipeline with its traits, the device with torch's answers, and the versions of the libraries.

    Raises UserError where the pipeline can't be loaded, torch can't use the device, or a prompt is too long.
    """
    device = probe_device(job.device, by_trial=not job.quick)
    # With random weights, configurations are all that is needed, and all that is downloaded.
    unloaded = job.configurations_only and not is_on_disk(job.pipeline)
    readable = job.pipeline.model_copy(update={"weights": "random", "lora": None}) if unloaded else job.pipeline
    fetch(readable)
    components = components_of(job.pipeline, readable)
    traits = traits_of(readable, rehearsed=not job.quick).model_copy(update={"components": components})
    pipeline = job.pipeline.model_copy(update={**revisions(readable), "traits": traits})
    if pipeline.scorer is not None:
        Clip(pipeline.scorer).check_prompts(job.prompts)
    return {"pipeline": pipeline.to_json(), "device": device.to_json(), "versions": versions()}
