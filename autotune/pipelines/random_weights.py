"""Random weights: a pipeline built at full size from its configurations alone."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune import demo
from autotune.errors import UserError
from autotune.pipeline import Pipeline
from autotune.pipelines import factory, locate
from autotune.pipelines.adapters import controlnet
from autotune.pipelines.classes import component_class, names_class, pipeline_class

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def assemble(
    pipeline: Pipeline,
    *,
    dtype: "torch.dtype",
    device: str,
    drawn_on: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> "DiffusionPipeline":
    """The pipe that the configurations in its folder describe, with random weights in `dtype` on `device`.

    On the device "meta" no weights are made, which is enough to read the traits. A pipe that the user's function builds
    is complete and in host memory. A CLIP tokenizer without a vocabulary
    is replaced by the demo's, cut to the text encoder's context: a random model does not care which tokens it reads.
    Any other text encoder without a vocabulary is left out; its prompts are replaced by random embeddings.

    drawn_on  where the weights are drawn, one at a time, before they are moved to `device`; None: there
    given     components that are loaded already, by name
    """
    import torch

    if pipeline.factory is not None:
        return factory.make(pipeline, dtype)
    folder = locate.folder_of(pipeline, configurations_only=pipeline.weights == "random")
    cls = pipeline_class(pipeline, folder)
    index = json.loads((folder / "model_index.json").read_text())
    specs = {name: spec for name, spec in index.items() if names_class(spec)}
    plain = {name: value for name, value in index.items() if name not in specs and name[0] != "_"}
    left_out = _without_vocabulary(folder, specs) if pipeline.weights == "random" else ()
    components = dict.fromkeys(left_out) | dict(given or {})
    components |= {
        name: component(folder / name, spec, dtype, device, drawn_on)
        for name, spec in specs.items()
        if name not in components
    }
    if pipeline.controlnets:
        made = [
            _controlnet(locate.controlnet_folder(pipeline, n), dtype, device, drawn_on) for n in pipeline.controlnets
        ]
        components["controlnet"] = controlnet.joined(made)
    if drawn_on not in (None, device):
        torch.cuda.empty_cache()  # does nothing where CUDA was not used
    required, optional = cls._get_signature_keys(cls)
    known = {*required, *optional}
    return cls(**{name: part for name, part in (components | plain).items() if name in known})


def _without_vocabulary(folder: Path, specs: dict[str, Any]) -> tuple[str, ...]:
    """The tokenizers that have no vocabulary and can't be replaced, and the text encoders that belong to them."""
    lost = [name for name, spec in specs.items() if "Tokenizer" in (spec[1] or "") and "CLIP" not in spec[1]]
    lost = [name for name in lost if not (folder / name).is_dir()]
    return (*lost, *(name.replace("tokenizer", "text_encoder") for name in lost))


def _controlnet(folder: Path, dtype: "torch.dtype", device: str, drawn_on: str | None) -> Any:
    from diffusers import ControlNetModel

    return randomize(lambda: ControlNetModel.from_config(ControlNetModel.load_config(folder)), dtype, device, drawn_on)


def component(
    folder: Path, spec: list[str | None], dtype: "torch.dtype", device: str, drawn_on: str | None = None
) -> Any:
    """The component of this folder. `spec`: its library and class, as in model_index.json; null: there is none."""
    import torch

    library, class_name = spec
    if library is None or class_name is None:
        return None
    cls = component_class(library, class_name)
    if "Tokenizer" in class_name:
        return _tokenizer(cls, folder)
    if not issubclass(cls, torch.nn.Module):  # schedulers, processors, guiders: they have no weights
        return _without_weights(cls, folder)
    # diffusers' models have load_config. Others are transformers', even in a module of diffusers (the safety checker).
    if library == "transformers" or not hasattr(cls, "load_config"):
        config = cls.config_class.from_pretrained(folder)
        return randomize(lambda: cls(config), dtype, device, drawn_on)
    config = cls.load_config(folder)
    return randomize(lambda: cls.from_config(config), dtype, device, drawn_on)


def _without_weights(cls: Any, folder: Path) -> Any:
    """Raises UserError where it needs a package that is not installed, as processors of pictures need torchvision."""
    try:
        return cls.from_pretrained(folder)
    except ImportError as error:
        why = next((line for line in str(error).splitlines() if line), "an import failed")
        raise UserError(f"the pipeline's {folder.name} ({cls.__name__}) lacks a package: {why}") from None


def _tokenizer(cls: Any, folder: Path) -> Any:
    if folder.is_dir():
        return cls.from_pretrained(folder)
    encoder = folder.with_name(folder.name.replace("tokenizer", "text_encoder"))
    context = json.loads((encoder / "config.json").read_text())["max_position_embeddings"]
    return cls.from_pretrained(demo.PIPELINE / "tokenizer", model_max_length=context)


def randomize(
    make: "Callable[[], torch.nn.Module]", dtype: "torch.dtype", device: str, drawn_on: str | None = None
) -> "torch.nn.Module":
    """The module that `make` builds, with random weights in `dtype` on `device`.

    Weights are normal with standard deviation 1 / sqrt(fan-in), norms and biases neutral, all from seed 0. So every
    process makes the same model, and activations stay finite at any depth. Weights are never held in full precision.

    drawn_on  where the weights are drawn, one at a time (a GPU is fast); None: on `device`. It decides the numbers
    """
    import torch
    from accelerate import init_empty_weights

    drawn_on = drawn_on or device
    if drawn_on == "meta":
        with torch.device("meta"):  # at once; init_empty_weights() initializes every layer on the CPU first
            return _tied(make().eval().requires_grad_(False))
    with init_empty_weights(include_buffers=False):
        module = make().eval().requires_grad_(False)
    generator = torch.Generator(drawn_on).manual_seed(0)
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            value = _fill(torch.empty(parameter.shape, dtype=dtype, device=drawn_on), name, generator).to(device)
            owner._parameters[name] = torch.nn.Parameter(value, requires_grad=False)
            del value  # before the next one is drawn
    return _tied(module).to(device)


def _tied(module: "torch.nn.Module") -> "torch.nn.Module":
    """The module, in which weights that are shared in the real model (T5's embeddings) are shared again."""
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    return module


def _fill(value: "torch.Tensor", name: str, generator: "torch.Generator") -> "torch.Tensor":
    """Fill the parameter of this name in place."""
    if value.ndim < 2:
        return value.fill_(1.0 if name == "weight" else 0.0)
    return value.normal_(0, value[0].numel() ** -0.5, generator=generator)
