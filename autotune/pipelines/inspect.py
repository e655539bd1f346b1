"""Inspect: the traits of a pipeline, read off its real classes, built without weights on torch's "meta" device."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from autotune.pipeline import Pipeline, Traits
from autotune.pipelines import call, checkpoint, inputs, loading, locate, parts
from autotune.pipelines.adapters import gguf_file, ip_adapter, textual_inversion
from autotune.pipelines.random_weights import assemble
from autotune.pipelines.rehearsal.facts import facts_of
from autotune.pipelines.rehearsal.sequential import sequential_fault
from autotune.pipelines.rehearsal.strength import strength_of
from autotune.pipelines.replacement_vae import REPLACEMENT_VAES, vae_fault
from autotune.pipelines.running import remember

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


SMALL = 8  # latent cells of a side that is decoded to see how many frames come out
# The traits that rehearsed calls show and that have no default, where none was rehearsed.
UNSEEN = {"vae_upcasts_fp16": False, "fuses_qkv": False}


def traits_of(pipeline: Pipeline, *, rehearsed: bool = True) -> Traits:
    """The traits of the pipeline, from its configurations, see read_traits(). Raises UserError as assembled()."""
    return read_traits(assembled(pipeline), pipeline, rehearsed=rehearsed)


def assembled(pipeline: Pipeline) -> "DiffusionPipeline":
    """The pipe without weights. Raises UserError where autotune can't provide the arguments of its call."""
    pipe = assemble(pipeline, dtype=torch.float32, device="meta")
    remember(pipe, task=pipeline.task)
    loading.set_scheduler(pipe, pipeline)
    for source in pipeline.textual_inversions:
        textual_inversion.check(pipe, source)
    if pipeline.ip_adapter is not None:
        ip_adapter.put_on(pipe, pipeline, local_files_only=True, empty=True)
    inputs.check_call(pipe)
    return pipe


def read_traits(
    pipe: "DiffusionPipeline",
    pipeline: Pipeline,
    *,
    rehearsed: bool,
    given: Mapping[str, Any] | None = None,
    negative_prompt: str | None = None,
) -> Traits:
    """The traits of an assembled pipe. Downloads the VAEs that could replace its own.

    rehearsed               also those that rehearsed calls show, which takes seconds; else they have their defaults
    given, negative_prompt  what the user gives to the call, see facts_of()
    """
    seen: dict[str, Any] = facts_of(pipe, given, negative_prompt) if rehearsed else {**UNSEEN, "unknown": {}}
    of_call = _of_call(pipe)
    seen["unknown"] |= of_call.pop("unknown")
    return Traits(
        class_name=type(pipe).__name__,
        default_steps=call.default(pipe, "num_inference_steps") or 50,
        size_multiple=_size_multiple(pipe),
        prompt_tokens=_prompt_tokens(pipe),
        inputs=inputs.picture_arguments(pipe),
        size_arguments=tuple(call.size_arguments(pipe)),
        random_prompt_embeds=inputs.reads_no_prompt(pipe),
        text_encoders=tuple(parts.text_encoders(pipe)),
        callback_tensors=_callback_tensors(pipe),
        quantized=_quantized(pipeline, pipe),
        sequential_fault=_sequential_fault(pipeline, pipe),
        **seen,
        **of_call,
        **_of_denoiser(pipe),
        **_of_vae(pipe, pipeline),
        **_of_scheduler(pipe),
    )


def _of_call(pipe: "DiffusionPipeline") -> dict[str, Any]:
    pictures = {
        name: [inputs.PICTURES[kind](0, 256, 256)] * inputs.picture_number(pipe, kind)
        for name, kind in inputs.picture_arguments(pipe).items()
    }
    size, guidance = call.default_size(pipe, pictures), call.guidance_argument(pipe)
    fault = call.guidance_fault(pipe)
    scale = call.default_guidance(pipe)
    if fault is not None and guidance is not None:
        scale = 1.0  # no guidance, as the model cards of distilled checkpoints say
    width, height = (None, None) if isinstance(size, str) else size
    return {
        "default_width": width,
        "default_height": height,
        "unknown": {"default_width": size} if isinstance(size, str) else {},
        "guidance_argument": guidance,
        "guidance_fault": fault,
        "guided_above": call.guided_above(pipe),
        "default_guidance_scale": scale,
        "takes_negative_prompt": "negative_prompt" in call.parameters(pipe),
        "default_negative_prompt": call.negative_prompt(pipe),
        "call_arguments": call.settable(pipe),
        **_frames(pipe),
        **strength_of(pipe),
    }


def _frames(pipe: "DiffusionPipeline") -> dict[str, Any]:
    """How a pipe that makes videos takes the number of frames of a clip."""
    argument = call.frames_argument(pipe)
    if argument is None:
        return {}
    config = parts.denoiser(pipe).config
    number = call.default(pipe, argument) or getattr(config, "sample_frames", None)
    return {"frames_argument": argument, "default_frames": number, "frames_multiple": _frames_multiple(pipe)}


