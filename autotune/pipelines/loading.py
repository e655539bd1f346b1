"""A live diffusers pipeline: from its weights on disk, or at full size with random weights."""

import json
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


def load(
    pipeline: Pipeline, *, dtype: torch.dtype, device: str, vae: str = "own", local_files_only: bool = False
) -> Any:
    """The pipe, its floating-point weights in `dtype`. Pretrained weights arrive in host memory, random ones are made
    on `device` itself. Raises UserError where there is nothing to load.

    vae  "own", a key of REPLACEMENT_VAES, or the hub id or folder of another VAE
    """
    if pipeline.weights == "random":
        pipe = assemble(pipeline, dtype=dtype, device=device)
    else:
        pipe = _pretrained(pipeline, dtype, local_files_only)
    if vae != "own":
        pipe.register_modules(vae=_replacement_vae(pipeline, vae, pipe.vae.config, dtype, device))
    if pipeline.scheduler is not None:
        pipe.scheduler = scheduler_class(pipeline.scheduler).from_config(pipe.scheduler.config)
    if pipeline.lora is not None:
        _fuse_lora(pipe, pipeline)
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
    wanted = name.replace("Pipeline", "ControlNetPipeline") if pipeline.controlnet else name
    mapping = getattr(auto, f"AUTO_{TASK_MAPPINGS[pipeline.task or 'text2image']}_PIPELINES_MAPPING")
    found = auto._get_task_class(mapping, wanted, throw_error_if_not_exist=False)
    if found is None:
        sort = f"{pipeline.task or 'text2image'} pipeline{' with a ControlNet' if pipeline.controlnet else ''}"
        raise UserError(f"diffusers has no {sort} for {name}.")
    return found


def import_classes(pipeline: Pipeline) -> None:
    """Import whatever loading this pipeline imports: diffusers and transformers do it lazily."""
    folder = locate.folder_of(pipeline, configurations_only=pipeline.weights == "random", local_files_only=True)
    pipeline_class(pipeline, folder)
    for spec in json.loads((folder / "model_index.json").read_text()).values():
        if isinstance(spec, list) and None not in spec:
            _class(*spec)


def scheduler_class(name: str) -> Any:
    """The scheduler class of diffusers of this name. Raises UserError."""
    diffusers = import_module("diffusers")
    if not name.endswith("Scheduler") or not hasattr(diffusers, name):
        known = [n for n in dir(diffusers) if n.endswith("Scheduler")]
        raise UserError(f"diffusers has no scheduler {name!r}: {nearest(name, known)}")
    return getattr(diffusers, name)


def _pretrained(pipeline: Pipeline, dtype: torch.dtype, local_files_only: bool) -> Any:
    folder = locate.folder_of(pipeline, local_files_only=local_files_only)
    how: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    try:
        if pipeline.controlnet is not None:
            from diffusers import ControlNetModel

            where = locate.part_folder(pipeline.controlnet, local_files_only=local_files_only)
            return pipeline_class(pipeline, folder).from_pretrained(
                folder, controlnet=ControlNetModel.from_pretrained(where, **how), **how
            )
        return pipeline_class(pipeline, folder).from_pretrained(folder, **how)
    except (OSError, ValueError) as error:
        raise UserError(f"{pipeline.source!r} can't be loaded: {str(error).splitlines()[0]}") from error


def _fuse_lora(pipe: Any, pipeline: Pipeline) -> None:
    """Into the weights for good: a live LoRA is lost in fused projections, and can't be quantized."""
    assert pipeline.lora is not None
    where = locate.part_folder(pipeline.lora, local_files_only=True)
    name = {"weight_name": where.name} if where.is_file() else {}
    try:
        pipe.load_lora_weights(where.parent if where.is_file() else where, use_safetensors=True, **name)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"the LoRA {pipeline.lora!r} can't be loaded: {str(error).splitlines()[0]}") from error
    pipe.fuse_lora()
    pipe.unload_lora_weights()


def vae_fault(pipeline: Pipeline, value: str, config: Any) -> str | None:
    """Why the VAE that `value` stands for can't be had, or None. May download it."""
    source = _vae_source(value, config)
    if source is None:
        return f"no such VAE is known for these latents ({config.latent_channels} channels)"
    if value == "fp16_fix" and not getattr(config, "force_upcast", False):
        return "its VAE does not overflow in float16"
    if pipeline.weights == "random":
        return None
    try:
        locate.part_folder(source)
    except UserError as error:
        return str(error).removesuffix(".")
    return None


def _vae_source(value: str, config: Any) -> str | None:
    key = int(config.latent_channels), float(getattr(config, "scaling_factor", None) or 1.0)
    return REPLACEMENT_VAES[value].get(key) if value in REPLACEMENT_VAES else value


def _replacement_vae(pipeline: Pipeline, value: str, config: Any, dtype: torch.dtype, device: str) -> Any:
    from diffusers import AutoencoderKL, AutoencoderTiny

    cls: Any = AutoencoderTiny if value == "tiny" else AutoencoderKL
    if pipeline.weights == "random" and value in REPLACEMENT_VAES:
        made = {"latent_channels": config.latent_channels} if value == "tiny" else {**config, "force_upcast": False}
        return randomize(lambda: cls.from_config(made), dtype, device)
    source = _vae_source(value, config)
    assert source is not None, "the space has refused it"
    where = locate.part_folder(source, local_files_only=True)
    cls = getattr(import_module("diffusers"), json.loads((where / "config.json").read_text())["_class_name"])
    found = cls.from_pretrained(where, dtype=dtype, use_safetensors=True)
    if value == "fp16_fix":
        found.register_to_config(force_upcast=False)
    return found


def assemble(pipeline: Pipeline, *, dtype: torch.dtype, device: str) -> Any:
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
    made = {
        name: None if name in unread else _component(folder / name, spec, dtype, device) for name, spec in specs.items()
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
