"""attention: how attention is computed: torch's SDPA, one forced kernel, the plain formula, slices, other packages.

A kernel of SDPA is forced in the models that run each step, not in the VAE, whose attention has one head of 512 that no
fast kernel takes. It is forced inside each attention processor, not around the call of the pipeline. So it stays with
the pipe, and it is part of compiled graphs. Those would otherwise keep the kernel that was current when they were
compiled, and share it through the cache on the disk. `verify` asks the profiler which kernel ran, because Inductor
replaces the math kernel by a fused one.

flash_attn, sage, their variants and flex use diffusers' attention dispatcher, which supports some models (Flux) and not
others (UNets). They are set on each processor, because `set_attention_backend` would also change the default of every
model made later. flex is torch's own. It is a single kernel only when compiled, so it is available only then. The
variants of sage multiply with the values in float16 or fp8.

Values that end in `_hub` are kernels that the package `kernels` downloads from the hub: code, which runs only where you
allow it (AUTOTUNE_HUB_KERNELS=accept). Their commit is part of what a study records, and that commit is what production
loads. FlashAttention-4 comes in this form alone, and aiter, for AMD's cards. The two with "varlen" pick the keys that a
mask allows, which the others can't: they are for models that give one. diffusers' other backends are not offered:
`flash_varlen`, `_flash_varlen_3` and `sage_varlen` keep the first keys, as many as the mask allows, which is another
picture where the padding comes first, as Qwen-Image's does; two are for kinds of device that are not supported here.

The probe asks each kernel that is here by a tiny call, with the model's head size and mask, in each number format, and
whether a whole graph can hold it. What it answers is the reason. All but torch's own kernels were never seen on a GPU.
"""

from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.devices import hub_kernels
from autotune.knob import Change, Effect, Knob, Script, Stage
from autotune.knobs.attention._backends import (
    BACKENDS,
    DISPATCHED,
    OF_HUB,
    PACKAGES,
    UNMASKED,
    VARLEN,
    answer,
    breaks_graph,
    fails_everywhere,
    masked,
    missing,
    needs_no_lengths,
    wrong_format,
)
from autotune.knobs.attention._processors import beside_adapter, weighted_processors, would_replace
from autotune.knobs.attention._sage import as_operator
from autotune.pipelines import parts
from autotune.pipelines.running import revision_for
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

HAVE_VANILLA = ("AttnProcessor2_0", "AttnAddedKVProcessor2_0")
HAVE_XFORMERS = (*HAVE_VANILLA, "JointAttnProcessor2_0")
SDPA_KERNELS = {"flash", "efficient", "cudnn", "math"}
# The largest head that a kernel takes on any GPU (torch's sdp_utils.cpp), where torch was not asked of this one: a GPU
# of another machine, or a study of an earlier version.
ON_ANY_GPU = {"flash": 256, "cudnn": 128}


def why_not(value: Value, target: Target) -> str | None:
    traits, kernel = target.pipeline.known, str(value).removeprefix("sdpa_")
    if value in BACKENDS and kernel not in target.device.sdpa_kernels:
        return f"torch has no {kernel} kernel for this device"
    if value == "sdpa_flash" and not target.device.is_gpu:
        return "is the kernel that SDPA chooses on a CPU anyway"
    if value in BACKENDS and (fault := _unforceable(str(value), target)):
        return fault
    if value == "flex" and not target.device.is_gpu:
        return "torch's flex attention is made for GPUs"
    if value in ("sliced", "vanilla", "xformers") and (fault := beside_adapter(target)):
        return fault
    if value == "sliced" and not traits.slices_attention:
        return f"{traits.denoiser_class} does not support attention slicing"
    processors = set(traits.attention_processors)
    if value == "vanilla" and not processors <= set(HAVE_VANILLA):
        return f"diffusers has no vanilla attention for {traits.denoiser_class}"
    if value in DISPATCHED and not traits.dispatches_attention:
        return f"diffusers' attention dispatcher does not support {traits.denoiser_class}"
    if value in UNMASKED and (fault := masked(str(value), target)):
        return fault
    if value in VARLEN and (fault := needs_no_lengths(str(value), target)):
        return fault
    if value == "xformers" and not traits.dispatches_attention and not processors <= set(HAVE_XFORMERS):
        return f"diffusers has no xFormers attention for {traits.denoiser_class}"
    if value in PACKAGES and (fault := missing(str(value), target)):
        return fault
    return fails_everywhere(str(value), target) if value in DISPATCHED or value == "xformers" else None


