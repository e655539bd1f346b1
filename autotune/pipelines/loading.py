"""A live diffusers pipeline: from its weights on disk, or at full size with random weights."""

import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from autotune import demo
from autotune.errors import UserError, nearest
from autotune.pipeline import Pipeline
from autotune.pipelines import locate

TASK_MAPPINGS = {"text2image": "TEXT2IMAGE", "image2image": "IMAGE2IMAGE", "inpainting": "INPAINT"}
# VAEs that can stand in for a pipeline's own, by (latent channels, scaling factor) of the latents that they decode.
REPLACEMENT_VAES = {
    "tiny": {
        (4, 0.18215): "madebyollin/taesd",
        (4, 0.13025): "madebyollin/taesdxl",
        (16, 1.5305): "madebyollin/taesd3",
        (16, 0.3611): "madebyollin/taef1",
    },
    "fp16_fix": {(4, 0.13025): "madebyollin/sdxl-vae-fp16-fix"},
}
REPLACED_PIXELS_PER_CELL = 8  # of all of them
NO_REPLACEMENT = "no such VAE is known for these latents"


def load(
    pipeline: Pipeline,
    *,
    dtype: torch.dtype,
    device: str,
    vae: str = "own",
    local_files_only: bool = False,
    given: Mapping[str, Any] | None = None,
) -> Any:
    """The pipe, its floating-point weights in `dtype`. Pretrained weights arrive in host memory, random ones are made
    on `device` itself. Raises UserError where there is nothing to load.

    given  components that are here already, by name
    vae    "own", a key of REPLACEMENT_VAES, or the hub id or folder of another VAE
    """
    if pipeline.weights == "random":
        pipe = assemble(pipeline, dtype=dtype, device=device, given=given)
    else:
        pipe = _pretrained(pipeline, dtype, local_files_only, given or {})
    if vae != "own":
        own = getattr(pipe, "vae", None)
        pipe.register_modules(vae=_replacement_vae(pipeline, vae, own, dtype, device, local_files_only))
    set_scheduler(pipe, pipeline)
    if pipeline.lora is not None:
        _fuse_lora(pipe, pipeline, local_files_only)
    return pipe


def pipeline_class(pipeline: Pipeline, folder: Path) -> Any:
    """The class of diffusers to build: the one that the folder names, or its sister for the task that was asked for."""
    name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    diffusers = import_module("diffusers")
    if not isinstance(name, str) or not hasattr(diffusers, name):
        raise UserError(f"{name!r} is no pipeline of this diffusers ({diffusers.__version__}).")
    if pipeline.task is None and pipeline.controlnet is None:
        return getattr(diffusers, name)
    auto = import_module("diffusers.pipelines.auto_pipeline")
    own = "inpainting" if "Inpaint" in name else "image2image" if "Img2Img" in name else "text2image"
    task = pipeline.task or own
    plain = re.sub(r"(Img2Img|Inpaint|Inpainting)?Pipeline$", "Pipeline", name)
    wanted = plain.replace("Pipeline", "ControlNetPipeline") if pipeline.controlnet else name
    mapping = getattr(auto, f"AUTO_{TASK_MAPPINGS[task]}_PIPELINES_MAPPING")
    found = auto._get_task_class(mapping, wanted, throw_error_if_not_exist=False)
    if found is None:
        raise UserError(
            f"diffusers has no {task} pipeline{' with a ControlNet' if pipeline.controlnet else ''} for {name}."
        )
    _check_controlnet(pipeline, found)
    return found


def _check_controlnet(pipeline: Pipeline, cls: Any) -> None:
    """Flux and SD3 have ControlNets of their own. Raises UserError for any but diffusers' ControlNetModel."""
    types = cls._get_signature_types().get("controlnet", ())
    if pipeline.controlnet and "ControlNetModel" not in {getattr(kind, "__name__", "") for kind in types}:
        raise UserError(f"{cls.__name__} takes a ControlNet of another kind than autotune can load.")


def import_classes(pipeline: Pipeline) -> None:
    """Import whatever loading this pipeline imports: diffusers and transformers do it lazily."""
    folder = locate.folder_of(pipeline, configurations_only=pipeline.weights == "random", local_files_only=True)
    pipeline_class(pipeline, folder)
    for spec in json.loads((folder / "model_index.json").read_text()).values():
        if isinstance(spec, list) and None not in spec:
            _class(*spec)


def set_scheduler(pipe: Any, pipeline: Pipeline) -> None:
    """The scheduler that the pipeline is used with, where it is not its own: a distilled model's."""
    if pipeline.scheduler is not None:
        pipe.scheduler = scheduler_class(pipeline.scheduler).from_config(pipe.scheduler.config)


def scheduler_class(name: str) -> Any:
    """The scheduler class of diffusers of this name. Raises UserError."""
    diffusers = import_module("diffusers")
    if not name.endswith("Scheduler") or not hasattr(diffusers, name):
        known = [n for n in dir(diffusers) if n.endswith("Scheduler")]
        raise UserError(f"diffusers has no scheduler {name!r}: {nearest(name, known)}")
    return getattr(diffusers, name)


