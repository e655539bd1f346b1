"""run_compat_job(): in the child process, draw the pictures of many configs, each in a fork.

A fork starts in milliseconds, a fresh process in seconds. Both isolate a config from what earlier configs left behind
in torch (flags, compiled code, patches, a crash). On a CPU this process loads the libraries before it forks. On a GPU
it does not: some libraries initialize CUDA, and a fork of a process that has initialized CUDA can't use the GPU.
"""

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.compat.record import Made
from autotune.config import Config, Value
from autotune.frozen_model import write_json
from autotune.job import CompatJob
from autotune.knobs import all_knobs
from autotune.pipelines import parts
from autotune.trial import Failure
from autotune.worker.classify import classify
from autotune.worker.main import fork
from autotune.workload import Workload

if TYPE_CHECKING:
    import numpy as np
    from diffusers import DiffusionPipeline
    from numpy.typing import NDArray

LOADED_FIRST = ("diffusers", "transformers", "torchao.quantization", "tomesd", "torch._inductor.compile_fx")
CALLS, CALLS_ON_GPU = 2, 3  # a CUDA graph is recorded in the second call and replayed from the third on
BLACK = 8 / 255  # a picture without a brighter pixel is black
NUDGE = 1e-6  # relative; eight units in the last place of float32, the error of sums of a few hundred terms


def run_compat_job(job: CompatJob, folder: Path) -> dict[str, Any]:
    """Draw the pictures that are missing in the job's folder, of as many configs as can be begun in the job's time.

    For each config the folder then holds DIGEST.json (a Made) and, where it worked, DIGEST.npy (the pictures). The
    result is the number of configs that were begun.
    """
    _load_libraries(job)
    store, begun = Path(job.folder), time.monotonic()
    left = [config for config in map(Config, job.configs) if not (store / f"{config.digest}.json").exists()]
    running: dict[int, tuple[Config, float]] = {}
    count = 0
    while running or (left and time.monotonic() - begun < job.budget_s):
        while left and len(running) < job.at_once and time.monotonic() - begun < job.budget_s:
            config = left.pop(0)
            running[fork(partial(_make, job, config))] = config, time.monotonic()
            count += 1
        _reap(running, job)
        time.sleep(0.01)
    return {"begun": count}


def _load_libraries(job: CompatJob) -> None:
    import torch

    if not job.target.device.is_gpu:
        from autotune.pipelines.loading import import_classes

        for name in LOADED_FIRST:
            import_module(name)
        import_classes(job.target.pipeline)
    assert not torch.cuda.is_initialized(), "a fork could not use the GPU"


def _reap(running: dict[int, tuple[Config, float]], job: CompatJob) -> None:
    """Remove the forks that have ended, and kill those that take too long.

    Where a fork wrote no outcome, write one for it.

    running  process id -> (config, time.monotonic() at its start)
    """
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
            crash = signal.Signals(-code).name if code < 0 else f"exited with status {code} and no outcome"
            timeout = Failure(cause="timeout", reason=f"not done after {job.limit_s:.0f} s")
            _write(job, config, Made(failure=timeout if late else Failure(cause="crash", reason=crash)))


def _write(job: CompatJob, config: Config, made: Made) -> None:
    write_json(Path(job.folder) / f"{config.digest}.json", made.to_json())


def _make(job: CompatJob, config: Config) -> None:
    """In a fork: draw the pictures of a config and write its outcome."""
    sys.stderr.write(f"--- {_changes(config)}\n")
    try:
        made = _draw(job, config)
    except Exception as error:
        traceback.print_exc()
        made = Made(failure=classify(error))
    _write(job, config, made)


def _changes(config: Config) -> str:
    """The values that are not defaults, for the log."""
    changed = [f"{n}={v}" for n, v in config.items() if v != all_knobs()[n].default]
    return " ".join(changed) or "all defaults"