def _frames_multiple(pipe: "DiffusionPipeline") -> int:
    """The frames of a clip after the first are a multiple of this: those of one latent frame, or of two.

    The VAE is asked: CogVideoX's decodes an odd number of latent frames to 1 + 4 n frames, but an even one to 4 n.
    """
    cell, vae = parts.cell_frames(pipe), parts.vae(pipe)
    config = getattr(vae, "config", None)
    channels = getattr(config, "latent_channels", None) or getattr(config, "z_dim", None)
    if vae is None or cell == 1 or not isinstance(channels, int):
        return cell
    for latents in (1, 2):
        try:
            with torch.device("meta"), torch.no_grad():
                clip = vae.decode(torch.empty(1, channels, 1 + latents, SMALL, SMALL), return_dict=False)[0]
        except (RuntimeError, ValueError, TypeError):  # a VAE that must have values: it is as the pipe says
            return cell
        if clip.shape[2] == 1 + latents * cell:
            return latents * cell
    return cell


def _quantized(pipeline: Pipeline, pipe: "DiffusionPipeline") -> dict[str, str]:
    """Component -> method, of a checkpoint (or a factory's pipe) whose weights are quantized already."""
    if pipeline.factory is not None:
        quantizers = {name: getattr(part, "hf_quantizer", None) for name, part in pipe.components.items()}
        return {name: type(q).__name__ for name, q in quantizers.items() if q is not None}
    random = pipeline.weights == "random" and pipeline.gguf is None
    if random or checkpoint.is_single_file(pipeline.source):
        return {}
    folder = locate.folder_of(pipeline, configurations_only=pipeline.weights == "random")
    found = checkpoint.quantized_components(folder)
    if pipeline.gguf is not None:
        name, _ = gguf_file.denoiser_of(folder, pipeline.gguf)
        formats = gguf_file.formats_of(gguf_file.file_of(pipeline, local_files_only=True))
        found[name] = f"GGUF, {next(iter(formats))}"
    return found


def _sequential_fault(pipeline: Pipeline, pipe: "DiffusionPipeline") -> str | None:
    """Why sequential offloading can't move the weights, as a clause; None: it can, or they are not known."""
    models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    weights = [weight for model in models for weight in model.parameters()]
    if pipeline.gguf is not None:
        weights.append(gguf_file.one_packed_weight(gguf_file.file_of(pipeline, local_files_only=True)))
    return sequential_fault(weight for weight in weights if weight is not None)


def _callback_tensors(pipe: "DiffusionPipeline") -> tuple[str, ...]:
    """The tensors that callback_on_step_end may change; empty where the call takes no such callback."""
    taken = "callback_on_step_end" in call.parameters(pipe)
    return tuple(getattr(pipe, "_callback_tensor_inputs", ())) if taken else ()


def _prompt_tokens(pipe: "DiffusionPipeline") -> int:
    """The length of a prompt that the call reads: the tokenizer's context, or the call's own limit if that is less."""
    tokenizer, limit = parts.tokenizer(pipe), call.default(pipe, "max_sequence_length")
    context = None if tokenizer is None else int(tokenizer.model_max_length)
    return min((n for n in (context, limit) if n is not None), default=inputs.EMBEDDING_TOKENS)


def _of_denoiser(pipe: "DiffusionPipeline") -> dict[str, Any]:
    denoiser, controlnet = parts.denoiser(pipe), parts.controlnet(pipe)
    processors = [m.processor for m in denoiser.modules() if getattr(m, "processor", None) is not None]
    convolutions = _all(denoiser, torch.nn.Conv2d)
    linear = _all(denoiser, torch.nn.Linear)
    return {
        "denoiser": parts.denoiser_name(pipe),
        "denoiser_class": type(denoiser).__name__,
        "more_denoisers": tuple(parts.denoisers(pipe))[1:],
        "controlnet_class": type(controlnet).__name__ if controlnet is not None else None,
        "control_pictures": parts.control_pictures(pipe),
        "slices_attention": hasattr(denoiser, "set_attention_slice"),
        "repeated_blocks": repeated_blocks(denoiser),
        "attention_downsamples": tuple(sorted({downsample_of(n, denoiser) for n in transformer_blocks(denoiser)})),
        "attention_processors": tuple(sorted({type(processor).__name__ for processor in processors})),
        "dispatches_attention": any(hasattr(processor, "_attention_backend") for processor in processors),
        "linear_shapes": tuple(sorted({(m.in_features, m.out_features) for m in linear})),
        "convolutions": len(convolutions),
        "convolutions_3d": len(_all(denoiser, torch.nn.Conv3d)),
        "conv1x1_shapes": tuple(
            sorted({(c.in_channels, c.out_channels) for c in convolutions if set(c.kernel_size) == {1}})
        ),
    }


