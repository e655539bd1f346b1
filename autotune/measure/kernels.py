"""Attention kernels: which ones really ran, by torch's profiler. Another one may have been requested."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotune.pipelines.call import steps_values

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
PROFILED_STEPS = 3


def short_call(pipe: "DiffusionPipeline", steps: int = PROFILED_STEPS) -> dict[str, Any]:
    """The arguments for a call of PROFILED_STEPS steps, or of the workload's `steps` where these are fewer.

    A pipe that starts from a picture skips some unless told.
    """
    full = {"strength": 1.0} if "strength" in inspect.signature(type(pipe).__call__).parameters else {}
    return {**steps_values(pipe, min(steps, PROFILED_STEPS)), **full}


def attention_kernels(pipe: "DiffusionPipeline", call: Callable[[], object]) -> dict[str, int]:
    """Kernel -> how often the denoiser called it, while `call` calls the pipe with short_call().

    {"flash": 42} is torch's fused kernel, {"math": 42} its plain formula. Empty: attention without SDPA. The profiler
    runs from the first step to the last only, because the text encoder and the VAE use attention, too. Pipelines that
    don't call the scheduler's scale_model_input (flow matching) are profiled from the end of the first step.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    steps = _StepProfiler(profile(activities=[ProfilerActivity.CPU, *cuda]))
    scheduler = pipe.scheduler
    wrappers = {"step": steps.after(scheduler.step)}
    if hasattr(scheduler, "scale_model_input"):
        wrappers["scale_model_input"] = steps.before(scheduler.scale_model_input)
    vars(scheduler).update(wrappers)
    try:
        call()
    finally:
        for name in wrappers:
            del vars(scheduler)[name]
        steps.stop()
    if not steps.started:
        return {}
    return count_kernels({event.key: event.count for event in steps.profiler.key_averages()})


class _StepProfiler:
    """Starts a profiler before the first step, or after it at the latest, and stops it after the last step."""

    def __init__(self, profiler: "profile") -> None:
        self.profiler, self.started, self.stopped, self.steps = profiler, False, False, 0

    def start(self) -> None:
        if not self.started:
            self.started = True
            self.profiler.start()

    def stop(self) -> None:
        if self.started and not self.stopped:
            self.stopped = True
            self.profiler.stop()

    def before(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.start()
            return method(*args, **kwargs)

        return watched

    def after(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            self.steps += 1
            self.start()
            if self.steps == PROFILED_STEPS:
                self.stop()
            return result

        return watched


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
