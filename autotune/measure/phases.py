"""The parts of a call: text encoding, one denoising step, VAE decode. From two calls after the timed ones.

Attributes of the pipe's own objects are replaced for one call each, and put back: hooks on modules would compile them
anew. Encoding and decoding are timed in the first, with the device synchronised around them; the steps in the second,
from the end of one scheduler step to the end of the next, without making the host wait for the GPU.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from autotune.measure.latency import timed
from autotune.measurement import Phases
from autotune.pipelines import parts


def phases(pipe: Any, call: Callable[[], object], device: str) -> Phases:
    """`call` calls the pipe once. A scheduler that goes twice through the denoiser for a step counts as two steps."""
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
    """Inside, `owner.name` is `new`. Past __setattr__, which modules and pipelines have of their own."""
    own = vars(owner)
    had, before = name in own, own.get(name)
    own[name] = new
    try:
        yield
    finally:
        if had:
            own[name] = before
        else:
            del own[name]


@contextmanager
def _stopwatch_on(owner: Any, name: str, device: str) -> Iterator[list[float]]:
    """The seconds of each call of this method, as they come. `owner` None: there is nothing to time."""
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


def _steps_s(pipe: Any, call: Callable[[], object], device: str) -> list[float]:
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
    """Moments by the host's clock."""

    def __init__(self) -> None:
        self._at_s: list[float] = []

    def set(self) -> None:
        self._at_s.append(time.perf_counter())

    def between_s(self) -> list[float]:
        return [after - before for before, after in zip(self._at_s, self._at_s[1:], strict=False)]


class _CudaMarks:
    """Moments in the GPU's own queue; setting one makes nobody wait."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._events: list[Any] = []

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
