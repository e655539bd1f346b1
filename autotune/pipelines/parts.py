"""The parts of a live pipe, by what they do: UNet or transformer, one text encoder or three. No torch needed."""

from typing import Any

DENOISERS = ("unet", "transformer")  # what diffusers calls the component that runs once a step


def denoiser_name(pipe: Any) -> str | None:
    return next((name for name in DENOISERS if getattr(pipe, name, None) is not None), None)


def denoiser(pipe: Any) -> Any:
    name = denoiser_name(pipe)
    assert name is not None, f"{type(pipe).__name__} has no denoiser that we know"
    return getattr(pipe, name)


def controlnet(pipe: Any) -> Any | None:
    return getattr(pipe, "controlnet", None)


def vae(pipe: Any) -> Any | None:
    """None where the pipeline works on pixels."""
    return getattr(pipe, "vae", None)


def step_models(pipe: Any) -> dict[str, Any]:
    """Name -> model, of those that run once a step: the denoiser, and the ControlNet where there is one."""
    found = {denoiser_name(pipe): denoiser(pipe), "controlnet": controlnet(pipe)}
    return {str(name): model for name, model in found.items() if model is not None}


def text_encoders(pipe: Any) -> dict[str, Any]:
    """Name -> model, of those that read the prompt."""
    return {
        name: part for name, part in pipe.components.items() if name.startswith("text_encoder") and part is not None
    }
