"""compile_encoders: which encoders are compiled beside the denoiser: those of the prompt, that of the starting picture.

An encoder runs once in a call, so it matters where there are few steps, or a large text encoder. `compile=everything`
has the text encoders in it. The VAE encodes where a call starts from a picture (image-to-image, editing).
"""

from typing import TYPE_CHECKING

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Stage
from autotune.knobs.compilation._encoders import PICTURE, TEXT, graphs_of
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


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


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    """The encoders that ran compiled, and their graphs. 0: one that the value names never ran, or not compiled."""
    made = graphs_of(pipe, config)
    idle = [name for name, graphs in made.items() if not any(graphs)]
    if idle:
        return Effect(count=0, what=f"graphs made by calls of {' and '.join(idle)}")
    graphs = [number for numbers in made.values() for number in numbers if number]
    return Effect(count=len(graphs), what=f"encoders compiled, in {sum(graphs)} graphs")


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
