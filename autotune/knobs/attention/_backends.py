"""_backends: the backends of diffusers' attention dispatcher, and what each needs. A helper of the knob `attention`.

Where the probe has asked a backend by a tiny call (devices/attention_calls.py), its answer decides. The tables here are
for what was not asked: a GPU of another machine, a package that is not installed.
"""

from autotune.config import Config
from autotune.devices.hub_kernels import NOT_ALLOWED
from autotune.target import Target

BACKENDS = {  # kernels of torch's SDPA: value -> SDPBackend
    "sdpa_flash": "FLASH_ATTENTION",
    "sdpa_efficient": "EFFICIENT_ATTENTION",
    "sdpa_cudnn": "CUDNN_ATTENTION",
    "sdpa_math": "MATH",
}
OF_PACKAGES = {  # value -> its name in diffusers' dispatcher
    "flash_attn": "flash",
    "flash_attn_3": "_flash_3",
    "sage": "sage",
    "sage_fp16": "_sage_qk_int8_pv_fp16_cuda",
    "sage_fp16_triton": "_sage_qk_int8_pv_fp16_triton",
    "sage_fp8": "_sage_qk_int8_pv_fp8_cuda",
    "sage_fp8_sm90": "_sage_qk_int8_pv_fp8_cuda_sm90",
}
OF_HUB = {
    "flash_hub": "flash_hub",
    "flash_3_hub": "_flash_3_hub",
    "flash_4_hub": "flash_4_hub",
    "sage_hub": "sage_hub",
    "sage_blackwell_hub": "sage_blackwell_hub",
    "flash_varlen_hub": "flash_varlen_hub",
    "flash_3_varlen_hub": "_flash_3_varlen_hub",
    "aiter_hub": "aiter_fa2_hub",
}
DISPATCHED = {**OF_PACKAGES, "flex": "flex", **OF_HUB}
PACKAGES = {  # value -> (package, lowest version that diffusers accepts)
    "xformers": ("xformers", "0.0.29"),
    "flash_attn": ("flash-attn", "2.6.3"),
    "flash_attn_3": ("flash-attn-3", "3.0.0"),
    **{value: ("sageattention", "2.1.1") for value in OF_PACKAGES if value.startswith("sage")},
    **{value: ("kernels", "0.12.3" if value == "flash_4_hub" else "0.12") for value in OF_HUB},
}
NEEDS = {  # compute capability, where 8.0 is not enough
    "flash_attn_3": (9, 0),
    "sage_fp8": (8, 9),
    "sage_fp8_sm90": (9, 0),
    "flash_3_hub": (9, 0),
    "flash_3_varlen_hub": (9, 0),
    "flash_4_hub": (9, 0),
    "sage_blackwell_hub": (12, 0),
}
NINE_ALONE = {
    **dict.fromkeys(("flash_attn_3", "flash_3_hub", "flash_3_varlen_hub"), "FlashAttention-3"),
    "sage_fp8_sm90": "this variant",
}
VARLEN = {"flash_varlen_hub": "flash_hub", "flash_3_varlen_hub": "flash_3_hub"}  # take a mask -> the same without one
OF_AMD = ("aiter_hub",)
UNMASKED = tuple(value for value in (*OF_PACKAGES, *OF_HUB) if value not in VARLEN)  # take no attention mask
HALF = ("sdpa_flash", "sdpa_cudnn", *OF_PACKAGES, *OF_HUB)  # no float32
BY_HAND = tuple(value for value in OF_PACKAGES if value not in ("flash_attn", "sage"))  # Dynamo knows nothing of them


def answer(value: str, target: Target) -> dict[str, str] | None:
    """What a tiny call of this value's kernel showed: number format -> why it fails. None: it was not asked."""
    name = DISPATCHED.get(value, value.replace("sdpa_", "_native_"))
    return target.device.attention.get(name)


def fails_everywhere(value: str, target: Target) -> str | None:
    """Why no number format works, as a clause; None: one does, or the kernel was not asked."""
    faults = answer(value, target) or {}
    return faults["bf16"] if {"fp32", "fp16", "bf16"} <= faults.keys() else None


def missing(value: str, target: Target) -> str | None:
    """What this kernel of a package needs and the target does not have, as a clause; None: it has it all."""
    device, (package, lowest) = target.device, PACKAGES[value]
    installed = target.versions.get(package)
    if device.is_amd and answer(value, target) is not None:
        return None  # its answer decides: the other tables are of NVIDIA's cards
    if value in OF_AMD and not device.is_amd:
        return "needs an AMD GPU"
    if value not in OF_AMD and not device.is_nvidia:
        return "needs an NVIDIA GPU"
    if value not in ("xformers", *OF_AMD) and not device.at_least(*NEEDS.get(value, (8, 0))):
        return device.capability_fault(*NEEDS.get(value, (8, 0)))
    if value in NINE_ALONE and device.at_least(10):
        return f"{NINE_ALONE[value]} has kernels for compute capability 9 alone"
    if installed is None:
        return f"the package {package} is not installed"
    if _numbers(installed) < _numbers(lowest):
        return f"diffusers needs {package} {lowest}; {installed} is installed"
    asked_or_recorded = answer(value, target) is not None or OF_HUB.get(value) in target.pipeline.part_revisions
    return NOT_ALLOWED if value in OF_HUB and not asked_or_recorded else None


def masked(kernel: str, target: Target) -> str | None:
    """Why a kernel without masks can't compute the attention of each step, as a clause; None: there are no masks."""
    traits = target.pipeline.known
    if any(has_mask for _, has_mask, _ in traits.step_attention):
        return f"the {kernel} kernel takes no attention mask, and {traits.class_name} gives one"
    return None


def needs_no_lengths(value: str, target: Target) -> str | None:
    """Why the kernel for sequences of several lengths brings nothing, as a clause; None: there are masks."""
    traits = target.pipeline.known
    if any(has_mask for _, has_mask, _ in traits.step_attention):
        return None
    return f"{traits.class_name} gives no attention mask, and {VARLEN[value]} is the same kernel without one"


def wrong_format(config: Config, target: Target) -> str | None:
    """Why the kernel can't compute in the config's number format; None: it can."""
    value, dtype = str(config["attention"]), str(config["dtype"])
    if value in OF_AMD and dtype != "bf16":
        return f"{value} supports bfloat16 only"
    if value in HALF and dtype == "fp32":
        return f"{value} supports float16 and bfloat16 only"
    fault = (answer(value, target) or {}).get(dtype)
    return f"{value} with dtype={dtype}: {fault}" if fault else None


def breaks_graph(value: str, target: Target) -> str | None:
    """Why no whole graph can hold this kernel; None: one can. The operator for sage is autotune's own (_sage.py)."""
    faults = answer(value, target)
    if value == "sage" or (faults is None and value not in (*BY_HAND, *VARLEN)):
        return None
    if faults is None and value in VARLEN:
        return f"{value} asks the GPU how long the longest prompt is, where a whole graph breaks"
    if faults is None:
        return f"the kernels of {value} are no operators of torch, where a whole graph breaks"
    return f"{value}: {faults['graph']}" if "graph" in faults else None


def _numbers(version: str) -> tuple[int, ...]:
    """2.7.4.post1 -> (2, 7, 4)"""
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdecimal())
