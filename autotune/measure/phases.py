"""Phases: the seconds that one call spends in text encoding, in a denoising step and in VAE decode.

They come from two calls after the timed ones. In the first call, encoding and decoding are timed with the device
synchronised around them. In the second, steps are timed from the end of one scheduler step to the end of the next,
without making the host wait for the GPU. To time a method, it is replaced on its object for the call. Hooks on modules
are not used, because they would make torch.compile compile the modules anew.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from autotune.measure.latency import timed
from autotune.measurement import Phases
from autotune.pipelines import parts

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def phases(pipe: "DiffusionPipeline", call: Callable[[], object], device: str) -> Phases:
    """The Phases of a call, from two runs of `call`, which calls the pipe once.

    A scheduler that runs the denoiser twice in a step counts as two steps.
    """
    encoder = pipe if parts.text_encoders(pipe) and hasattr(pipe, "encode_prompt") else None
    decoder = parts.vae(pipe) if hasattr(parts.vae(pipe), "decode") else None
    with _stopwatch_on(encoder, "encode_prompt", device) as encoding, _stopwatch_on(decoder, "decode", device) as vae:
        call()
    steps = _steps_s(pipe, call, device)
    return Phases(
        text_encoding_s=sum(encoding) if encoding else None,
        denoising_step_s=statistics.median(steps) if steps else None,
        vae_decode_s=sum(vae) if vae else None,
    )


@contextmanager
def _replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
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


@contextmanager
def _stopwatch_on(owner: Any, name: str, device: str) -> Iterator[list[float]]:
    """A list that collects the seconds of each call of `owner.name`. It stays empty where `owner` is None."""
    seconds: list[float] = []
    if owner is None:
        yield seconds
        return
    method = getattr(owner, name)

    @functools.wraps(method)
    def watched(*args: Any, **kwargs: Any) -> Any:
        taken_s, result = timed(lambda: method(*args, **kwargs), device)
        seconds.append(taken_s)
        return result

    with _replaced(owner, name, watched):
        yield seconds


def _steps_s(pipe: "DiffusionPipeline", call: Callable[[], object], device: str) -> list[float]:
    """Seconds between the ends of the scheduler's steps; empty where there are fewer than two."""
    scheduler: Any = getattr(pipe, "scheduler", None)
    if not hasattr(scheduler, "step"):
        return []
    step, marks = scheduler.step, _marks(device)

    @functools.wraps(step)  # pipelines look into its signature
    def watched(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        marks.set()
        return result

    with _replaced(scheduler, "step", watched):
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