def _unforceable(value: str, target: Target) -> str | None:
    """Why the kernel can't compute the attention of the models that run each step, as a clause; None: it can."""
    traits, kernel = target.pipeline.known, value.removeprefix("sdpa_")
    if any(not in_processor for _, _, in_processor in traits.step_attention):
        return f"{traits.denoiser_class} calls SDPA outside of attention processors, where no kernel can be forced"
    if answer(value, target) is not None:
        return (masked(kernel, target) if value == "sdpa_flash" else None) or fails_everywhere(value, target)
    most = target.device.sdpa_heads.get(kernel, ON_ANY_GPU.get(kernel))
    largest = max((head for head, _, _ in traits.step_attention), default=0)
    if most is not None and largest > most:
        return f"the {kernel} kernel takes heads of at most {most}; {traits.denoiser_class} has heads of {largest}"
    odd = next((head for head, _, _ in traits.step_attention if head % 8), None)
    if value == "sdpa_cudnn" and odd is not None:
        return f"the cudnn kernel takes heads of a multiple of 8; {traits.denoiser_class} has heads of {odd}"
    return masked(kernel, target) if value == "sdpa_flash" else None


def clash(config: Config, target: Target) -> str | None:
    value = config["attention"]
    separate = value == "xformers" and not target.pipeline.known.dispatches_attention
    if (value in ("vanilla", "sliced") or separate) and config["qkv_fusion"]:
        return f"{value} attention uses the separate projections, so qkv_fusion would have no effect"
    if value in BACKENDS and config["compile"] == "trace":
        return "a traced graph does not keep the attention kernel that was forced while it was traced"
    if value == "sdpa_math" and config["compile"] != "off":
        return "Inductor's fuse_attention pass replaces the math kernel by a fused one"
    if value == "flex" and config["compile"] == "off":
        return "flex attention is a slow formula unless it is compiled"
    if fault := wrong_format(config, target):
        return fault
    return breaks_graph(str(value), target) if config["compile"] != "off" else None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    value, denoisers = str(config["attention"]), parts.denoisers(pipe).values()
    if value in ("sliced", "vanilla") and any(map(weighted_processors, denoisers)):
        raise would_replace(f"attention={value}")
    if value == "sliced":
        pipe.enable_attention_slicing("auto")
        for net in parts.joined_controlnets(pipe):
            net.set_attention_slice("auto")
        return Effect(count=sum(len(d.attn_processors) for d in denoisers), what="attention blocks sliced")
    blocks = _blocks(pipe)
    if value in DISPATCHED or (value == "xformers" and any(map(_is_dispatched, blocks))):
        name = DISPATCHED.get(value, value)
        commit = hub_kernels.fetch(name, revision_for(pipe, name)) if value in OF_HUB else None
        of_hub = f", the hub's kernel at {commit[:12]}" if commit else ""
        return Effect(count=_dispatch(blocks, name), what=f"attention blocks set to {value}{of_hub}")
    if value == "xformers":
        pipe.enable_xformers_memory_efficient_attention()
        count = sum("XFormers" in type(block.processor).__name__ for block in blocks)
        return Effect(count=count, what="attention blocks set to xformers")
    if value in BACKENDS:
        blocks = _of_steps(pipe)
    for block in blocks:
        block.set_processor(_vanilla(block) if value == "vanilla" else _force(block.processor, BACKENDS[value]))
    return Effect(count=len(blocks), what=f"attention blocks set to {value}")


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    """The requested kernel must be the only one that ran.

    The profiler does not know the kernels of all packages by name. For such a kernel, none of torch's own kernels may
    have run, and all of the denoiser's blocks must be set to the package.
    """
    value = str(config["attention"])
    seen = ", ".join(f"{count} {name}" for name, count in kernels.items()) or "no SDPA"
    if value in PACKAGES or value in DISPATCHED:
        count = 0 if SDPA_KERNELS & set(kernels) else kernels.get(value) or _set_to(value, pipe)
        return Effect(count=count, what=f"attention calls or blocks with {value} alone, seen: {seen}")
    if value not in BACKENDS:
        return Effect(count=0 if kernels else 1, what=f"kind of attention as requested, {seen}")
    requested = value.removeprefix("sdpa_")
    count = kernels.get(requested, 0) if set(kernels) <= {requested} else 0
    return Effect(count=count, what=f"attention calls by the {requested} kernel alone in the first steps, seen: {seen}")


def _blocks(pipe: "DiffusionPipeline") -> list[Any]:
    """Every attention block of the denoiser, the ControlNet and the VAE."""
    models = filter(None, (*parts.step_models(pipe).values(), parts.vae(pipe)))
    return [m for model in models for m in model.modules() if getattr(m, "processor", None) is not None]


def _of_steps(pipe: "DiffusionPipeline") -> list[Any]:
    """The attention blocks of the models that run each step whose processors can be replaced."""
    modules = [m for model in parts.step_models(pipe).values() for m in model.modules()]
    return [m for m in modules if getattr(m, "processor", None) is not None and hasattr(m, "set_processor")]


def _is_dispatched(block: Any) -> bool:
    return hasattr(block.processor, "_attention_backend")


