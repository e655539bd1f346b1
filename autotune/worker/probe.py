"""The probe job: what is this pipeline, and what can torch do with this device? Downloads weights that are missing."""

from pathlib import Path
from typing import Any

from autotune.devices.probe import probe_device, versions
from autotune.job import ProbeJob
from autotune.measure.metrics._clip import Clip
from autotune.pipelines.inspect import traits_of
from autotune.pipelines.locate import fetch, revisions


def run_probe_job(job: ProbeJob, folder: Path) -> dict[str, Any]:
    """The pipeline with its traits, the device with torch's answers, and the versions of the libraries."""
    device = probe_device(job.device)
    fetch(job.pipeline)
    found = {**revisions(job.pipeline), "traits": traits_of(job.pipeline)}
    pipeline = job.pipeline.model_copy(update=found)
    if pipeline.scorer is not None:
        Clip(pipeline.scorer).check_prompts(job.prompts)
    return {"pipeline": pipeline.to_json(), "device": device.to_json(), "versions": versions()}
