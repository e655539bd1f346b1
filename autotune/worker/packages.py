"""Packages job: which packages run in which part of a call, seen in one call, whose time is not measured."""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from autotune.building import build
from autotune.config import Config
from autotune.job import PackagesJob
from autotune.measure import one_call
from autotune.measure.phases import PARTS, announced

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LEAST_SHARE = 0.05  # of the host's time in a part. Below that a package hardly runs in it: our choice


def run_packages_job(job: PackagesJob, folder: Path) -> dict[str, Any]:
    """Part of a call -> the packages that ran in it."""
    import torch

    target, config, device = job.target, Config(job.values), job.target.device.torch_name
    pipe = build.load(target.pipeline, config, device, local_files_only=True)
    build.apply(pipe, config, target.workload, device, calibrations=target.calibrations)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        one_call(pipe, target.workload)  # compiles and fills caches, which later calls do without
        return {"packages": packages_by_part(pipe, lambda: one_call(pipe, target.workload))}


def packages_by_part(pipe: "DiffusionPipeline", call: Callable[[], object]) -> dict[str, dict[str, float]]:
    """Part (one of PARTS) -> the packages that ran in it, by their names as distributions, with their shares.

    A share is of the host's time in a part in which a function of the package runs, or one that it has called; from
    LEAST_SHARE on. A scheduler's step is in "denoising". Of what functions in C call, such as cuDNN's, nothing is seen.

    call  calls the pipe once
    """
    watcher = _Watcher()
    with announced(pipe, watcher.enter):
        before = sys.getprofile()
        sys.setprofile(watcher)
        try:
            call()
        finally:
            sys.setprofile(before)
    return {part: _of_distributions(seconds) for part, seconds in watcher.seconds.items()}


ALL = ""  # the key of all seconds of a part


class _Watcher:
    """Seconds of the host by part of the call and module. Called at each function's begin and end (sys.setprofile)."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {part: defaultdict(float) for part in PARTS}
        self._part, self._last_s = "denoising", time.perf_counter()
        self._modules: list[str] = []  # of the functions that have begun, the innermost last
        self._open: Counter[str] = Counter()  # module -> how many of them are its

    def enter(self, part: str) -> None:
        self._part = part

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        passed_s, seconds = time.perf_counter() - self._last_s, self.seconds[self._part]
        for running in (ALL, *self._open):
            seconds[running] += passed_s
        if event in ("call", "c_call"):
            module = frame.f_globals.get("__name__") if event == "call" else _module_of(arg)
            self._modules.append(str(module).partition(".")[0])
            self._open[self._modules[-1]] += 1
        elif self._modules:
            ended = self._modules.pop()
            self._open[ended] -= 1
            if not self._open[ended]:
                del self._open[ended]
        self._last_s = time.perf_counter()


def _module_of(function: Any) -> str | None:
    """Of a function in C; a method's is its object's."""
    return getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__


def _of_distributions(seconds: Mapping[str, float]) -> dict[str, float]:
    """Distribution -> its share of these seconds, largest first."""
    known = packages_distributions()
    shares: dict[str, float] = {}
    for module, taken in seconds.items():
        for name in known.get(module, ()):
            shares[name] = max(shares.get(name, 0.0), taken / seconds[ALL])
    largest_first = sorted(shares.items(), key=lambda pair: -pair[1])
    return {name: share for name, share in largest_first if share >= LEAST_SHARE}
