"""What a pipe is called with: prompt, noise and size, and the pictures that some pipelines start from.

Decided by the signature of the pipeline's call, not by its name.
"""

import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

from PIL import Image

from autotune.errors import UserError
from autotune.pipelines import parts, pictures
from autotune.workload import Workload

PICTURES = {"photo": pictures.photo, "small": pictures.photo, "mask": pictures.mask, "edges": pictures.edges}
SIZE_ARGUMENTS = ("width", "height", "use_resolution_binning")  # the last would make another size of the one asked for
EMBEDDING_TOKENS = 77  # of random prompt embeddings, as DeepFloyd IF's T5 gives


def picture_arguments(pipe: Any) -> dict[str, str]:
    """The arguments of the call that take pictures -> what goes there: photo, mask, edges or "small" (to upscale)."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    found = {name: what for name, what in (("mask_image", "mask"), ("control_image", "edges")) if name in parameters}
    if "image" in parameters and (parameters["image"].default is inspect.Parameter.empty or _starts_from_one(pipe)):
        controlled = parts.controlnet(pipe) is not None and "control_image" not in parameters
        found["image"] = "small" if "noise_level" in parameters else "edges" if controlled else "photo"
    return found


def size_arguments(pipe: Any) -> list[str]:
    """Those of the call: some pipelines take the size of the picture that they start from."""
    return [name for name in SIZE_ARGUMENTS if name in _parameters(pipe)]


def _starts_from_one(pipe: Any) -> bool:
    """Is the optional argument `image` what the pipeline is for? Some text-to-image pipelines take one as an extra."""
    from diffusers.pipelines import auto_pipeline as auto

    listed = {
        cls.__name__
        for m in (auto.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING, auto.AUTO_INPAINT_PIPELINES_MAPPING)
        for cls in m.values()
    }
    only_text = {cls.__name__ for cls in auto.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}
    name = type(pipe).__name__
    return name in listed - only_text or parts.controlnet(pipe) is not None or "noise_level" in _parameters(pipe)


def _parameters(pipe: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(type(pipe).__call__).parameters


def check_call(pipe: Any) -> None:
    """Raises UserError where the pipeline needs what we can't give, or makes no pictures."""
    parameters, name = _parameters(pipe), type(pipe).__name__
    if "prompt" not in parameters or "num_inference_steps" not in parameters or "num_frames" in parameters:
        raise UserError(f"{name} is no pipeline from a prompt to pictures, so autotune can't tune it.")
    known = {"self", "prompt", "height", "width", "args", "kwargs", *picture_arguments(pipe)}
    unknown = sorted(n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in known)
    if unknown:
        raise UserError(f"{name} must be called with {', '.join(unknown)}, which autotune doesn't know how to make.")


def call_arguments(
    pipe: Any,
    workload: Workload,
    prompts: list[str],
    seeds: list[int],
    given: Mapping[str, Image.Image] | None = None,
) -> dict[str, Any]:
    """The arguments of one call. The noise comes from CPU generators, so that it is the same on every device.

    given  pictures to take instead of ours, by the name of the argument
    """
    import torch

    arguments: dict[str, Any] = {"generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds]}
    if reads_no_prompt(pipe):
        arguments |= _random_embeddings(pipe, prompts)
    else:
        arguments["prompt"] = prompts
    size = dict(zip(SIZE_ARGUMENTS, (workload.width, workload.height, False), strict=True))
    arguments |= {name: size[name] for name in size_arguments(pipe)}
    for name, what in picture_arguments(pipe).items():
        if given and name in given:
            arguments[name] = [given[name]] * len(prompts)
        else:
            arguments[name] = [_picture(pipe, what, seed, workload) for seed in seeds]
    return arguments


def picture_size(pipe: Any, what: str, workload: Workload) -> tuple[int, int]:
    """Width and height of the picture that such an argument takes, in pixels."""
    if what != "small":
        return workload.width, workload.height
    # A latent upscaler joins the small picture to the latent, cell by cell; one in pixels takes any, usually a quarter.
    scale = pipe.vae_scale_factor if parts.vae(pipe) is not None else 4
    return workload.width // scale, workload.height // scale


def _picture(pipe: Any, what: str, number: int, workload: Workload) -> Image.Image:
    return PICTURES[what](number, *picture_size(pipe, what, workload))


def reads_no_prompt(pipe: Any) -> bool:
    """No text encoder, as with DeepFloyd IF at random weights: prompts are replaced by random embeddings."""
    return not parts.text_encoders(pipe)


def embedding_width(pipe: Any) -> int:
    config = parts.denoiser(pipe).config
    return int(getattr(config, "encoder_hid_dim", None) or config.cross_attention_dim)


def _random_embeddings(pipe: Any, prompts: list[str]) -> dict[str, Any]:
    """Each prompt's own, drawn from the digest of its text; the negative prompt's are those of the empty text."""
    import torch

    def of(text: str) -> torch.Tensor:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
        return torch.randn(EMBEDDING_TOKENS, width, generator=torch.Generator("cpu").manual_seed(seed))

    width, device = embedding_width(pipe), pipe._execution_device
    dtype = parts.denoiser(pipe).dtype
    both = {"prompt_embeds": prompts, "negative_prompt_embeds": [""] * len(prompts)}
    return {name: torch.stack([of(text) for text in texts]).to(device, dtype) for name, texts in both.items()}
