"""compile_encoders: which encoders are compiled beside the denoiser: those of the prompt, that of the starting picture.

An encoder runs once in a call, so it matters where there are few steps, or a large text encoder. `compile=everything`
has the text encoders in it. The VAE encodes where a call starts from a picture (image-to-image, editing).
"""

from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Stage
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TEXT, PICTURE = "text_encoder", "vae_encode"


def chosen(config: Config) -> set[str]:
    """Of TEXT and PICTURE those that the config compiles."""
    named = set(str(config.get("compile_encoders", "none")).split("+")) - {"none"}
    return named | ({TEXT} if config["compile"] == "everything" else set())


def why_not(value: Value, target: Target) -> str | None:
    traits, named = target.pipeline.known, str(value).split("+")
    if TEXT in named and not traits.text_encoders:
        return f"{traits.class_name} has no text encoder"
    if PICTURE in named and not traits.vae_encodes:
        return f"the VAE of {traits.class_name} encodes no picture in a call"
    return None


def clash(config: Config, target: Target) -> str | None:
    value = str(config.get("compile_encoders", "none"))
    if value != "none" and config["compile"] == "trace":
        return "torch.jit.trace is for the denoiser alone"
    if TEXT in value and config["compile"] == "everything":
        return "compile=everything compiles the text encoders already"
    return None


def compile_them(pipe: "DiffusionPipeline", config: Config, how: dict[str, Any]) -> int:
    """Compile the encoders that the config chooses, with these arguments of torch.compile; their number."""
    import torch

    compiled, vae = 0, parts.vae(pipe)
    if TEXT in chosen(config):
        for encoder in parts.text_encoders(pipe).values():
            _install_hooks(encoder)
            encoder.compile(**how)
            compiled += 1
    if PICTURE in chosen(config) and vae is not None:
        vae.encode = torch.compile(vae.encode, **how)
        compiled += 1
    return compiled


def _install_hooks(encoder: Any) -> None:
    """Make transformers install its hooks for hidden states, by a call with one token.

    It installs them at the first call that requests hidden states, under a lock, which would break the graph.
    """
    import torch

    with torch.no_grad():
        encoder(torch.zeros((1, 1), dtype=torch.long, device=encoder.device), output_hidden_states=True)


def lines(config: Config, target: Target, how: str) -> list[str]:
    """The same in a plain script. `how`: the arguments of torch.compile as source text."""
    traits, found = target.pipeline.known, []
    for name in traits.text_encoders if TEXT in chosen(config) else ():
        arguments = f"torch.zeros((1, 1), dtype=torch.long, device=pipe.{name}.device), output_hidden_states=True"
        found.append(f"pipe.{name}({arguments})  # installs its hooks, which would break the graph")
        found.append(f"pipe.{name}.compile({how})")
    if PICTURE in chosen(config):
        encode = f"pipe.{traits.vae_name}.encode"
        found.append(f"{encode} = torch.compile({encode}, {how})")
    return found


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    """The compiled encoders, of which torch.compile's wrapper is in place after the calls."""
    text = parts.text_encoders(pipe).values() if TEXT in chosen(config) else ()
    count = sum(encoder._compiled_call_impl is not None for encoder in text)
    encode = getattr(parts.vae(pipe), "encode", None) if PICTURE in chosen(config) else None
    return Effect(count=count + hasattr(encode, "_torchdynamo_orig_callable"), what="encoders compiled")


KNOB = Knob(
    name="compile_encoders",
    stage=Stage.COMPILE,
    modifies="compile",
    values=("none", TEXT, PICTURE, f"{TEXT}+{PICTURE}"),
    changes_output=False,
    nearest={f"{TEXT}+{PICTURE}": (TEXT, PICTURE)},
    summary="which encoders are compiled, too",
    why_not=why_not,
    clash=clash,
    verify=verify,
    reads_kernels=False,
)
