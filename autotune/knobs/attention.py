"""How attention is computed: torch's SDPA, one of its kernels by force, the vanilla formula, or in slices.

A kernel is forced inside each attention processor, not around the call of the pipeline: there it travels with the pipe,
and lies inside compiled graphs, which otherwise keep (and share through the on-disk cache) whatever kernel was current
when they were made. Which kernel really ran, the profiler says: compiled, Inductor turns MATH back into a fused one.
"""

from functools import cache, wraps
from typing import Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Stage
from autotune.pipelines import parts
from autotune.target import Target

BACKENDS = {
    "sdpa_flash": "FLASH_ATTENTION",
    "sdpa_efficient": "EFFICIENT_ATTENTION",
    "sdpa_cudnn": "CUDNN_ATTENTION",
    "sdpa_math": "MATH",
}


HAVE_VANILLA = ("AttnProcessor2_0", "AttnAddedKVProcessor2_0")


def why_not(value: Value, target: Target) -> str | None:
    kernel = str(value).removeprefix("sdpa_")
    if value in BACKENDS and kernel not in target.device.sdpa_kernels:
        return f"torch has no {kernel} kernel for this device"
    if value == "sdpa_flash" and target.device.kind == "cpu":
        return "is what SDPA runs on a CPU anyway"
    if value == "sliced" and not target.pipeline.known.slices_attention:
        return f"{target.pipeline.known.denoiser_class} can't slice its attention"
    processors = set(target.pipeline.known.attention_processors)
    if value == "vanilla" and not processors <= set(HAVE_VANILLA):
        return f"diffusers has no vanilla attention for {target.pipeline.known.denoiser_class}"
    return None


def clash(config: Config, target: Target) -> str | None:
    value = config["attention"]
    if value in ("vanilla", "sliced") and config["qkv_fusion"]:
        return f"{value} attention reads the separate projections, so fusing them would be wasted"
    if value == "sdpa_math" and config["compile"] != "off":
        return "compiled, Inductor's fuse_attention pass turns the math kernel back into a fused one"
    if value in ("sdpa_flash", "sdpa_cudnn") and config["dtype"] == "fp32":
        return f"{value} takes float16 and bfloat16 only"
    return None


def apply(pipe: Any, config: Config, device: str) -> Effect:
    value, denoiser = str(config["attention"]), parts.denoiser(pipe)
    if value == "sliced":
        pipe.enable_attention_slicing("auto")
        return Effect(count=len(denoiser.attn_processors), what="attention blocks sliced")
    models = filter(None, (*parts.step_models(pipe).values(), parts.vae(pipe)))
    blocks = [m for model in models for m in model.modules() if getattr(m, "processor", None) is not None]
    for block in blocks:
        block.set_processor(_vanilla(block) if value == "vanilla" else _force(block.processor, BACKENDS[value]))
    return Effect(count=len(blocks), what=f"attention blocks set to {value}")


def verify(pipe: Any, config: Config, kernels: dict[str, int]) -> Effect:
    """The kernel asked for must be the kernel that ran, and the only one."""
    value = str(config["attention"])
    seen = ", ".join(f"{count} {name}" for name, count in kernels.items()) or "no SDPA"
    if value not in BACKENDS:
        return Effect(count=0 if kernels else 1, what=f"kind of attention as asked for, {seen}")
    wanted = value.removeprefix("sdpa_")
    count = kernels.get(wanted, 0) if set(kernels) <= {wanted} else 0
    return Effect(count=count, what=f"attention calls by the {wanted} kernel alone in two steps, seen: {seen}")


def _vanilla(block: Any) -> Any:
    """The processor that writes attention out as a formula, of the kind that this block needs."""
    from diffusers.models.attention_processor import AttnAddedKVProcessor, AttnProcessor

    return AttnAddedKVProcessor() if "AddedKV" in type(block.processor).__name__ else AttnProcessor()


def _force(processor: Any, backend_name: str) -> Any:
    """The processor, but SDPA may run no other kernel inside it. Its class changes, its state stays."""
    kind: Any = type(processor)
    forced = object.__new__(_forced(kind, backend_name))
    forced.__dict__.update(getattr(processor, "__dict__", {}))
    return forced


@cache
def _forced(cls: Any, backend_name: str) -> Any:
    """One class for all processors of a kind: with one each, no two compiled blocks could share a graph, and a large
    denoiser has more blocks than Dynamo allows graphs of one function."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backend = getattr(SDPBackend, backend_name)

    class Forced(cls):  # type: ignore[misc]
        @wraps(cls.__call__)  # diffusers passes on only the arguments that it finds in the signature
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with sdpa_kernel(backend):
                return cls.__call__(self, *args, **kwargs)

    return Forced


KNOB = Knob(
    name="attention",
    stage=Stage.ATTENTION,
    values=("sdpa", *BACKENDS, "vanilla", "sliced"),
    changes_output=False,
    summary="how attention is computed",
    why_not=why_not,
    clash=clash,
    apply=apply,
    verify=verify,
)
