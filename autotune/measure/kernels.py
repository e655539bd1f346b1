"""Which attention kernels really ran, as torch's profiler saw them. Asked for is not run."""

import re
from typing import Any

from autotune.workload import Workload

OPERATORS = {
    "flash": r"^aten::_scaled_dot_product_flash_attention",
    "efficient": r"^aten::_scaled_dot_product_efficient_attention",
    "cudnn": r"^aten::_scaled_dot_product_cudnn_attention",
    "math": r"^aten::_scaled_dot_product_attention_math",
}
GPU_KERNELS = {"cudnn": r"cudnn.*(sdpa|fmha)", "flash": r"flash_fwd", "efficient": r"fmha_cutlassF"}  # first match wins
STEPS = 3  # the first is not profiled: the text encoder's attention runs before it, the VAE's after the last


def attention_kernels(pipe: Any, workload: Workload) -> dict[str, int]:
    """Kernel -> how often the denoiser called it in two steps. A short call of its own, after the timed ones.

    {"flash": 28} is torch's fused kernel; {"math": 28} its plain formula; empty: attention without SDPA.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    profiler = profile(activities=[ProfilerActivity.CPU, *cuda])

    def at_step_end(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            profiler.start()
        if step == STEPS - 1:
            profiler.stop()
        return tensors

    prompts, _ = next(workload.calls())
    pipe(prompt=prompts, num_inference_steps=STEPS, callback_on_step_end=at_step_end)
    return count_kernels({event.key: event.count for event in profiler.key_averages()})


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
