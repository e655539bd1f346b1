"""IP-Adapter: a UNet is guided by a reference picture, too. Loaded from one safetensors file, with its image encoder.

The adapter's projections are attention processors that hold weights. So it is put on the pipe before any knob is
applied, and the knobs that would put other processors in their place are not available beside it.
"""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError
from autotune.pipeline import Pipeline, split_hub_file
from autotune.pipelines import locate, parts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ENCODER = "image_encoder"  # the folder beside the adapter's file
GROUPS = ("image_proj", "ip_adapter")  # of the tensors in its file


def put_on(pipe: "DiffusionPipeline", pipeline: Pipeline, *, local_files_only: bool, empty: bool = False) -> None:
    """Put the pipeline's IP-Adapter on the pipe, at its scale. Raises UserError where it can't be.

    empty  without weights, for a pipe that has none (torch's "meta" device)
    """
    assert pipeline.ip_adapter is not None
    source, live = pipeline.ip_adapter, pipe
    check(pipe, source)
    revision = locate.hub_revision(pipeline.part_revisions.get("ip_adapter"))
    file = locate.part_folder(source, revision=revision, local_files_only=local_files_only)
    if getattr(pipe, ENCODER) is None:
        folder = encoder_folder(source, file, revision, local_files_only=local_files_only)
        pipe.register_modules(image_encoder=_encoder(folder, pipe.dtype, empty=empty))
    try:
        any_pipe: Any = live
        any_pipe.load_ip_adapter(_state(file, empty=empty), subfolder="", weight_name="", image_encoder_folder=None)
        any_pipe.set_ip_adapter_scale(pipeline.ip_adapter_scale)
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"the IP-Adapter {source!r} does not fit {type(pipe).__name__}: {said}") from error


def check(pipe: "DiffusionPipeline", source: str) -> None:
    """Raises UserError where the pipeline takes no IP-Adapter that autotune can load."""
    load = getattr(type(pipe), "load_ip_adapter", None)
    how = inspect.signature(load).parameters if load is not None else {}
    if "image_encoder_folder" not in how or not hasattr(parts.denoiser(pipe), "_convert_ip_adapter_attn_to_diffusers"):
        raise UserError(
            f"--ip-adapter {source}: autotune loads IP-Adapters into UNets, and {type(pipe).__name__} has none."
        )


def encoder_folder(source: str, file: Path, revision: str | None, *, local_files_only: bool) -> Path:
    """The folder of the image encoder beside the adapter's file. It is downloaded if needed. Raises UserError."""
    folder, of_hub = file.parent / ENCODER, split_hub_file(source)
    if of_hub is not None:
        inside = "/".join([*of_hub[1].split("/")[:-1], ENCODER])
        only = (f"{inside}/*.json", f"{inside}/*.safetensors")
        folder = locate.part_folder(of_hub[0], revision=revision, local_files_only=local_files_only, only=only) / inside
    if not (folder / "config.json").is_file():
        raise UserError(f"--ip-adapter {source}: it needs the folder {ENCODER} beside it, with its image encoder.")
    return folder


def _encoder(folder: Path, dtype: Any, *, empty: bool) -> Any:
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    if empty:
        with torch.device("meta"):
            return CLIPVisionModelWithProjection(CLIPVisionConfig.from_pretrained(folder)).eval()
    return CLIPVisionModelWithProjection.from_pretrained(folder, dtype=dtype, use_safetensors=True).eval()


def _state(file: Path, *, empty: bool) -> dict[str, dict[str, Any]]:
    """The tensors of the file by group. Raises UserError where it is no IP-Adapter."""
    from safetensors.torch import load_file

    tensors = load_file(file)
    state: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        if group in state:
            state[group][rest] = tensor.to("meta") if empty else tensor
    if not all(state.values()):
        raise UserError(f"{file.name} is not an IP-Adapter: it has no tensors of {' and '.join(GROUPS)}.")
    return state
