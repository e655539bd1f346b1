"""Profiled steps: which attention kernels really ran, and how long the GPU worked, by torch's profiler.

Profile a process last, after all that is timed or metered. The profiler leaves CUPTI attached, which slows every later
launch of a kernel in the process (github.com/pytorch/pytorch/issues/144455).
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from autotune.measure.phases import EARLY_STEPS, replaced
from autotune.pipelines import parts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch.profiler import profile

OPERATORS = {
    "flash": r"^aten::_scaled_dot_product_flash_attention",
    "efficient": r"^aten::_scaled_dot_product_efficient_attention",
    "cudnn": r"^aten::_scaled_dot_product_cudnn_attention",
    "math": r"^aten::_scaled_dot_product_attention_math",
    "xformers": r"^xformers",
    "flash_attn": r"^_?flash_attn",
    "flex": r"(?i)flex_?attention",
}
GPU_KERNELS = {  # the first match wins
    "cudnn": r"cudnn.*(sdpa|fmha)",
    "flash_attn": r"(?<!pytorch_)flash::flash_fwd",  # of the package; torch's copy is in the namespace pytorch_flash
    "flash": r"flash_fwd",
    "efficient": r"fmha_cutlassF",
    "sage": r"(?i)sage|qk_int_sv",
}


class Profiled(NamedTuple):
    """The first steps of one call.

    kernels   attention kernel -> how often the denoiser called it: {"flash": 42} is torch's fused kernel, {"math": 42}
              its plain formula. Empty: attention without SDPA, or no step could be profiled
    device_s  seconds in which the GPU worked, for one step; None: no GPU
    """

    kernels: dict[str, int]
    device_s: float | None


def attention_kernels(pipe: "DiffusionPipeline", call: Callable[[], object]) -> dict[str, int]:
    """The attention kernels of the first steps of `call`; see Profiled."""
    return profile_steps(pipe, call).kernels


def profile_steps(pipe: "DiffusionPipeline", call: Callable[[], object]) -> Profiled:
    """Profile the first EARLY_STEPS steps while `call` calls the pipe, as the workload does.

    The profiler runs from the first step to the last profiled one only, because the text encoder and the VAE use
    attention, too: it ends before VAE decode where there are fewer steps. Pipelines that don't call the scheduler's
    scale_model_input (flow matching) are profiled from the end of the first step, and from set_timesteps where there is
    one step. A cache may leave out the attention of all of these: then another call is profiled as a whole.
    """
    if not hasattr(getattr(pipe, "scheduler", None), "step"):
        return Profiled({}, None)
    found = _profiled(pipe, call, EARLY_STEPS)
    if not found.kernels and getattr(parts.find_denoiser(pipe), "cached_calls", None):
        # A hook of a denoiser that is compiled whole would compile it again; beside a cache, only its blocks are.
        hook = parts.denoiser(pipe).register_forward_pre_hook
        found = found._replace(kernels=_profiled(pipe, call, None, hook).kernels)
    return found


def _profiled(
    pipe: "DiffusionPipeline", call: Callable[[], object], most: int | None, hook: Callable[..., Any] | None = None
) -> Profiled:
    """The steps of one call.

    most  the number of steps after which the profiler stops; None: at the end of the denoising
    hook  calls what it is given before each call of the denoiser: the profiler starts at the first one
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    scheduler: Any = pipe.scheduler
    gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    steps = _StepProfiler(profile(activities=activities), most)
    with ExitStack() as stack:
        stack.callback(steps.stop)
        if hook is not None:
            stack.callback(hook(lambda *_: steps.start()).remove)
        stack.enter_context(replaced(scheduler, "step", parts.rebound(scheduler, "step", steps.after)))
        if hasattr(scheduler, "scale_model_input"):
            before = parts.rebound(scheduler, "scale_model_input", lambda method: steps.before(method, steps.start))
            stack.enter_context(replaced(scheduler, "scale_model_input", before))
        elif hasattr(scheduler, "set_timesteps"):
            only = parts.rebound(scheduler, "set_timesteps", steps.before_the_only)
            stack.enter_context(replaced(scheduler, "set_timesteps", only))
        vae: Any = parts.vae(pipe)
        if hasattr(vae, "decode"):
            stack.enter_context(replaced(vae, "decode", steps.before(vae.decode, steps.stop)))
        call()
    if not steps.whole:
        return Profiled({}, None)
    events = _events(steps.profiler)
    kernels = count_kernels(Counter(event.name() for event in events))
    return Profiled(kernels, _device_s(events) / steps.whole if gpu else None)


class _StepProfiler:
    """Starts a profiler before the first step, or after it at the latest, and stops it after the last profiled step.

    most   the number of that step; None: the last of the call
    whole  the number of steps that were profiled from their beginning
    """

    def __init__(self, profiler: "profile", most: int | None) -> None:
        self.most = most
        self.profiler, self.started, self.stopped, self.steps, self.whole = profiler, False, False, 0, 0

    def start(self) -> None:
        if not self.started:
            import torch

            self.started = True
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # earlier work, such as text encoding, is not of the steps
            self.profiler.start()

    def stop(self) -> None:
        if self.started and not self.stopped:
            self.stopped = True
            self.profiler.stop()  # waits for the GPU

    def before(self, method: Callable[..., Any], act: Callable[[], None]) -> Callable[..., Any]:
        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            act()
            return method(*args, **kwargs)

        return watched

    def before_the_only(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A scheduler's set_timesteps, after which the profiler starts where the call has a single step."""

        @functools.wraps(method)  # pipelines look into its signature
        def watched(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            result = method(scheduler, *args, **kwargs)
            if len(scheduler.timesteps) == 1:
                self.start()
            return result

        return watched

    def after(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            self.steps += 1
            self.whole += self.started and not self.stopped
            self.start()
            if self.steps == self.most:
                self.stop()
            return result

        return watched


def _events(profiler: "profile") -> list[Any]:
    """What the profiler recorded, unparsed: torch's key_averages() takes forty times as long."""
    recorded: Any = profiler.profiler
    return list(recorded.kineto_results.events())


def _device_s(events: Iterable[Any]) -> float:
    """Seconds in which the GPU computed or copied."""
    from torch.autograd import DeviceType

    on_gpu = (event for event in events if event.device_type() == DeviceType.CUDA)
    work = ((event.start_ns(), event.end_ns()) for event in on_gpu if not event.is_user_annotation())
    return covered(work) / 1e9


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals (start, end): kernels on several streams overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def count_kernels(events: dict[str, int]) -> dict[str, int]:
    """Profiler events (name -> count) -> attention kernels by their short names, the keys of OPERATORS.

    Replayed CUDA graphs dispatch no operators. Then the names of the GPU's kernels are used.
    """
    for patterns in (OPERATORS, GPU_KERNELS):
        counts: dict[str, int] = {}
        for name, count in events.items():
            short = next((short for short, pattern in patterns.items() if re.search(pattern, name)), None)
            if short is not None:
                counts[short] = counts.get(short, 0) + count
        if counts:
            return counts
    return {}