def _dispatch(blocks: list[Any], name: str) -> int:
    """Set the dispatcher's backend of these blocks; the number of blocks that were set.

    Raises RuntimeError where the package is missing.
    """
    from diffusers.models import attention_dispatch

    backend = attention_dispatch.AttentionBackendName(name)
    attention_dispatch._check_attention_backend_requirements(backend)
    if name == "sage":
        as_operator(attention_dispatch)
    reached = list(filter(_is_dispatched, blocks))
    for block in reached:
        block.processor._attention_backend = backend
    return len(reached)


def _set_to(value: str, pipe: "DiffusionPipeline") -> int:
    """The number of the denoiser's blocks that are set to this value's kernel; 0 unless all are."""
    modules = [m for denoiser in parts.denoisers(pipe).values() for m in denoiser.modules()]
    processors = [m.processor for m in modules if getattr(m, "processor", None) is not None]
    name = DISPATCHED.get(value, value)
    done = [p for p in processors if "XFormers" in type(p).__name__ or getattr(p, "_attention_backend", None) == name]
    return len(done) if len(done) == len(processors) else 0


def _vanilla(block: Any) -> Any:
    """The processor that computes attention by the plain formula, of the kind that this block needs."""
    from diffusers.models.attention_processor import AttnAddedKVProcessor, AttnProcessor

    return AttnAddedKVProcessor() if "AddedKV" in type(block.processor).__name__ else AttnProcessor()


def _force(processor: Any, backend_name: str) -> Any:
    """The processor, in which SDPA may run this kernel only. It has another class and the same state."""
    kind: Any = type(processor)
    forced = object.__new__(_forced(kind, backend_name))
    forced.__dict__.update(getattr(processor, "__dict__", {}))
    return forced


@cache
def _forced(cls: Any, backend_name: str) -> Any:
    """One class for all processors of a kind.

    With a class for each processor, no two compiled blocks could share a graph, and a large denoiser has more blocks
    than Dynamo allows graphs of one function.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backend = getattr(SDPBackend, backend_name)

    class Forced(cls):  # type: ignore[misc]
        @wraps(cls.__call__)  # diffusers passes only the arguments that it finds in the signature
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with sdpa_kernel(backend):
                return cls.__call__(self, *args, **kwargs)

    return Forced


def undone_by(value: Value, change: Change) -> str | None:
    replaced = change in ("ip_adapter", "processors")
    return "acts in the attention processors, which would be replaced" if replaced else None


def script(config: Config, target: Target) -> Script:
    value, traits = str(config["attention"]), target.pipeline.known
    if value in OF_HUB:
        return Script(why_not="a plain script would load the newest kernel of the hub, not the one that was measured")
    if value in BACKENDS:
        return Script(why_not="the kernel is forced by autotune's own attention processors")
    if value == "sliced":
        nets = ("for net in pipe.controlnet.nets:", '    net.set_attention_slice("auto")')
        return Script(lines=('pipe.enable_attention_slicing("auto")', *(nets if traits.control_pictures > 1 else ())))
    if value in DISPATCHED or (value == "xformers" and traits.dispatches_attention):
        name = DISPATCHED.get(value, value)
        return Script(lines=tuple(f'pipe.{one}.set_attention_backend("{name}")' for one in traits.denoisers))
    if value == "xformers":
        return Script(lines=("pipe.enable_xformers_memory_efficient_attention()",))
    if any("AddedKV" in name for name in traits.attention_processors):
        return Script(why_not="autotune chooses the plain attention processor block by block")
    models = [
        *traits.denoisers,
        *(["controlnet"] if traits.controlnet_class else []),
        *([traits.vae_name] if traits.vae_class else []),
    ]
    lines = (
        f"for model in ({', '.join(f'pipe.{name}' for name in models)},):",
        "    for block in model.modules():",
        '        if getattr(block, "processor", None) is not None:',
        "            block.set_processor(AttnProcessor())",
    )
    return Script(imports=("from diffusers.models.attention_processor import AttnProcessor",), lines=lines)


KNOB = Knob(
    name="attention",
    stage=Stage.ATTENTION,
    values=("sdpa", *BACKENDS, "vanilla", "sliced", "xformers", *DISPATCHED),
    changes_output=False,
    summary="how attention is computed",
    why_not=why_not,
    clash=clash,
    apply=apply,
    verify=verify,
    undone_by=undone_by,
    nearest={
        "flash_hub": ("flash_attn",),
        "flash_3_hub": ("flash_attn_3",),
        "flash_attn_3": ("flash_attn",),
        "sage_hub": ("sage",),
        "sage_blackwell_hub": ("sage",),
        **{value: ("sage",) for value in DISPATCHED if value.startswith(("sage_fp16", "sage_fp8"))},
    },
    script=script,
)
