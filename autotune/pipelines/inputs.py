"""Inputs: the arguments of a pipe's call: prompts, noise, size, and the pictures that some pipelines start from.

The signature of the pipeline's `__call__` decides which of them it gets, not the name of the pipeline.
"""

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from autotune.errors import UserError
from autotune.pictures.own import pictures_of
from autotune.pipelines import call, parts, pictures
from autotune.pipelines.running import task_for
from autotune.workload import Workload

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# Kind of picture -> the function that draws it. A "small" picture is one to upscale, a "reference" is one of an
# IP-Adapter, the same for all prompts.
PICTURES = {
    "photo": pictures.photo,
    "small": pictures.photo,
    "mask": pictures.mask,
    "edges": pictures.edges,
    "reference": pictures.photo,
}
NAMED = {"mask_image": "mask", "control_image": "edges", "control_mask": "mask"}  # argument -> kind of its picture
APART = 2**32  # between the numbers of the pictures of two ControlNets: more than any seed
EMBEDDING_TOKENS = 77  # the length of random prompt embeddings, as that of DeepFloyd IF's T5


def picture_arguments(pipe: "DiffusionPipeline") -> dict[str, str]:
    """The arguments of the call that take pictures: name -> kind, a key of PICTURES."""
    parameters = call.parameters(pipe)
    kinds = {name: kind for name, kind in NAMED.items() if name in parameters}
    if "image" in parameters and (parameters["image"].default is inspect.Parameter.empty or _needs_picture(pipe)):
        controlled = parts.controlnet(pipe) is not None and "control_image" not in parameters
        kinds["image"] = "small" if "noise_level" in parameters else "edges" if controlled else "photo"
    if "ip_adapter_image" in parameters and parts.ip_adapters(pipe):
        kinds["ip_adapter_image"] = "reference"
    return kinds


def _needs_picture(pipe: "DiffusionPipeline") -> bool:
    """Does the pipeline need its optional argument `image`? Some text-to-image pipelines take one as an extra.

    diffusers' own lists say so. One that is in both (FLUX.1 Kontext) starts from a picture where the user asks for it.
    A class that is in none of them needs a picture where its call never asks for None.
    """
    from diffusers.pipelines import auto_pipeline as auto

    listed = {
        cls.__name__
        for m in (auto.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING, auto.AUTO_INPAINT_PIPELINES_MAPPING)
        for cls in m.values()
    }
    only_text = {cls.__name__ for cls in auto.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}
    name = type(pipe).__name__
    if name in listed and task_for(pipe) in ("image2image", "inpainting"):
        return True
    if name in listed - only_text or parts.controlnet(pipe) is not None:
        return True
    if any(extra in call.parameters(pipe) for extra in ("noise_level", "mask_image")):
        return True
    known = listed | only_text
    unlisted = not known & {cls.__name__ for cls in type(pipe).__mro__}
    return unlisted and not re.search(r"(?<!\w)image is not None", _source(pipe))


def _source(pipe: "DiffusionPipeline") -> str:
    """The source text of the pipe's call."""
    return inspect.getsource(inspect.unwrap(type(pipe).__call__))


def check_call(pipe: "DiffusionPipeline") -> None:
    """Raises UserError where the pipeline needs an argument that we can't provide, or makes no pictures."""
    parameters, name = call.parameters(pipe), type(pipe).__name__
    sounds = any("audio" in name for name in parameters)
    if "prompt" not in parameters or "num_inference_steps" not in parameters or sounds:
        raise UserError(f"{name} does not make pictures from a prompt, so autotune can't tune it.")
    known = {"self", "prompt", "height", "width", "args", "kwargs", *picture_arguments(pipe)}
    unknown = sorted(n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in known)
    if call.frames_argument(pipe) is None:  # its clips are as long as the one that it starts from
        unknown += [n for n in parameters if n not in unknown and n.endswith(("video", "conditioning_frames"))]
    if unknown:
        raise UserError(f"{name} needs the arguments {', '.join(unknown)}, which autotune can't provide.")


