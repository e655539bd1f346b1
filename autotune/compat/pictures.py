"""In the child: configs -> pictures, each made in a fork of this process, which has only loaded the libraries.

A fork costs milliseconds, a fresh process seconds, and both keep what a config leaves behind in torch (flags, compiled
code, patches, a crash) from the next one. On a GPU the libraries are not loaded first: some of them start CUDA, and a
fork of a process that has started it can't use it.
"""

import os
import signal
import sys
import time
import traceback
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from autotune.compat.record import Made
from autotune.config import Config, Value
from autotune.frozen_model import write_json
from autotune.job import CompatJob
from autotune.knobs import all_knobs
from autotune.pipelines import parts
from autotune.trial import Failure
from autotune.worker.classify import classify
from autotune.worker.main import fork

LOADED_FIRST = ("diffusers", "transformers", "torchao.quantization", "tomesd", "torch._inductor.compile_fx")
CALLS = {"cpu": 2, "cuda": 3}  # a CUDA graph is recorded in the second call and replayed from the third on
BLACK = 8 / 255
NUDGE = 1e-6  # eight units in the last place of float32, what sums of a few hundred terms are off by


def run_compat_job(job: CompatJob, folder: Path) -> dict[str, Any]:
    """Make what is missing in the job's folder, as many as can be begun in its time: for each config DIGEST.json (what
    became of it) and, where all went well, DIGEST.npy (its pictures)."""
    _load_libraries(job)
    kept, begun = Path(job.folder), time.monotonic()
    left = [config for config in map(Config, job.configs) if not (kept / f"{config.digest}.json").exists()]
    running: dict[int, tuple[Config, float]] = {}
    count = 0
    while running or (left and time.monotonic() - begun < job.budget_s):
        while left and len(running) < job.at_once and time.monotonic() - begun < job.budget_s:
            config = left.pop(0)
            running[fork(partial(_make, job, config))] = config, time.monotonic()
            count += 1
        _look_after(running, job)
        time.sleep(0.01)
    return {"begun": count}


def _load_libraries(job: CompatJob) -> None:
    import torch

    if job.target.device.kind == "cpu":
        from autotune.pipelines.loading import import_classes

        for name in LOADED_FIRST:
            import_module(name)
        import_classes(job.target.pipeline)
    assert not torch.cuda.is_initialized(), "a fork could not use the GPU any more"


def _look_after(running: dict[int, tuple[Config, float]], job: CompatJob) -> None:
    """Forget the forks that have ended, and end those that take too long. Whoever leaves no word gets one here."""
    for process, (config, since) in list(running.items()):
        ended, status = os.waitpid(process, os.WNOHANG)
        late = time.monotonic() - since > job.limit_s
        if not ended and late:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        elif not ended:
            continue
        del running[process]
        if not (Path(job.folder) / f"{config.digest}.json").exists():
            code = os.waitstatus_to_exitcode(status)
            crash = signal.Signals(-code).name if code < 0 else f"exited with status {code} and no word"
            slow = f"not done after {job.limit_s:.0f} s"
            _write(job, config, Made(failure=Failure(cause="timeout", reason=slow) if late else _crash(crash)))


def _crash(reason: str) -> Failure:
    return Failure(cause="crash", reason=reason)


def _write(job: CompatJob, config: Config, made: Made) -> None:
    write_json(Path(job.folder) / f"{config.digest}.json", made.to_json())


def _make(job: CompatJob, config: Config) -> None:
    sys.stderr.write(f"--- {_said(config)}\n")
    try:
        made = _pictures(job, config)
    except Exception as error:
        traceback.print_exc()
        made = Made(failure=classify(error))
    _write(job, config, made)


def _said(config: Config) -> str:
    """For the log."""
    changed = [f"{n}={v}" for n, v in config.items() if v != all_knobs()[n].default]
    return " ".join(changed) or "all defaults"


def _pictures(job: CompatJob, config: Config) -> Made:
    import numpy as np
    import torch

    from autotune.building import build
    from autotune.measure.compilation import compilation, keep_all_attempts

    begun, target, device = time.monotonic(), job.target, job.target.device.torch_name
    if job.threads:
        torch.set_num_threads(job.threads)
    keep_all_attempts()
    with torch.no_grad():
        pipe = build.load(target.pipeline, config, device, local_files_only=True)
        build.apply(pipe, config, target.workload, device)
        pipe.set_progress_bar_config(disable=True)
        rounded = _rounds(pipe)
        first, *others = (_call(pipe, target.workload) for _ in range(CALLS[target.device.kind]))
        _verify(pipe, config, target.workload)
        nudged = first if rounded or not _is_reference(config) else _nudged(pipe, target.workload)
    np.save(Path(job.folder) / f"{config.digest}.npy", first)
    compiled = compilation()
    return Made(
        seconds=time.monotonic() - begun,
        repeat_difference=max(float(np.abs(other - first).max()) for other in others),
        rounded=rounded,
        nudge_difference=float(np.abs(nudged - first).max()),
        given_up=compiled.fallbacks if compiled else 0,
    )


def _call(pipe: Any, workload: Any) -> Any:
    """The pixels of the workload's first call, from 0 to 1: pictures x height x width x 3. Raises BrokenOutput."""
    import numpy as np

    from autotune.measure import health
    from autotune.pipelines.inputs import call_arguments

    arguments = call_arguments(pipe, workload, *next(workload.calls()))
    with health.no_silent_nan():
        pixels = np.asarray(pipe(**arguments, output_type="np").images, dtype=np.float32)
    wanted = (workload.batch, workload.height, workload.width, 3)
    if pixels.shape != wanted:
        raise health.BrokenOutput(f"the pictures have the shape {pixels.shape}, not {wanted}")
    if not np.isfinite(pixels).all():
        raise health.BrokenOutput("the pipeline's output has NaN pixels")
    if pixels.max(axis=(1, 2, 3)).min() <= BLACK:
        raise health.BrokenOutput("a picture is black")
    return pixels


def _is_reference(config: Config) -> bool:
    """Does every knob that acts say that it changes the picture?"""
    knobs = all_knobs()
    return all(knobs[name].changes_output or value == knobs[name].default for name, value in config.items())


def _nudged(pipe: Any, workload: Any) -> Any:
    """The call's pixels when every weight of what runs once a step is off by about NUDGE of itself."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for model in parts.step_models(pipe).values():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator).to(weight.device)
            weight.mul_(1 + NUDGE * noise)
    return _call(pipe, workload)


def _rounds(pipe: Any) -> bool:
    """Does the pipe compute in anything coarser than plain float32?"""
    import torch

    models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    weights = [weight.data for model in models for weight in model.parameters()]
    plain = all(type(weight) is torch.Tensor and weight.dtype == torch.float32 for weight in weights)
    return not plain or torch.get_float32_matmul_precision() != "highest"


def _verify(pipe: Any, config: Config, workload: Any) -> None:
    """Raises NoEffect for a knob that has done nothing, as far as only a call can show it."""
    from autotune.building import build
    from autotune.measure.kernels import attention_kernels, short_call
    from autotune.pipelines.inputs import call_arguments

    def call() -> None:
        arguments: dict[str, Any] = call_arguments(pipe, workload, *next(workload.calls()))
        pipe(**arguments, output_type="np", **short_call(pipe))

    def asks(name: str, value: Value) -> bool:
        knob = all_knobs()[name]
        return knob.verify is not None and value != knob.default

    if any(asks(name, value) for name, value in config.items()):
        build.verify(pipe, config, attention_kernels(pipe, call))
