"""Phases: the parts of a call: text encoding, VAE encode, the denoising steps, VAE decode.

Their seconds come from one call after the timed ones. Encoding and decoding are timed with the device synchronised
around them. Steps are timed from the end of one scheduler step to the end of the next, without making the host wait for
the GPU. To watch a method, it is replaced on its object for the call. Hooks on modules are not used, because they would
make torch.compile compile the modules anew.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from autotune.measure.latency import timed
from autotune.measurement import Phases
from autotune.pipelines import parts

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

EARLY_STEPS = 3  # the first of a call, which are profiled
PARTS = ("text_encoding", "vae_encode", "denoising", "vae_decode")


def phases(pipe: "DiffusionPipeline", call: Callable[[], object], device: str) -> Phases:
    """The Phases of a call, from one run of `call`, which calls the pipe once.

    A scheduler that runs the denoiser twice in a step counts as two steps.
    """
    seconds: dict[str, list[float]] = {}

    def stopwatch(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            taken_s, result = timed(lambda: method(*args, **kwargs), device)
            seconds.setdefault(part, []).append(taken_s)
            return result

        return watched

    with _each_part(pipe, stopwatch):
        steps = _steps_s(pipe, call, device)
    early = steps[: EARLY_STEPS - 1]
    return Phases(
        text_encoding_s=_total(seconds.get("text_encoding")),
        denoising_step_s=statistics.median(steps) if steps else None,
        vae_encode_s=_total(seconds.get("vae_encode")),
        vae_decode_s=_total(seconds.get("vae_decode")),
        early_step_s=statistics.fmean(early) if early else None,
    )


@contextmanager
def announced(pipe: "DiffusionPipeline", enter: Callable[[str], None]) -> Iterator[None]:
    """Inside the block, `enter` is called with the name of a part (one of PARTS) whenever a call of the pipe enters it.

    What is in none of the others, such as drawing the noise, is in "denoising". What follows VAE decode is in that.
    """

    def announcer(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            enter(part)
            result = method(*args, **kwargs)
            if part != "vae_decode":
                enter("denoising")
            return result

        return watched

    with _each_part(pipe, announcer):
        yield


@contextmanager
def _each_part(pipe: "DiffusionPipeline", wrapped: Callable[[str, Any], Any]) -> Iterator[None]:
    """Inside the block, the method of each part that the pipe has is replaced by wrapped(part, method)."""
    encoder = pipe if parts.text_encoders(pipe) else None
    vae = parts.vae(pipe)
    methods = {
        "text_encoding": (encoder, "encode_prompt"),
        "vae_encode": (vae, "encode"),
        "vae_decode": (vae, "decode"),
    }
    with ExitStack() as stack:
        for part, (owner, name) in methods.items():
            if hasattr(owner, name):
                stack.enter_context(replaced(owner, name, wrapped(part, getattr(owner, name))))
        yield


@contextmanager
def replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    """Inside the block, `owner.name` is `new`. Bypasses __setattr__, which modules and pipelines override."""
    attributes = vars(owner)
    had, before = name in attributes, attributes.get(name)
    attributes[name] = new
    try:
        yield
    finally:
        if had:
            attributes[name] = before
        else:
            del attributes[name]


def _total(seconds: list[float] | None) -> float | None:
    return sum(seconds) if seconds else None


def _steps_s(pipe: "DiffusionPipeline", call: Callable[[], object], device: str) -> list[float]:
    """Seconds between the ends of the scheduler's steps; empty where there are fewer than two."""
    scheduler: Any = getattr(pipe, "scheduler", None)
    if not hasattr(scheduler, "step"):
        call()
        return []
    marks = _marks(device)

    def wrapped(step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)  # pipelines look into its signature
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            marks.set()
            return result

        return watched

    with replaced(scheduler, "step", parts.rebound(scheduler, "step", wrapped)):
        call()
    return marks.between_s()


def _marks(device: str) -> "_HostMarks | _CudaMarks":
    return _CudaMarks(device) if device.startswith("cuda") else _HostMarks()


class _HostMarks:
    """Times by the host's clock."""

    def __init__(self) -> None:
        self._at_s: list[float] = []

    def set(self) -> None:
        self._at_s.append(time.perf_counter())

    def between_s(self) -> list[float]:
        return [after - before for before, after in zip(self._at_s, self._at_s[1:], strict=False)]


class _CudaMarks:
    """Times by the GPU's clock: events in its queue, which the host does not wait for."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._events: list[torch.cuda.Event] = []

    def set(self) -> None:
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        self._events.append(event)

    def between_s(self) -> list[float]:
        import torch

        torch.cuda.synchronize(self._device)
        pairs = zip(self._events, self._events[1:], strict=False)
        return [before.elapsed_time(after) / 1e3 for before, after in pairs]  # elapsed_time is in ms