def _of_vae(pipe: "DiffusionPipeline", pipeline: Pipeline) -> dict[str, Any]:
    vae: Any = parts.vae(pipe)
    if vae is None:
        none = {value: f"{type(pipe).__name__} has no VAE" for value in REPLACEMENT_VAES}
        return {"vae_class": None, "vae_tile_px": None, "vae_faults": none}
    faults = {value: vae_fault(pipeline, value, vae.config) for value in REPLACEMENT_VAES}
    return {
        "vae_class": type(vae).__name__,
        "vae_name": parts.vae_name(pipe),
        "vae_tile_px": _tile_px(vae),
        "vae_slices": hasattr(vae, "use_slicing"),
        "vae_convolutions": len(_all(vae, torch.nn.Conv2d)),
        "vae_convolutions_3d": len(_all(vae, torch.nn.Conv3d)),
        "vae_faults": {value: fault for value, fault in faults.items() if fault},
    }


def _tile_px(vae: Any) -> int | None:
    """The side up to which a picture is decoded in one tile, in pixels; None: the VAE has no tiling."""
    if not hasattr(vae, "enable_tiling"):
        return None
    sides = (getattr(vae, name, None) for name in ("tile_sample_min_size", "tile_sample_min_height"))
    return next((int(side) for side in sides if isinstance(side, int)), None)


def _of_scheduler(pipe: "DiffusionPipeline") -> dict[str, Any]:
    if getattr(pipe, "scheduler", None) is None:
        return {}
    kind = type(pipe.scheduler)
    return {
        "scheduler_class": kind.__name__,
        "compatible_schedulers": tuple(
            sorted({cls.__name__ for cls in getattr(pipe.scheduler, "compatibles", ())} - {kind.__name__})
        ),
        "flow_matching": "FlowMatch" in kind.__name__ or bool(getattr(pipe.scheduler.config, "use_flow_sigmas", False)),
    }


def transformer_blocks(denoiser: Any) -> dict[str, "torch.nn.Module"]:
    """The UNet's transformer blocks by name: diffusers' BasicTransformerBlock and its subclasses."""
    if not hasattr(denoiser.config, "block_out_channels"):
        return {}
    return {
        name: module
        for name, module in denoiser.named_modules()
        if any(cls.__name__ == "BasicTransformerBlock" for cls in type(module).__mro__)
    }


def downsample_of(block: str, denoiser: Any) -> int:
    """The downsampling factor, per side, of the UNet's level that has this block: 1, 2, 4 ...

    block  the module's name, such as "down_blocks.1.attentions.0"
    """
    levels = len(denoiser.config.block_out_channels)
    part, _, rest = block.partition(".")
    index = int(rest.split(".")[0]) if rest[:1].isdigit() else 0
    depth = {"down_blocks": index, "up_blocks": levels - 1 - index}.get(part, levels - 1)
    return int(2**depth)


def repeated_blocks(denoiser: Any) -> tuple[str, ...]:
    """The names of the block classes that are compiled one by one: those that diffusers names and this denoiser has.

    Where it has none of them, it is the class of the longest list of blocks of one class, if that holds at least half
    of the weights.
    """
    present = {cls.__name__ for module in denoiser.modules() for cls in type(module).__mro__}
    named = tuple(name for name in getattr(denoiser, "_repeated_blocks", None) or () if name in present)
    lists = [m for m in denoiser.modules() if isinstance(m, torch.nn.ModuleList) and len({type(b) for b in m}) == 1]
    longest = max(lists, key=len, default=None)
    if named or longest is None or len(longest) < 2:
        return named
    held, total = (sum(p.numel() for p in module.parameters()) for module in (longest, denoiser))
    return (type(longest[0]).__name__,) if 2 * held >= total else ()


def _size_multiple(pipe: "DiffusionPipeline") -> int:
    """Width and height must be multiples of this: the side of a latent cell, or of a transformer's patch of cells."""
    if parts.vae(pipe) is None:
        return 8
    scale = parts.cell_px(pipe)
    patch = _patch_side(parts.denoiser(pipe).config)
    processor = getattr(pipe, "image_processor", None)
    of_processor = getattr(getattr(processor, "config", None), "vae_scale_factor", 1)  # one of transformers has none
    return max(scale * patch, int(of_processor))


def _patch_side(config: Any) -> int:
    """The side of a transformer's patch in latent cells; 1 where the configuration names none."""
    patch = getattr(config, "patch_size", None) or getattr(config, "all_patch_size", None) or 1
    return int(max(patch) if isinstance(patch, list | tuple) else patch)


def _all(module: Any, cls: type) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, cls)]
