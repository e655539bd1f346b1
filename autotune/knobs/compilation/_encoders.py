"""Encoders: which of a config are compiled, and how."""

from typing import TYPE_CHECKING, Any

from autotune.config import Config
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TEXT, PICTURE = "text_encoder", "vae_encode"


def chosen(config: Config) -> set[str]:
    """Of TEXT and PICTURE those that the config compiles."""
    named = set(str(config.get("compile_encoders", "none")).split("+")) - {"none"}
    return named | ({TEXT} if config["compile"] == "everything" else set())


def compile_them(pipe: "DiffusionPipeline", config: Config, how: dict[str, Any], device: str) -> int:
    """Compile the encoders that the config chooses, with these arguments of torch.compile; their number."""
    import torch

    compiled, vae = 0, parts.vae(pipe)
    if TEXT in chosen(config):
        for encoder in parts.text_encoders(pipe).values():
            _install_hooks(encoder, device)
            encoder.compile(**how)
            compiled += 1
    if PICTURE in chosen(config) and vae is not None:
        vae.encode = torch.compile(vae.encode, **how)
        compiled += 1
    return compiled


def _install_hooks(encoder: Any, device: str) -> None:
    """Make transformers install its hooks for hidden states, by a call with one token.

    It installs them at the first call that requests hidden states, under a lock, which would break the graph. An
    encoder that was quantized on the device lies there in part only, and would fail: the rest of it follows.
    """
    import torch

    if len({weight.device for weight in encoder.parameters()}) > 1:
        encoder.to(device)
    with torch.no_grad():
        encoder(torch.zeros((1, 1), dtype=torch.long, device=encoder.device), output_hidden_states=True)


def lines(config: Config, target: Target, how: str) -> list[str]:
    """The same in a plain script. `how`: the arguments of torch.compile as source text."""
    traits, found = target.pipeline.known, []
    for name in traits.text_encoders if TEXT in chosen(config) else ():
        if target.device.is_gpu and config.get("quantize_text_encoder", "none") != "none":
            found.append(f'pipe.{name}.to("{target.device.torch_type}")  # where its layers were quantized')
        arguments = f"torch.zeros((1, 1), dtype=torch.long, device=pipe.{name}.device), output_hidden_states=True"
        found.append(f"pipe.{name}({arguments})  # installs its hooks, which would break the graph")
        found.append(f"pipe.{name}.compile({how})")
    if PICTURE in chosen(config):
        encode = f"pipe.{traits.vae_name}.encode"
        found.append(f"{encode} = torch.compile({encode}, {how})")
    return found
