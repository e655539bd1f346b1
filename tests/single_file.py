"""original_names(): a tiny Stable Diffusion under the names of the original code, as single files have them."""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

RESNET = {"in_layers.0": "norm1", "in_layers.2": "conv1", "out_layers.0": "norm2", "out_layers.3": "conv2"}
RESNET |= {"emb_layers.1": "time_emb_proj", "skip_connection": "conv_shortcut"}


def original_names(folder: Path) -> dict[str, Any]:
    """The weights of a tiny Stable Diffusion under the names of the original code, as single files have them."""
    tensors = {f"model.diffusion_model.{_unet(k)}": v for k, v in _weights(folder / "unet").items()}
    tensors |= {f"first_stage_model.{_vae(k)}": _as_convolution(k, v) for k, v in _weights(folder / "vae").items()}
    text = _weights(folder / "text_encoder")
    tensors |= {f"cond_stage_model.transformer.{_text(name)}": value for name, value in text.items()}
    return {name: value.contiguous() for name, value in tensors.items()}


def _weights(folder: Path) -> dict[str, Any]:
    [file] = folder.glob("*.safetensors")
    return load_file(file)


def _text(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _resnet(name: str) -> str:
    for original, ours in RESNET.items():
        name = name.replace(f".{ours}.", f".{original}.")
    return name


def _unet(name: str) -> str:
    """One layer per block, two levels: attention in the first, none in the second."""
    ends = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    ends |= {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    blocks = {
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.attentions.0": "input_blocks.1.1",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0": "input_blocks.3.0",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "up_blocks.0.resnets.0": "output_blocks.0.0",
        "up_blocks.0.resnets.1": "output_blocks.1.0",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
        "up_blocks.1.resnets.0": "output_blocks.2.0",
        "up_blocks.1.attentions.0": "output_blocks.2.1",
        "up_blocks.1.resnets.1": "output_blocks.3.0",
        "up_blocks.1.attentions.1": "output_blocks.3.1",
    }
    for ours, original in (ends | blocks).items():
        if name.startswith(f"{ours}."):
            rest = f".{name.removeprefix(f'{ours}.')}"
            return original + (_resnet(rest) if ".resnets." in f".{ours}." else rest)
    raise AssertionError(name)


def _vae(name: str) -> str:
    levels = 2
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
    for ours, original in {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
        name = name.replace(f"attn_1.{ours}", f"attn_1.{original}")
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)


def _as_convolution(name: str, tensor: Any) -> Any:
    linear = "attentions" in name and name.endswith("weight") and tensor.ndim == 2
    return tensor[:, :, None, None] if linear else tensor
