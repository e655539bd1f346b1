"""Parts: the components of a live pipe by their role: denoiser, ControlNet, VAE, text encoders. Imports no torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DENOISERS = ("unet", "transformer")  # diffusers' names of the component that runs once a step


def denoiser_name(pipe: "DiffusionPipeline") -> str | None:
    """ "unet" or "transformer"; None: the pipe has neither."""
    return next((name for name in DENOISERS if getattr(pipe, name, None) is not None), None)


def denoiser(pipe: "DiffusionPipeline") -> Any:
    """The UNet or the transformer."""
    name = denoiser_name(pipe)
    assert name is not None, f"{type(pipe).__name__} has neither a UNet nor a transformer"
    return getattr(pipe, name)


def controlnet(pipe: "DiffusionPipeline") -> Any | None:
    """The ControlNet; None: the pipe has none."""
    return getattr(pipe, "controlnet", None)


def vae(pipe: "DiffusionPipeline") -> Any | None:
    """The VAE; None: the pipe has none, because it works on pixels."""
    return getattr(pipe, "vae", None)


def step_models(pipe: "DiffusionPipeline") -> dict[str, Any]:
    """Name -> model, for the models that run once a step: the denoiser, and the ControlNet if there is one."""
    models = {denoiser_name(pipe): denoiser(pipe), "controlnet": controlnet(pipe)}
    return {str(name): model for name, model in models.items() if model is not None}


def text_encoders(pipe: "DiffusionPipeline") -> dict[str, Any]:
    """Name -> model, for the models that encode the prompt."""
    return {
        name: part for name, part in pipe.components.items() if name.startswith("text_encoder") and part is not None
    }