def _pretrained(pipeline: Pipeline, dtype: torch.dtype, local_files_only: bool, given: Mapping[str, Any]) -> Any:
    folder = locate.folder_of(pipeline, local_files_only=local_files_only)
    how: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    components = dict(given)
    try:
        if pipeline.controlnet is not None:
            from diffusers import ControlNetModel

            revision = hub_revision(pipeline.part_revisions.get("controlnet"))
            where = locate.part_folder(pipeline.controlnet, revision=revision, local_files_only=local_files_only)
            components["controlnet"] = ControlNetModel.from_pretrained(where, **how)
        return pipeline_class(pipeline, folder).from_pretrained(folder, **components, **how)
    except (OSError, ValueError) as error:
        raise UserError(f"{pipeline.source!r} can't be loaded: {str(error).splitlines()[0]}") from error


def hub_revision(revision: str | None) -> str | None:
    """The commit, where it is one of the hub's; a digest of a local folder's files is none."""
    return None if revision is None or revision.startswith("files-") else revision


def _fuse_lora(pipe: Any, pipeline: Pipeline, local_files_only: bool) -> None:
    """Into the weights for good: a live LoRA is lost in fused projections, and can't be quantized."""
    assert pipeline.lora is not None
    revision = hub_revision(pipeline.part_revisions.get("lora"))
    where = locate.part_folder(pipeline.lora, revision=revision, local_files_only=local_files_only)
    name = {"weight_name": where.name} if where.is_file() else {}
    try:
        pipe.load_lora_weights(where.parent if where.is_file() else where, use_safetensors=True, **name)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"the LoRA {pipeline.lora!r} can't be loaded: {str(error).splitlines()[0]}") from error
    if not any(pipe.get_list_adapters().values()):
        raise UserError(f"the LoRA {pipeline.lora!r} fits nothing in {type(pipe).__name__}.")
    pipe.fuse_lora()
    pipe.unload_lora_weights()


def vae_fault(pipeline: Pipeline, value: str, config: Any) -> str | None:
    """Why the VAE that `value` stands for can't be had, or None. May download it. `config`: the own VAE's."""
    source = _vae_source(value, config)
    if source is None:
        return NO_REPLACEMENT
    if value == "fp16_fix" and not getattr(config, "force_upcast", False):
        return "its VAE does not overflow in float16"
    if pipeline.weights == "random":
        return None
    if _latent(config)[1] != REPLACED_PIXELS_PER_CELL:
        return NO_REPLACEMENT
    try:
        locate.part_folder(source)
    except UserError as error:
        return str(error).removesuffix(".")
    return None


def _vae_source(value: str, config: Any) -> str | None:
    """The hub id or folder that `value` stands for; None where none is known for such latents."""
    key = _latent(config)[0], float(getattr(config, "scaling_factor", None) or 1.0)
    return REPLACEMENT_VAES[value].get(key) if value in REPLACEMENT_VAES else value


def _latent(config: Any) -> tuple[int, int]:
    """Of a VAE's latent: its channels, and how many pixels of the picture, per side, a cell stands for."""
    levels: Any = getattr(config, "block_out_channels", None) or getattr(config, "encoder_block_out_channels", ())
    return int(getattr(config, "latent_channels", 0)), int(2 ** (len(levels) - 1))


def _replacement_vae(
    pipeline: Pipeline, value: str, own: Any, dtype: torch.dtype, device: str, local_files_only: bool
) -> Any:
    """The VAE that `value` stands for. `own`: the pipeline's own VAE. Raises UserError."""
    if own is None:
        raise UserError(f"{pipeline.name} has no VAE that vae={value} could replace.")
    if pipeline.weights == "random" and value in REPLACEMENT_VAES:
        return randomize(_random_vae(value, own.config), dtype, device)
    source = _vae_source(value, own.config)
    if source is None:
        raise UserError(f"vae={value}: {NO_REPLACEMENT}.")
    where = locate.part_folder(source, local_files_only=local_files_only)
    try:
        class_name = json.loads((where / "config.json").read_text())["_class_name"]
        found = getattr(import_module("diffusers"), class_name).from_pretrained(
            where, dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"the VAE {source!r} can't be loaded: {str(error).splitlines()[0]}") from error
    if not hasattr(found, "decode"):
        raise UserError(f"{source!r} is a {class_name}, no VAE.")
    found.register_to_config(_name_or_path=source)  # the hub id instead of a folder of the cache
    if value == "fp16_fix":
        found.register_to_config(force_upcast=False)
    if _latent(found.config) != _latent(own.config):
        theirs, ours = ("{} channels, {} pixels a cell".format(*_latent(c)) for c in (found.config, own.config))
        raise UserError(f"the VAE {source!r} decodes latents of {theirs}; those of {pipeline.name} have {ours}.")
    return found


