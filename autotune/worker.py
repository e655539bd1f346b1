"""The child's main: `job.json` in, `outcome.json` out. Rerun any trial by hand: python -m autotune.worker FOLDER

Knows no search. Started by `isolate` in a process group of its own, with a pipe (AUTOTUNE_LIFELINE) whose other end
only the parent holds: when that end closes, however the parent died, the whole group is killed.
"""

import contextlib
import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from autotune.isolation import ASKED_AT, HOW, LIFELINE


def main() -> None:
    folder = Path(sys.argv[1])
    die_with_parent()
    # Imported late: the watcher above is forked while this process is small and has one thread.
    from autotune.folders import read_json, write_json
    from autotune.job import DISK_FULL_STATUS, JOB, Report

    try:
        report = Report(result=run(JOB.validate_python(read_json(folder / "job.json", "job")), folder))
    except Exception as error:
        traceback.print_exc()
        report = Report(failure=classify(error))
    try:
        write_json(folder / "outcome.json", report.to_json())
    except OSError as error:
        traceback.print_exc()
        sys.exit(DISK_FULL_STATUS if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1)


def run(job: Any, folder: Path) -> dict[str, Any]:
    """Do the job; returns its result as JSON."""
    errands = {
        "device": _device,
        "probe": _probe,
        "measure": _measure,
        "draw": _draw,
        "artifacts": _artifacts,
        "chain": _chain,
        "compat": _compat,
        "score": _score,
        "rescore": _rescore,
    }
    return errands[job.kind](job, folder)


def _device(job: Any, folder: Path) -> dict[str, Any]:
    from autotune.here import probe_device

    return probe_device(job.device).to_json()


def _probe(job: Any, folder: Path) -> dict[str, Any]:
    from autotune.here import probe_device, versions
    from autotune.measure.metrics._clip import Clip
    from autotune.pipelines.inspect import traits_of
    from autotune.pipelines.locate import fetch, revisions

    device = probe_device(job.device)
    fetch(job.pipeline)
    found = {**revisions(job.pipeline), "traits": traits_of(job.pipeline)}
    pipeline = job.pipeline.model_copy(update=found)
    if pipeline.scorer is not None:
        Clip(pipeline.scorer).check_prompts(job.prompts)
    return {"pipeline": pipeline.to_json(), "device": device.to_json(), "versions": versions()}


def _measure(job: Any, folder: Path) -> dict[str, Any]:
    import torch

    from autotune import build
    from autotune.config import Config
    from autotune.measure import draw, measure_pipe, stopwatch
    from autotune.measure.compilation import keep_all_attempts
    from autotune.measure.memory import cap, meter_for
    from autotune.measure.spared import spared, wanted
    from autotune.measure.watch import watch_for
    from autotune.pipelines.loading import import_classes
    from autotune.thrift import Thrift

    target, config, device = job.target, Config(job.values), job.target.device.torch_name
    import_classes(target.pipeline)  # the libraries' own memory and time are not the config's
    keep_all_attempts()
    meter, watch = meter_for(device), watch_for(target.device)
    if job.max_memory_bytes is not None:
        cap(device, job.max_memory_bytes)
    asked_at = os.environ.get(ASKED_AT)
    start_s = time.monotonic() - float(asked_at) if asked_at else None
    lap = stopwatch()
    meter.start("load")
    pipe = build.load(target.pipeline, config, device, local_files_only=True)
    load_s = lap()
    effects = build.apply(pipe, config, target.workload, device)
    apply_s = lap()
    meter.stop()
    pipe.set_progress_bar_config(disable=True)

    def check(kernels: dict[str, int]) -> None:
        effects.update(build.verify(pipe, config, kernels))

    thrift, workload = job.thrift or Thrift(), target.workload
    with torch.no_grad():
        wishes = wanted(workload, thrift, pictures=job.pictures)
        fields, images = measure_pipe(pipe, workload, meter, watch, device=device, check=check, **wishes)
        if job.pictures:
            checked, redraw = partial(_check, pipe, target), partial(draw, pipe, workload)
            more, images, first = spared(workload, thrift, fields, images, redraw, checked)
            fields.update(more)
            _write(images, folder, first)
    return {
        "load_s": load_s,
        "apply_s": apply_s,
        "start_s": start_s,
        "isolation": os.environ.get(HOW),
        "load_peak_memory_bytes": meter.peaks["load"].device_bytes,
        "effects": {name: effect.to_json() for name, effect in effects.items()},
        **fields,
    }


def _draw(job: Any, folder: Path) -> dict[str, Any]:
    import torch

    from autotune import build
    from autotune.config import Config
    from autotune.measure import draw

    target, config, device = job.target, Config(job.values), job.target.device.torch_name
    pipe = build.load(target.pipeline, config, device, local_files_only=True)
    build.apply(pipe, config, target.workload, device)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        images = draw(pipe, target.workload)
    _check(pipe, target, images)
    _write(images, folder)
    return {"pictures": len(target.workload.prompts)}


