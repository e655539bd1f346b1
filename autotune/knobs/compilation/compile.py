"""compile: which parts torch.compile compiles: the denoiser's repeated blocks, the denoiser, the VAE, text encoders.

A ControlNet runs once a step, so it is compiled with the denoiser. Regional compilation makes one graph for each class
of blocks and reuses it: nearly the same speed, in a fraction of the time to compile. Shapes are static unless
`compile_shapes` says otherwise: a call of another size compiles again. Only the length of the prompt is dynamic, where
a model is given no padding. Graphs must be whole (`fullgraph`), unless hooks of offloading prevent it.

"trace" is torch.jit.trace of the denoiser, as in early guides. It is deprecated in torch in favour of torch.compile, so
it is available only where a space file or --fix names it.
"""

from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.knob import Change, Effect, Knob, Script, Stage
from autotune.knobs.compilation import _encoders, _shapes
from autotune.knobs.compilation._inductor import flags_of
from autotune.knobs.compilation._trace import trace_on_first_call
from autotune.pipelines import parts
from autotune.pipelines.running import traits_for
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DECODES = ("denoiser+vae", "everything")
UNHOOKED = ("none", "text_encoders")  # the values of offload that put no hooks on what is compiled


def why_not(value: Value, target: Target) -> str | None:
    traits = target.pipeline.known
    if value not in ("off", "trace") and target.device.compile_fault:
        return target.device.compile_fault
    if value == "regional" and not traits.repeated_blocks:
        return f"{traits.denoiser_class} has no repeated blocks"
    if value in ("denoiser", *DECODES) and traits.whole_graph_fault:
        return f"no whole graph can hold the denoiser: {traits.whole_graph_fault}"
    if value == "denoiser+vae" and traits.vae_class is None:
        return f"{traits.class_name} has no VAE"
    if value == "everything" and not traits.text_encoders:
        return f"{traits.class_name} has no text encoder"
    if value == "trace" and traits.denoiser_class != "UNet2DConditionModel":
        return f"torch.jit.trace is supported for UNets, not for {traits.denoiser_class}"
    return None


def clash(config: Config, target: Target) -> str | None:
    value = config["compile"]
    if value == "off":
        return None
    if value != "regional" and config["tome_ratio"]:
        return "the hook of token merging breaks the graph of a whole denoiser; regional compilation supports it"
    if value == "trace" and (config["offload"] != "none" or config["quantization"] != "none"):
        return "torch.jit.trace does not support the hooks of offloading or quantized weights"
    if config["dtype"] == "bf16" and target.device.is_nvidia and not target.device.at_least(8):
        return "Inductor skips bfloat16 below compute capability 8.0"
    # A block is given what a convolution put out, transposed, where no layout or fused projection changes that.
    apart = config["memory_format"] == "contiguous" and not config["qkv_fusion"]
    if value == "regional" and config["dtype"] == "bf16" and config["quantization"] == "int8_dynamic" and apart:
        return target.device.shared_int8_fault
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    if config["compile"] == "trace":
        trace_on_first_call(parts.denoiser(pipe))
        return Effect(count=1, what="models to trace")
    import torch

    how = _how(config, pipe)
    if how["dynamic"]:
        _shapes.allow_unequal_sizes(pipe)
    models = parts.step_models(pipe)
    compiled = 0
    for name, model in models.items():
        if config["compile"] == "regional" and name != "controlnet":
            compiled += _compile_blocks(model, {**how, "fullgraph": True})  # hooks of offloading are outside of blocks
        elif _pipeline_marks_steps(models, config):
            setattr(pipe, name, torch.compile(model, **how))
            compiled += 1
        else:
            model.compile(**how)
            compiled += 1
    vae = parts.vae(pipe)
    if config["compile"] in DECODES and vae is not None:
        vae.decode = torch.compile(vae.decode, **how)
        compiled += 1
    compiled += _encoders.compile_them(pipe, config, how, device)
    return Effect(count=compiled, what="modules to compile")


def _how(config: Config, pipe: "DiffusionPipeline") -> dict[str, Any]:
    """The arguments of torch.compile.

    With dynamic=None, the dimension that differs in the second call, the length of the prompt, is dynamic from then on.
    """
    import torch

    # torch.compile takes a mode or options, not both, so the mode is given as its options.
    mode, flags = str(config["compile_mode"]), flags_of(str(config["inductor_flags"]))
    options = {**(torch._inductor.list_mode_options(mode) if mode != "default" else {}), **flags}
    traits = traits_for(pipe)
    dynamic = _dynamic(config, traits is not None and traits.prompt_lengths_vary)
    return {"fullgraph": config["offload"] in UNHOOKED, "dynamic": dynamic, "options": options or None}


def _dynamic(config: Config, prompt_lengths_vary: bool) -> bool | None:
    if _shapes.is_dynamic(config):
        return True
    return None if prompt_lengths_vary else False


def _pipeline_marks_steps(models: dict[str, Any], config: Config) -> bool:
    """Must the pipeline mark where a step begins?

    CUDA graphs of a UNet and a ControlNet pass tensors to each other, which needs such marks. diffusers sets them only
    where both models are wrapped by torch.compile, not compiled in place.
    """
    return "controlnet" in models and config["compile_mode"] in ("reduce-overhead", "max-autotune")