def _random_vae(value: str, own: Any) -> Any:
    """Makes the stand-in of random weights: of the own VAE's latents, as large as the real one where levels agree."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    if value == "fp16_fix":
        return lambda: AutoencoderKL.from_config({**own, "force_upcast": False})
    levels = len(own.block_out_channels)
    blocks = [1, *[3] * (levels - 1)]
    return lambda: AutoencoderTiny(
        encoder_block_out_channels=[64] * levels,
        decoder_block_out_channels=[64] * levels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks[::-1],
        latent_channels=own.latent_channels,
    )


def assemble(pipeline: Pipeline, *, dtype: torch.dtype, device: str, given: Mapping[str, Any] | None = None) -> Any:
    """The pipeline that its folder's configurations describe, with random weights made on `device` in `dtype`.

    On the device "meta" no weight is made at all: enough to read the traits. A CLIP tokenizer without its vocabulary is
    replaced by the demo's, cut to the text encoder's context: which tokens a random model reads makes no difference.
    Any other text encoder without a vocabulary is left out; prompts are then replaced by random embeddings.
    """
    folder = locate.folder_of(pipeline, configurations_only=pipeline.weights == "random")
    cls = pipeline_class(pipeline, folder)
    index = json.loads((folder / "model_index.json").read_text())
    specs = {name: spec for name, spec in index.items() if isinstance(spec, list)}
    plain = {name: value for name, value in index.items() if not isinstance(value, list) and name[0] != "_"}
    unread = _unread(folder, specs) if pipeline.weights == "random" else ()
    absent = dict.fromkeys(unread) | dict(given or {})
    made = absent | {
        name: _component(folder / name, spec, dtype, device) for name, spec in specs.items() if name not in absent
    }
    if pipeline.controlnet is not None:
        made["controlnet"] = _controlnet(pipeline, dtype, device)
    expected = cls._get_signature_keys(cls)
    known = {*expected[0], *expected[1]}
    return cls(**{name: part for name, part in (made | plain).items() if name in known})


def _unread(folder: Path, specs: dict[str, Any]) -> tuple[str, ...]:
    """Tokenizers that have no vocabulary here and can't be replaced, and the text encoders that they belong to."""
    lost = [name for name, spec in specs.items() if "Tokenizer" in (spec[1] or "") and "CLIP" not in spec[1]]
    lost = [name for name in lost if not (folder / name).is_dir()]
    return (*lost, *(name.replace("tokenizer", "text_encoder") for name in lost))


def _controlnet(pipeline: Pipeline, dtype: torch.dtype, device: str) -> Any:
    from diffusers import ControlNetModel

    where = locate.controlnet_folder(pipeline)
    return randomize(lambda: ControlNetModel.from_config(ControlNetModel.load_config(where)), dtype, device)


def _component(folder: Path, spec: list[str | None], dtype: torch.dtype, device: str) -> Any:
    library, class_name = spec
    if library is None or class_name is None:
        return None
    cls = _class(library, class_name)
    if "Tokenizer" in class_name:
        return _tokenizer(cls, folder)
    if any(word in class_name for word in ("Scheduler", "Processor", "Extractor")):
        return cls.from_pretrained(folder)
    if library == "transformers":
        config = cls.config_class.from_pretrained(folder)
        return randomize(lambda: cls(config), dtype, device)
    if not hasattr(cls, "load_config"):  # such as a safety checker: transformers' kind, in diffusers' house
        config = cls.config_class.from_pretrained(folder)
        return randomize(lambda: cls(config), dtype, device)
    config = cls.load_config(folder)
    return randomize(lambda: cls.from_config(config), dtype, device)


def _class(library: str, name: str) -> Any:
    """The class that a model_index.json names: of diffusers, of transformers, or of a pipeline's own module."""
    home = library if library in ("diffusers", "transformers") else f"diffusers.pipelines.{library}"
    return getattr(import_module(home), name)


def _tokenizer(cls: Any, folder: Path) -> Any:
    if folder.is_dir():
        return cls.from_pretrained(folder)
    encoder = folder.with_name(folder.name.replace("tokenizer", "text_encoder"))
    context = json.loads((encoder / "config.json").read_text())["max_position_embeddings"]
    return cls.from_pretrained(demo.PIPELINE / "tokenizer", model_max_length=context)


def randomize(make: Any, dtype: torch.dtype, device: str) -> Any:
    """The module that `make` builds, its parameters never held in full precision: shapes first, then values on device.

    Weights are normal with standard deviation 1 / sqrt(fan-in), norms and biases neutral, all from seed 0, so that
    every trial's child makes the same model and activations stay finite through any depth.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        module = make().eval().requires_grad_(False)
    if device == "meta":
        return _tied(module)
    generator = torch.Generator(device).manual_seed(0)
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            value = torch.empty(parameter.shape, dtype=dtype, device=device)
            owner._parameters[name] = torch.nn.Parameter(_fill(value, name, generator), requires_grad=False)
    return _tied(module).to(device)


def _tied(module: Any) -> Any:
    """Weights that are one in the real model (T5's embeddings) are one again."""
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    return module


def _fill(value: torch.Tensor, name: str, generator: torch.Generator) -> torch.Tensor:
    if value.ndim < 2:
        return value.fill_(1.0 if name == "weight" else 0.0)
    return value.normal_(0, value[0].numel() ** -0.5, generator=generator)
