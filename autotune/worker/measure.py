"""Measure jobs: build a pipe and measure it, draw with it, or measure a chain of pipes."""

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from autotune.building import build
from autotune.config import Config
from autotune.devices.host_memory import status_bytes
from autotune.isolation import REQUESTED_AT, STARTED_BY
from autotune.job import ChainJob, DrawJob, MeasureJob
from autotune.measure import draw, health, measure_chain, measure_pipe, stopwatch
from autotune.measure.compilation import keep_all_attempts
from autotune.measure.memory import cap, meter_for
from autotune.measure.reuse import complete_pictures, measure_options
from autotune.measure.watch import watch_for
from autotune.pictures.video import Picture
from autotune.pipelines.inputs import picture_arguments
from autotune.pipelines.loading import import_classes
from autotune.pipelines.running import calibrations_for
from autotune.reuse import Reuse
from autotune.study_folder import picture_name
from autotune.target import Target
from autotune.worker.host import taken
from autotune.worker.main import tell_timed

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def run_measure_job(job: MeasureJob, folder: Path) -> dict[str, Any]:
    """The fields of a Measurement, without the quality. Pictures are saved in the folder's subfolder "images".

    Raises NoEffect, BrokenOutput, NoCleanSamples, UserError, and whatever the libraries raise; see classify.py.
    """
    target, config, device = job.target, Config(job.values), job.target.device.torch_name
    import_classes(target.pipeline)  # before metering: the libraries' memory and time are not a cost of the config
    keep_all_attempts()
    resident_before = status_bytes("VmRSS")
    meter, watch = meter_for(device), watch_for(target.device)
    cap(device, job.max_memory_bytes)
    requested_at = os.environ.get(REQUESTED_AT)
    began = float(requested_at) if requested_at else None
    start_s = time.monotonic() - began if began is not None else None
    lap = stopwatch()
    meter.start("load")
    pipe = build.load(target.pipeline, config, device, local_files_only=True)
    load_s = lap()
    effects = build.apply(pipe, config, target.workload, device, calibrations=target.calibrations)
    apply_s = lap()
    meter.stop()
    meter.release()  # what loading used and offloading moved away is not memory of the calls
    pipe.set_progress_bar_config(disable=True)

    def check(kernels: dict[str, int] | None) -> None:
        tell_timed()
        effects.update(build.verify(pipe, config, kernels))

    reuse, workload = job.reuse or Reuse(), target.workload
    with torch.no_grad():
        options = measure_options(workload, reuse, pictures=job.pictures)
        options |= {"timing_s": job.timing_s, "breakdown": job.breakdown, "began": began}
        fields, images = measure_pipe(pipe, workload, meter, watch, device=device, check=check, **options)
        if job.pictures:
            draw_all, check_pictures = partial(draw, pipe, workload), partial(_check, pipe, target)
            more, images, first = complete_pictures(workload, reuse, fields, images, draw_all, check_pictures)
            fields.update(more)
            _save(images, folder, first)
    on_host = [] if target.device.is_gpu else [peak.device_bytes for peak in meter.peaks.values()]
    host = taken(resident_before, on_host)
    return {
        "load_s": load_s,
        "host": host.to_json() if host is not None else None,
        "apply_s": apply_s,
        "start_s": start_s,
        "isolation": os.environ.get(STARTED_BY),
        "load_peak_memory_bytes": meter.peaks["load"].device_bytes,
        "calibrations": calibrations_for(pipe),
        "effects": {name: effect.to_json() for name, effect in effects.items()},
        **fields,
    }


def run_draw_job(job: DrawJob, folder: Path) -> dict[str, Any]:
    """Draw a picture of each prompt, and save them in the folder's subfolder "images". Nothing is timed."""
    target, config, device = job.target, Config(job.values), job.target.device.torch_name
    pipe = build.load(target.pipeline, config, device, local_files_only=True)
    build.apply(pipe, config, target.workload, device, calibrations=target.calibrations)
    tell_timed()
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        images = draw(pipe, target.workload)
    _check(pipe, target, images)
    _save(images, folder)
    return {"pictures": len(target.workload.prompts)}


def run_chain_job(job: ChainJob, folder: Path) -> dict[str, Any]:
    """The fields of a ChainCost. Raises BrokenOutput, NoCleanSamples and UserError."""
    device = job.stages[0].target.device.torch_name
    for stage in job.stages:
        import_classes(stage.target.pipeline)
    meter = meter_for(device)
    meter.start("load")
    stages = [(s.target.pipeline, Config(s.values), s.target.workload) for s in job.stages]
    known = [stage.target.calibrations for stage in job.stages]
    chain = build.chain(stages, device, local_files_only=True, calibrations=known)
    meter.stop()
    chain.set_progress_bar_config(disable=True)
    with torch.no_grad():
        fields, images = measure_chain(chain, meter, watch_for(job.stages[0].target.device), device=device)
    last = job.stages[-1].target
    width, height, random = last.workload.width, last.workload.height, last.pipeline.weights == "random"
    health.check_pictures(images, width=width, height=height, may_be_flat=random)
    return fields


def _check(pipe: "DiffusionPipeline", target: Target, images: Sequence[Picture], first: int = 0) -> None:
    """Raise BrokenOutput for a broken picture. `first`: the prompt index of the first picture."""
    health.check_pictures(
        images,
        width=target.workload.width,
        height=target.workload.height,
        may_be_flat=target.pipeline.weights == "random",
        frames=target.workload.frames,
        made_from=target.workload.normalized_prompts[first:],
        one_start=bool(picture_arguments(pipe)),
    )


def _save(images: Sequence[Picture], folder: Path, first: int = 0) -> None:
    """Save the pictures as images/000.png, images/001.png ... `first`: the prompt index of the first picture."""
    for index, image in enumerate(images, first):
        (folder / "images").mkdir(exist_ok=True)
        image.save(folder / "images" / picture_name(index))
