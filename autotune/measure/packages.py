"""Packages: which packages run in which part of a call, seen in one call, whose time is not measured."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import packages_distributions
from types import FrameType
from typing import TYPE_CHECKING, Any

from autotune.measure.phases import PARTS, announced

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LEAST_SHARE = 0.05  # of the host's time in a part. Below that a package hardly runs in it: our choice


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
        self.seconds: dict[str, Counter[str]] = {part: Counter() for part in PARTS}
        self._part, self._last_s = "denoising", time.perf_counter()
        self._modules: list[str] = []  # of the functions that have begun, the innermost last
        self._open: Counter[str] = Counter()  # module -> how many of them are its

    def enter(self, part: str) -> None:
        self._part = part

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        passed_s, seconds = time.perf_counter() - self._last_s, self.seconds[self._part]
        for module in (ALL, *self._open):
            seconds[module] += passed_s
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


def _of_distributions(seconds: Counter[str]) -> dict[str, float]:
    """Distribution -> its share of these seconds, largest first."""
    known = packages_distributions()
    shares: Counter[str] = Counter()
    for module, taken in seconds.items():
        for name in known.get(module, ()):
            shares[name] = max(shares[name], taken / seconds[ALL])
    return {name: share for name, share in shares.most_common() if share >= LEAST_SHARE}
