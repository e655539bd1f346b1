"""Which attention kernels really ran, as torch's profiler saw them. Asked for is not run."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

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
    "flash_attn": r"(?<!pytorch_)flash::flash_fwd",  # the package's own; torch has its copy in another namespace
    "flash": r"flash_fwd",
    "efficient": r"fmha_cutlassF",
    "sage": r"(?i)sage|qk_int_sv",
}
PROFILED_STEPS = 3


def short_call(pipe: Any) -> dict[str, Any]:
    """The arguments that make a call of so few steps; from a picture too, where `strength` leaves some out."""
    full = {"strength": 1.0} if "strength" in inspect.signature(type(pipe).__call__).parameters else {}
    return {"num_inference_steps": PROFILED_STEPS, **full}


def attention_kernels(pipe: Any, call: Callable[[], object]) -> dict[str, int]:
    """Kernel -> how often the denoiser called it. `call` calls the pipe with `short_call`.

    {"flash": 42} is torch's fused kernel; {"math": 42} its plain formula; empty: attention without SDPA. The profiler
    runs from the first step to the last, neither before nor after: the text encoder and the VAE have attention, too.
    Where a scheduler is not asked for its input's scale (flow matching), it runs from the end of the first step.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    watch = _Watch(profile(activities=[ProfilerActivity.CPU, *cuda]))
    scheduler = pipe.scheduler
    watched = {"step": watch.after(scheduler.step)}
    if hasattr(scheduler, "scale_model_input"):
        watched["scale_model_input"] = watch.before(scheduler.scale_model_input)
    vars(scheduler).update(watched)
    try:
        call()
    finally:
        for name in watched:
            del vars(scheduler)[name]
        watch.stop()
    if not watch.started:
        return {}
    return count_kernels({event.key: event.count for event in watch.profiler.key_averages()})


class _Watch:
    """Starts a profiler before the first step, or after it at the latest, and stops it after the last."""

    def __init__(self, profiler: Any) -> None:
        self.profiler, self.started, self.stopped, self.steps = profiler, False, False, 0

    def start(self) -> None:
        if not self.started:
            self.started = True
            self.profiler.start()

    def stop(self) -> None:
        if self.started and not self.stopped:
            self.stopped = True
            self.profiler.stop()

    def before(self, method: Any) -> Any:
        @functools.wraps(method)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.start()
            return method(*args, **kwargs)

        return watched

    def after(self, method: Any) -> Any:
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
    """Profiler events -> SDPA kernels by their short names: flash, efficient, cudnn, math.

    Replayed CUDA graphs dispatch no operators: then the names of the GPU's own kernels tell.
    """
    for patterns in (OPERATORS, GPU_KERNELS):
        found: dict[str, int] = {}
        for name, count in events.items():
            short = next((short for short, pattern in patterns.items() if re.search(pattern, name)), None)
            if short is not None:
                found[short] = found.get(short, 0) + count
        if found:
            return found
    return {}
