"""A live diffusers pipeline: from its weights on disk, or at full size with random weights."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from autotune import demo
from autotune.errors import UserError
from autotune.pipeline import Pipeline
from autotune.pipelines.locate import folder_of


def load(pipeline: Pipeline, *, dtype: torch.dtype, device: str, local_files_only: bool = False) -> Any:
    """The pipe, its floating-point weights in `dtype`. Pretrained weights arrive in host memory, random ones are made
    on `device` itself. Raises UserError where there is nothing to load."""
    folder = folder_of(pipeline, local_files_only=local_files_only)
    if pipeline.weights == "random":
        return assemble(folder, dtype=dtype, device=device)
    from diffusers import DiffusionPipeline

    try:
        return DiffusionPipeline.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{pipeline.source!r} can't be loaded: {str(error).splitlines()[0]}") from error


def assemble(folder: Path, *, dtype: torch.dtype, device: str) -> Any:
    """The pipeline that the folder's configurations describe, with random weights made on `device` in `dtype`.

    On the device "meta" no weight is made at all: enough to read the traits. A tokenizer without its vocabulary is
    replaced by the demo's, cut to the text encoder's context: which tokens a random model reads makes no difference.
    """
    index = json.loads((folder / "model_index.json").read_text())
    parts = {name: spec for name, spec in index.items() if isinstance(spec, list)}
    cls = getattr(import_module("diffusers"), index["_class_name"])
    plain = {name: value for name, value in index.items() if not isinstance(value, list) and name[0] != "_"}
    made = {name: _component(folder / name, spec, dtype, device) for name, spec in parts.items()}
    return cls(**made, **plain)


def _component(folder: Path, spec: list[str | None], dtype: torch.dtype, device: str) -> Any:
    library, class_name = spec
    if library is None or class_name is None:
        return None
    home = library if library in ("diffusers", "transformers") else f"diffusers.pipelines.{library}"
    cls = getattr(import_module(home), class_name)
    if "Tokenizer" in class_name:
        return _tokenizer(cls, folder)
    if "Scheduler" in class_name or "Processor" in class_name or "Extractor" in class_name:
        return cls.from_pretrained(folder)
    if library == "diffusers":
        config = cls.load_config(folder)
        return randomize(lambda: cls.from_config(config), dtype, device)
    config = cls.config_class.from_pretrained(folder)
    return randomize(lambda: cls(config), dtype, device)


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
        return module
    generator = torch.Generator(device).manual_seed(0)
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            value = torch.empty(parameter.shape, dtype=dtype, device=device)
            owner._parameters[name] = torch.nn.Parameter(_fill(value, name, generator), requires_grad=False)
    return module.to(device)


def _fill(value: torch.Tensor, name: str, generator: torch.Generator) -> torch.Tensor:
    if value.ndim < 2:
        return value.fill_(1.0 if name == "weight" else 0.0)
    return value.normal_(0, value[0].numel() ** -0.5, generator=generator)
