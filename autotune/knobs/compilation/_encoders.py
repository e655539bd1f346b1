"""Encoders: which of a config are compiled, how, and how many graphs their calls have made."""

from collections.abc import Callable
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


class Watched:
    """A compiled function that counts the graphs that its calls make."""

    def __init__(self, compiled: Callable[..., Any]) -> None:
        self.compiled, self.graphs = compiled, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from torch._dynamo.utils import counters

        before = counters["stats"]["unique_graphs"]
        made = self.compiled(*args, **kwargs)
        self.graphs += counters["stats"]["unique_graphs"] - before
        return made


def graphs_of(pipe: "DiffusionPipeline", config: Config) -> dict[str, list[int]]:
    """TEXT or PICTURE, where the config compiles them -> the graphs that the calls of each encoder have made so far."""
    vae, wanted = parts.vae(pipe), chosen(config)
    text = [vars(encoder).get("_compiled_call_impl") for encoder in parts.text_encoders(pipe).values()]
    held = {TEXT: text, PICTURE: [getattr(vae, "encode", None)]}
    return {name: [f.graphs if isinstance(f, Watched) else 0 for f in held[name]] for name in held if name in wanted}


def compile_them(pipe: "DiffusionPipeline", config: Config, how: dict[str, Any], device: str) -> int:
    """Compile the encoders that the config chooses, with these arguments of torch.compile; their number."""
    import torch

    compiled, vae = 0, parts.vae(pipe)
    if TEXT in chosen(config):
        for encoder in parts.text_encoders(pipe).values():
            _install_hooks(encoder, device)
            encoder.compile(**how)
            vars(encoder)["_compiled_call_impl"] = Watched(encoder._compiled_call_impl)
            compiled += 1
    if PICTURE in chosen(config) and vae is not None:
        vae.encode = Watched(torch.compile(vae.encode, **how))
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