def _compile_blocks(model: Any, how: dict[str, Any]) -> int:
    """Compile each repeated block of the denoiser; the number of blocks."""
    import torch

    from autotune.pipelines.inspect import repeated_blocks

    # Base classes count: token merging makes a subclass of each block's class.
    kinds = set(repeated_blocks(model))
    blocks = [m for m in model.modules() if kinds & {cls.__name__ for cls in type(m).__mro__}]
    for block in blocks:
        cache = _cache_hook(block)
        if cache is None:
            block.compile(**how)
        else:  # the hook decides by values whether the block runs, so only what is inside the hook is compiled
            cache.fn_ref.original_forward = torch.compile(cache.fn_ref.original_forward, **how)
    return len(blocks)


def _cache_hook(block: Any) -> Any | None:
    """The hook of diffusers' block cache, which runs in place of the block; None: there is none."""
    hooks = block._diffusers_hook.hooks.values() if hasattr(block, "_diffusers_hook") else ()
    return next((hook for hook in hooks if hasattr(hook, "new_forward")), None)


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    """The number of compiled graphs; 0 if a whole graph was required and torch ran a function uncompiled instead."""
    from autotune.knobs.compilation._trace import traced_graphs

    if config["compile"] == "trace":
        return Effect(count=traced_graphs(parts.denoiser(pipe)), what="graphs traced (deprecated in torch)")
    from torch._dynamo.utils import counters, get_compilation_metrics

    attempts = get_compilation_metrics()
    failed = sum(attempt.fail_reason is not None for attempt in attempts)
    recompiled = sum(attempt.fail_reason is None and attempt.recompile_reason is not None for attempt in attempts)
    what = f"graphs compiled, {sum(counters['graph_break'].values())} graph breaks, {recompiled} recompilations"
    if failed and config["offload"] in UNHOOKED:
        return Effect(count=0, what=f"{what}, and {failed} functions that failed to compile and ran uncompiled")
    return Effect(count=counters["stats"]["unique_graphs"], what=what)


def undone_by(value: Value, change: Change) -> str | None:
    traced = value == "trace" and change != "save"
    return "keeps the layers of its first call in a traced graph" if traced else None


def script(config: Config, target: Target) -> Script:
    value, traits = str(config["compile"]), target.pipeline.known
    if value == "off":
        return Script()
    if value == "trace":
        return Script(why_not="torch.jit.trace is deprecated, and needs a class of autotune's own to trace each shape")
    how = _how_in_a_script(config, traits.prompt_lengths_vary)
    steps = [*traits.denoisers, *(["controlnet"] if traits.controlnet_class else [])]
    lines = [_shapes.DUCK_SHAPES] if _shapes.is_dynamic(config) else []
    for name in steps:
        if value == "regional" and name != "controlnet":
            whole = how.replace("fullgraph=False", "fullgraph=True")
            lines += [
                f"for block in pipe.{name}.modules():",
                f"    if any(cls.__name__ in {traits.repeated_blocks} for cls in type(block).__mro__):",
                f"        block.compile({whole})",
            ]
        elif traits.controlnet_class and config["compile_mode"] in ("reduce-overhead", "max-autotune"):
            lines.append(f"pipe.{name} = torch.compile(pipe.{name}, {how})")
        else:
            lines.append(f"pipe.{name}.compile({how})")
    if value in DECODES and traits.vae_class is not None:
        decode = f"pipe.{traits.vae_name}.decode"
        lines.append(f"{decode} = torch.compile({decode}, {how})")
    lines += _encoders.lines(config, target, how)
    imports = ("import torch.fx.experimental._config",) if _shapes.is_dynamic(config) else ()
    return Script(imports=imports, lines=tuple(lines))


def _how_in_a_script(config: Config, prompt_lengths_vary: bool) -> str:
    """The arguments of torch.compile as source text."""
    mode, flags = str(config["compile_mode"]), flags_of(str(config["inductor_flags"]))
    how = f"fullgraph={config['offload'] in UNHOOKED}, dynamic={_dynamic(config, prompt_lengths_vary)}"
    if not flags:
        return how if mode == "default" else f'{how}, mode="{mode}"'
    of_mode = f'**torch._inductor.list_mode_options("{mode}"), ' if mode != "default" else ""
    options = ", ".join(f'"{name}": {flag}' for name, flag in flags.items())
    return f"{how}, options={{{of_mode}{options}}}"


KNOB = Knob(
    name="compile",
    stage=Stage.COMPILE,
    values=("off", "regional", "denoiser", "denoiser+vae", "everything"),
    changes_output=False,
    nearest={
        "everything": ("denoiser+vae", "denoiser", "regional"),
        "denoiser+vae": ("denoiser", "regional"),
        "denoiser": ("regional",),
        "regional": ("denoiser",),
    },
    summary="which parts torch.compile compiles",
    also=lambda value: value == "trace",
    why_not=why_not,
    clash=clash,
    apply=apply,
    verify=verify,
    reads_kernels=False,
    undone_by=undone_by,
    script=script,
)
