"""Probe job: find out what a pipeline is and what torch can do with a device. Downloads missing weights."""

from pathlib import Path
from typing import Any

from autotune.devices.probe import probe_device, versions
from autotune.job import ProbeJob
from autotune.measure.metrics._clip import Clip
from autotune.pipelines.inspect import traits_of
from autotune.pipelines.locate import fetch, revisions


def run_probe_job(job: ProbeJob, folder: Path) -> dict[str, Any]:
    """The pipeline with its traits, the device with torch's answers, and the versions of the libraries.

    Raises UserError where the pipeline can't be loaded, torch can't use the device, or a prompt is too long.
    """
    device = probe_device(job.device)
    fetch(job.pipeline)
    pipeline = job.pipeline.model_copy(update={**revisions(job.pipeline), "traits": traits_of(job.pipeline)})
    if pipeline.scorer is not None:
        Clip(pipeline.scorer).check_prompts(job.prompts)
    return {"pipeline": pipeline.to_json(), "device": device.to_json(), "versions": versions()}