def _draw(job: CompatJob, config: Config) -> Made:
    """Build the pipe, call it several times, and save the pictures of the first call."""
    import numpy as np
    import torch

    from autotune.building import build
    from autotune.measure.compilation import compilation, keep_all_attempts

    begun, target, device = time.monotonic(), job.target, job.target.device.torch_name
    if job.threads:
        torch.set_num_threads(job.threads)
    if job.captured:
        run_as_captured()
    keep_all_attempts()
    with torch.no_grad():
        pipe = build.load(target.pipeline, config, device, local_files_only=True)
        build.apply(pipe, config, target.workload, device)
        pipe.set_progress_bar_config(disable=True)
        rounded = _rounds(pipe)
        first, *others = (_call(pipe, target.workload) for _ in range(CALLS_ON_GPU if target.device.is_gpu else CALLS))
        repeat_difference = max(float(np.abs(other - first).max()) for other in others)
        _verify(pipe, config, target.workload)
        unordered = unordered_operation(lambda: _call(pipe, target.workload)) if repeat_difference > 0 else None
        nudged = first if rounded or not _is_reference(config) else _nudged(pipe, target.workload)
    np.save(Path(job.folder) / f"{config.digest}.npy", first)
    compiled = compilation()
    return Made(
        seconds=time.monotonic() - begun,
        repeat_difference=repeat_difference,
        rounded=rounded,
        nudge_difference=float(np.abs(nudged - first).max()),
        given_up=compiled.fallbacks if compiled else 0,
        unordered=unordered,
    )


def run_as_captured() -> None:
    """From now on, in this process, graphs run as torch.compile has captured them: no code is made for them."""
    import torch

    compiler: Any = torch._TorchCompileInductorWrapper
    compiler.__call__ = lambda self, graph, inputs, **_: graph.forward


def unordered_operation(call: Callable[[], object]) -> str | None:
    """An operation of this call that has no deterministic implementation on its device, by torch's own account."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            call()
    finally:
        torch.use_deterministic_algorithms(False)
    sentences = [str(warning.message) for warning in told]
    return next((text.split()[0] for text in sentences if "not have a deterministic implementation" in text), None)


def _call(pipe: "DiffusionPipeline", workload: Workload) -> "NDArray[np.float32]":
    """The pixels of the workload's first call, from 0 to 1: pictures x height x width x 3.

    Raises BrokenOutput for another shape, NaN and a black picture.
    """
    import numpy as np

    from autotune.measure import health
    from autotune.pipelines.inputs import call_arguments

    arguments = call_arguments(pipe, workload, *next(workload.calls()))
    with health.no_silent_nan():
        pixels = np.asarray(pipe(**arguments, output_type="np").images, dtype=np.float32)
    expected = (workload.batch, workload.height, workload.width, 3)
    if pixels.shape != expected:
        raise health.BrokenOutput(f"the pictures have the shape {pixels.shape}, not {expected}")
    if not np.isfinite(pixels).all():
        raise health.BrokenOutput("the pipeline's output has NaN pixels")
    if pixels.max(axis=(1, 2, 3)).min() <= BLACK:
        raise health.BrokenOutput("a picture is black")
    return pixels


def _is_reference(config: Config) -> bool:
    """Is the config its own reference: does every knob that is not at its default change the picture?"""
    knobs = all_knobs()
    return all(knobs[name].changes_output or value == knobs[name].default for name, value in config.items())


def _nudged(pipe: "DiffusionPipeline", workload: Workload) -> "NDArray[np.float32]":
    """The pixels of the call after a relative change of about NUDGE to every weight of the models that run per step."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for model in parts.step_models(pipe).values():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator).to(weight.device)
            weight.mul_(1 + NUDGE * noise)
    return _call(pipe, workload)


def _rounds(pipe: "DiffusionPipeline") -> bool:
    """Does the pipe compute in a coarser format than plain float32?"""
    import torch

    models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    weights = [weight.data for model in models for weight in model.parameters()]
    plain = all(type(weight) is torch.Tensor and weight.dtype == torch.float32 for weight in weights)
    return not plain or torch.get_float32_matmul_precision() != "highest"


def _verify(pipe: "DiffusionPipeline", config: Config, workload: Workload) -> None:
    """Raises NoEffect for a knob without effect, where only a call can show the effect."""
    from autotune.building import build
    from autotune.measure.kernels import attention_kernels
    from autotune.pipelines.inputs import call_arguments

    def call() -> None:
        arguments: dict[str, Any] = call_arguments(pipe, workload, *next(workload.calls()))
        pipe(**arguments, output_type="np")

    def asks_the_profiler(name: str, value: Value) -> bool:
        knob = all_knobs()[name]
        return knob.verify is not None and knob.reads_kernels and value != knob.default

    # A profiled call takes as long as the calls before it together.
    profiled = any(asks_the_profiler(name, value) for name, value in config.items())
    build.verify(pipe, config, attention_kernels(pipe, call) if profiled else None)