def call_arguments(
    pipe: "DiffusionPipeline",
    workload: Workload,
    prompts: list[str],
    seeds: list[int],
    given: Mapping[str, Sequence[Image.Image]] | None = None,
) -> dict[str, Any]:
    """The arguments of one call. The noise comes from CPU generators, so it is the same on every device.

    Lists are made anew for each call: some pipelines (Z-Image) write into those that they are given.

    given  the user's pictures, by argument name, in place of synthetic ones: as many as picture_number() says
    """
    import torch

    arguments: dict[str, Any] = {"generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds]}
    if reads_no_prompt(pipe):
        arguments |= _random_embeddings(pipe, prompts)
    else:
        arguments["prompt"] = list(prompts)
    size = call.size_values(workload.width, workload.height)
    arguments |= {name: size[name] for name in call.size_arguments(pipe)}
    arguments |= call.frames_values(pipe, workload.frames)
    for name, kind in picture_arguments(pipe).items():
        own = (given or {}).get(name)
        if kind == "reference":  # one for each adapter, whatever the number of prompts
            arguments[name] = list(own or [_picture(pipe, kind, workload.seed, workload)])
        elif picture_number(pipe, kind) > 1:
            drawn = [own or _of_each_controlnet(pipe, seed, workload) for seed in seeds]
            arguments[name] = [_one_or_stacked(pictures) for pictures in zip(*drawn, strict=True)]
        else:
            made = [own[0] if own else _picture(pipe, kind, seed, workload) for seed in seeds]
            arguments[name] = made[0] if len(made) == 1 else made  # some calls (WanImageToVideo) take no list
    return arguments | _own_pictures(pipe, workload, prompts, seeds, given or {})


def _own_pictures(
    pipe: "DiffusionPipeline",
    workload: Workload,
    prompts: list[str],
    seeds: list[int],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """The user's pictures of the workload, for the arguments that are not given others. Raises UserError."""
    found: dict[str, Any] = {}
    for name, kind in picture_arguments(pipe).items():
        if name not in given:
            mode, size = "L" if kind == "mask" else "RGB", picture_size(pipe, kind, workload)
            made = pictures_of(workload, name, prompts, seeds, mode, size)
            if made is not None:
                found[name] = made[:1] if kind == "reference" else made[0] if len(made) == 1 else made
    return found


def picture_number(pipe: "DiffusionPipeline", kind: str) -> int:
    """How many pictures of this kind a picture is drawn from: several where the pipe has several ControlNets."""
    return parts.control_pictures(pipe) if kind == "edges" else 1


def _of_each_controlnet(pipe: "DiffusionPipeline", seed: int, workload: Workload) -> list[Image.Image]:
    numbers = (seed + number * APART for number in range(parts.control_pictures(pipe)))
    return [_picture(pipe, "edges", number, workload) for number in numbers]


def _one_or_stacked(pictures: Sequence[Image.Image]) -> Any:
    """A ControlNet's pictures of a call, in the form that every pipeline takes for one of several ControlNets.

    Several are an array of [pictures, height, width, 3], from 0 to 1: most calls take no lists within the list.
    """
    if len(pictures) == 1:
        return pictures[0]
    import numpy as np

    return np.stack([np.asarray(picture, dtype=np.float32) / 255 for picture in pictures])


def picture_size(pipe: "DiffusionPipeline", kind: str, workload: Workload) -> tuple[int, int]:
    """Width and height, in pixels, of an input picture of this kind."""
    if kind != "small":
        return workload.width, workload.height
    # A latent upscaler needs one pixel per latent cell. An upscaler of pixels takes any size, usually a quarter.
    scale = pipe.vae_scale_factor if parts.vae(pipe) is not None else 4
    return workload.width // scale, workload.height // scale


def _picture(pipe: "DiffusionPipeline", kind: str, number: int, workload: Workload) -> Image.Image:
    return PICTURES[kind](number, *picture_size(pipe, kind, workload))


def reads_no_prompt(pipe: "DiffusionPipeline") -> bool:
    """Does the pipe lack a text encoder? Prompts are then replaced by random embeddings.

    So it is with random weights for DeepFloyd IF, whose tokenizer is not shipped.
    """
    return not parts.text_encoders(pipe)


def embedding_width(pipe: "DiffusionPipeline") -> int:
    """The width of the prompt embeddings that the denoiser takes."""
    config = parts.denoiser(pipe).config
    return int(getattr(config, "encoder_hid_dim", None) or config.cross_attention_dim)


def _random_embeddings(pipe: "DiffusionPipeline", prompts: list[str]) -> dict[str, Any]:
    """Prompt embeddings of [prompts, EMBEDDING_TOKENS, width], random with a seed from the prompt's text.

    Those of the negative prompt are the embeddings of the empty text.
    """
    import torch

    def of(text: str) -> torch.Tensor:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
        return torch.randn(EMBEDDING_TOKENS, width, generator=torch.Generator("cpu").manual_seed(seed))

    width, device = embedding_width(pipe), pipe._execution_device
    dtype = parts.denoiser(pipe).dtype
    both = {"prompt_embeds": prompts, "negative_prompt_embeds": [""] * len(prompts)}
    return {name: torch.stack([of(text) for text in texts]).to(device, dtype) for name, texts in both.items()}