def _artifacts(job: Any, folder: Path) -> dict[str, Any]:
    import torch

    from autotune import artifacts, build, serving
    from autotune.config import Config

    target, config, device = job.target, Config(job.values), job.target.device.torch_name
    pipe = build.load(target.pipeline, config, device, local_files_only=True)
    build.apply(pipe, config, target.workload, device)
    pipe.set_progress_bar_config(disable=True)
    serving.warm_up(pipe, target.workload)
    saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        return {"bytes": 0}
    packed = artifacts.pack(saved[0], Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
    (folder / "artifacts").write_bytes(packed)
    return {"bytes": len(packed)}


def _check(pipe: Any, target: Any, images: Any, first: int = 0) -> None:
    """Raises BrokenOutput for what is no picture. `first`: the prompt of the first of them."""
    from autotune.measure import health
    from autotune.pipelines.inputs import picture_arguments

    health.check_pictures(
        images,
        width=target.workload.width,
        height=target.workload.height,
        may_be_flat=target.pipeline.weights == "random",
        made_from=target.workload.as_read[first:],
        one_start=bool(picture_arguments(pipe)),
    )


def _write(images: Any, folder: Path, first: int = 0) -> None:
    """As 000.png, 001.png ..."""
    from autotune.folders import picture_name

    for index, image in enumerate(images, first):
        (folder / "images").mkdir(exist_ok=True)
        image.save(folder / "images" / picture_name(index))


def _chain(job: Any, folder: Path) -> dict[str, Any]:
    import torch

    from autotune import build
    from autotune.config import Config
    from autotune.measure import health, measure_chain
    from autotune.measure.memory import meter_for
    from autotune.measure.watch import watch_for
    from autotune.pipelines.loading import import_classes

    device = job.stages[0].target.device.torch_name
    for stage in job.stages:
        import_classes(stage.target.pipeline)
    meter = meter_for(device)
    meter.start("load")
    stages = [(s.target.pipeline, Config(s.values), s.target.workload) for s in job.stages]
    chain = build.chain(stages, device, local_files_only=True)
    meter.stop()
    chain.set_progress_bar_config(disable=True)
    with torch.no_grad():
        fields, images = measure_chain(chain, meter, watch_for(job.stages[0].target.device), device=device)
    last = job.stages[-1].target
    size = {"width": last.workload.width, "height": last.workload.height}
    health.check_pictures(images, **size, may_be_flat=last.pipeline.weights == "random")
    return fields


def _compat(job: Any, folder: Path) -> dict[str, Any]:
    from autotune.compat.pictures import make_pictures

    return make_pictures(job, _fork, classify)


def _fork(work: Callable[[], None]) -> int:
    """Do the work in a fork of this process, which then ends. Returns the fork's process id."""
    process = os.fork()
    if process:
        return process
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)  # whatever was raised, it must not run on as a second worker


def _score(job: Any, folder: Path) -> dict[str, Any]:
    from autotune.measure.quality import judge

    return judge(Path(job.images), Path(job.baseline), job.prompts, job.scorer).to_json()


def _rescore(job: Any, folder: Path) -> dict[str, Any]:
    from autotune.measure.rescore import rescore

    return rescore(job)


def classify(error: BaseException) -> Any:
    """The Failure that an exception means, by its type and those behind it."""
    from autotune.build import NoEffect
    from autotune.errors import UserError
    from autotune.measure.health import BrokenOutput
    from autotune.measure.latency import NoCleanSamples
    from autotune.trial import Failure

    chain = list(_causes(error))
    text = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), 'no message')}"
    for link in chain:
        if isinstance(link, NoEffect):
            return Failure(cause="no_effect", reason=str(link), knob=link.knob)
        if isinstance(link, BrokenOutput):
            return Failure(cause="broken_output", reason=str(link))
        if isinstance(link, NoCleanSamples):
            return Failure(cause=link.why, reason=str(link))
        if isinstance(link, UserError):
            return Failure(cause="bad_input", reason=str(link))
        if _is_disk_full(link):
            return Failure(cause="environment", reason="no room left on the disk")
        if _is_out_of_memory(link):
            return Failure(cause="out_of_memory", reason=text)
    unsupported = isinstance(error, NotImplementedError | ImportError) or "No available kernel" in str(error)
    return Failure(cause="unsupported" if unsupported else "error", reason=text)


def _causes(error: BaseException | None) -> Any:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    known = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, known) or "can't allocate memory" in str(error)


def die_with_parent() -> None:
    """Fork a watcher that kills this process group when the parent's end of the lifeline closes."""
    word = os.environ.pop(LIFELINE, None)
    if word is None:
        return  # run by hand
    lifeline = int(word)
    if os.fork() == 0:
        for descriptor in map(int, os.listdir("/dev/fd")):
            if descriptor > 2 and descriptor != lifeline:  # it keeps nothing open whose end others wait for
                with contextlib.suppress(OSError):  # the listing's own is closed by now
                    os.close(descriptor)
        os.read(lifeline, 1)  # the parent never writes: this returns when its end has closed
        os.killpg(0, signal.SIGKILL)
    os.close(lifeline)


if __name__ == "__main__":
    main()
