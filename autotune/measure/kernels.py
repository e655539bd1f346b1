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
PROFILED_STEPS = 3  # the first is not profiled: the text encoder's attention runs before it, the VAE's after the last


def short_call(pipe: Any) -> dict[str, Any]:
    """The arguments that make a call of PROFILED_STEPS steps; from a picture too, where `strength` leaves some out."""
    full = {"strength": 1.0} if "strength" in inspect.signature(type(pipe).__call__).parameters else {}
    return {"num_inference_steps": PROFILED_STEPS, **full}


def attention_kernels(pipe: Any, call: Callable[[], object]) -> dict[str, int]:
    """Kernel -> how often the denoiser called it in two steps. `call` calls the pipe with `short_call`.

    {"flash": 28} is torch's fused kernel; {"math": 28} its plain formula; empty: attention without SDPA. The profiler
    is started and stopped from the scheduler's step, which every pipeline calls after its denoiser.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    profiler = profile(activities=[ProfilerActivity.CPU, *cuda])
    step, steps = pipe.scheduler.step, 0

    @functools.wraps(step)
    def profiled(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        result = step(*args, **kwargs)
        steps += 1
        if steps == 1:
            profiler.start()
        elif steps == PROFILED_STEPS:
            profiler.stop()
        return result

    pipe.scheduler.step = profiled
    try:
        call()
    finally:
        del pipe.scheduler.step
        if 1 <= steps < PROFILED_STEPS:  # the call made fewer steps than it was asked for
            profiler.stop()
    return count_kernels({event.key: event.count for event in profiler.key_averages()}) if steps else {}


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
