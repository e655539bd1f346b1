"""Parts: the components of a live pipe by their role: denoiser, ControlNet, VAE, text encoders. Imports no torch."""

import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DENOISERS = ("unet", "transformer")  # diffusers' usual names of the component that runs once a step
VAES = ("vae", "movq", "vqvae", "vqgan")  # and of the one that decodes latents


def rebound(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """The owner's method of this name, wrapped, so that a copy of the owner calls it on itself.

    SkyReels-V2 copies its scheduler for each frame of the latents.

    wrap  takes and gives a function whose first argument is the owner
    """
    method = getattr(owner, name)

    def of_owner(_: Any, *args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return types.MethodType(wrap(getattr(method, "__func__", of_owner)), owner)


def denoiser_name(pipe: "DiffusionPipeline") -> str | None:
    """The name of the component that runs once a step; None: the pipe has none.

    Where none has a usual name, it is the first model of diffusers that neither decodes nor only adds to another one
    (StableCascade's `decoder`).
    """
    usual = next((name for name in DENOISERS if getattr(pipe, name, None) is not None), None)
    if usual is not None:
        return usual
    models = {name: part for name, part in _components(pipe).items() if hasattr(part, "parameters")}
    others = {*VAES, "controlnet"}
    return next((n for n, m in models.items() if hasattr(m, "load_config") and n not in others and _steps(m)), None)


def _steps(model: Any) -> bool:
    """Can this model of diffusers be the one that runs once a step? A VAE encodes and decodes instead."""
    return not (hasattr(model, "encode") or hasattr(model, "decode"))


def find_denoiser(pipe: "DiffusionPipeline") -> Any | None:
    """The model that runs once a step; None: the pipe has none."""
    name = denoiser_name(pipe)
    return None if name is None else getattr(pipe, name)


def denoiser(pipe: "DiffusionPipeline") -> Any:
    """The model that runs once a step: the UNet or the transformer. Raises UserError where there is none."""
    found = find_denoiser(pipe)
    if found is None:
        raise UserError(f"{type(pipe).__name__} has no model that autotune knows to run once a step.")
    return found


def controlnet(pipe: "DiffusionPipeline") -> Any | None:
    """The ControlNet, or diffusers' model of several; None: the pipe has none."""
    return getattr(pipe, "controlnet", None)


def control_pictures(pipe: "DiffusionPipeline") -> int:
    """How many control pictures a call takes for each picture that it draws: one for each ControlNet."""
    return len(joined_controlnets(pipe)) or 1


def joined_controlnets(pipe: "DiffusionPipeline") -> list[Any]:
    """The ControlNets that diffusers' model of several holds; empty where the pipe has one or none."""
    return list(getattr(controlnet(pipe), "nets", ()))


def vae(pipe: "DiffusionPipeline") -> Any | None:
    """The VAE, whatever its name; None: the pipe has none, because it works on pixels."""
    return getattr(pipe, vae_name(pipe), None)


def vae_name(pipe: "DiffusionPipeline") -> str:
    """The name of that component; "vae" where there is none."""
    return next((name for name in VAES if getattr(pipe, name, None) is not None), "vae")


def denoisers(pipe: "DiffusionPipeline") -> dict[str, Any]:
    """Name -> model, for the denoiser and those of its class that take turns with it (Wan 2.2's `transformer_2`).

    Raises UserError where there is none.
    """
    first = denoiser(pipe)
    others = {name: part for name, part in _components(pipe).items() if part is not first and _is_alike(part, first)}
    return {str(denoiser_name(pipe)): first, **others}


def _is_alike(part: Any, denoiser: Any) -> bool:
    """Is this a model of the denoiser's class? torch.compile hides the class of a whole model in a wrapper."""
    kinds = [type(getattr(model, "_orig_mod", model)).__name__ for model in (part, denoiser)]
    return kinds[0] == kinds[1]


def cell_px(pipe: "DiffusionPipeline") -> int:
    """The side of a latent cell, in pixels; 1 for a pipe that works on pixels."""
    if vae(pipe) is None:
        return 1
    found = [side for name, side in vars(pipe).items() if "vae" in name and "spatial" in name]
    found.append(getattr(pipe, "vae_scale_factor", None))
    return next((int(side) for side in found if isinstance(side, int)), 8)


def cell_frames(pipe: "DiffusionPipeline") -> int:
    """The number of frames that one latent frame stands for, but for the first; 1 where the VAE knows no time."""
    found = (count for name, count in vars(pipe).items() if "vae" in name and "temporal" in name)
    return next((int(count) for count in found if isinstance(count, int)), 1)


def ip_adapters(pipe: "DiffusionPipeline") -> int:
    """How many IP-Adapters are on the pipe's UNet; 0 where it has none."""
    projections = getattr(getattr(pipe, "unet", None), "encoder_hid_proj", None)
    return len(getattr(projections, "image_projection_layers", ()))


def step_models(pipe: "DiffusionPipeline") -> dict[str, Any]:
    """Name -> model, for the models that run once a step: the denoisers, and the ControlNet if there is one."""
    control = controlnet(pipe)
    return {**denoisers(pipe), **({"controlnet": control} if control is not None else {})}


def text_encoders(pipe: "DiffusionPipeline") -> dict[str, Any]:
    """Name -> model, for the models that encode the prompt: text encoders, those of a prior, language models."""
    return {name: part for name, part in _components(pipe).items() if "text_encoder" in name or _reads_tokens(part)}


def tokenizer(pipe: "DiffusionPipeline") -> Any | None:
    """The first tokenizer of the pipe, also where it is a part of a processor; None: the pipe has none."""
    readers = (part for name, part in _components(pipe).items() if "tokenizer" in name or "processor" in name)
    found = (getattr(part, "tokenizer", part) for part in readers)
    return next((part for part in found if hasattr(part, "model_max_length")), None)


def _reads_tokens(part: Any) -> bool:
    """Is this a model of transformers whose input are tokens?"""
    if not hasattr(part, "get_input_embeddings"):
        return False
    try:
        return hasattr(part.get_input_embeddings(), "num_embeddings")
    except NotImplementedError:
        return False


def _components(pipe: "DiffusionPipeline") -> dict[str, Any]:
    return {name: part for name, part in pipe.components.items() if part is not None}
