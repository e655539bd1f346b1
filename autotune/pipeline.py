"""Pipeline: which model is tuned, where its weights are, and the traits that decide which knobs are available.

A child process reads the traits off diffusers' classes (`pipelines/inspect.py`). This module imports no torch.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from autotune.footprint import Component
from autotune.frozen_model import FrozenModel

# A name that is written into scripts as it is: of a class, a component or an argument.
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
Weights = Literal["pretrained", "random"]
Task = Literal["text2image", "image2image", "inpainting"]
TASKS: tuple[Task, ...] = ("text2image", "image2image", "inpainting")


class KeptOutput(FrozenModel):
    """An output that a pipeline reads late: it reads that of `model` after it has called `after` again.

    A CUDA graph of `after` would have overwritten it.

    by_scheduler  does the scheduler read it (PNDM), or the pipeline itself?
    guided        in calls with guidance, or in those without
    negative      in calls with a negative prompt beside a guidance of another kind (Flux's true_cfg_scale)
    """

    model: str
    after: str
    by_scheduler: bool
    guided: bool
    negative: bool = False


Weight = Annotated[float, Field(allow_inf_nan=False)]
Setting = bool | int | Weight | Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$", max_length=64)]  # of a scheduler


class Traits(FrozenModel):
    """What a pipeline supports, read from its classes and configuration without weights. Knobs decide by these."""

    class_name: Identifier  # of the pipeline, in diffusers
    denoiser: Identifier  # the name of the component that runs once a step: "unet", "transformer"
    denoiser_class: Identifier
    vae_class: Identifier | None
    vae_name: Identifier = "vae"  # of the component, if there is one ("movq" in Kandinsky)
    fuses_qkv: bool
    casting_fault: str | None = None  # of a call of the denoiser whose layers are cast from 8 bits; None: it works
    slices_attention: bool
    repeated_blocks: tuple[Identifier, ...]  # the classes of the denoiser's blocks that regional compilation compiles
    attention_downsamples: tuple[int, ...]  # of a UNet's levels with transformer blocks; 1: full resolution
    linear_shapes: tuple[tuple[int, int], ...]  # (in, out) of the denoiser's linear layers, without repeats
    convolutions: int  # the number of the denoiser's convolutions of two dimensions
    vae_tile_px: int | None  # pictures up to this side are decoded in one tile; None: the VAE has no tiling
    vae_upcasts_fp16: bool  # the pipeline casts the VAE to float32 and back, as it overflows in float16 (SDXL)
    size_multiple: int  # width and height must be multiples of this
    default_width: int | None  # None: see `unknown`
    default_height: int | None
    default_steps: int
    default_guidance_scale: float | None  # None: the call names none, and decides itself
    prompt_tokens: int  # the length of the text encoder's context, with the start and end tokens
    inputs: dict[Identifier, str] = Field(default_factory=dict)  # picture arguments: name -> kind, see inputs.PICTURES
    size_arguments: tuple[Identifier, ...] | None = None  # see inputs.SIZE_ARGUMENTS; None: an older file
    random_prompt_embeds: bool = False  # no text encoder: each prompt is replaced by random embeddings
    text_encoders: tuple[Identifier, ...] = ()  # the names of the components that encode the prompt
    controlnet_class: Identifier | None = None
    control_pictures: int = 1  # that a picture is drawn from, in the argument for them: one for each ControlNet
    attention_processors: tuple[str, ...] = ()  # the class names of the denoiser's, without repeats
    dispatches_attention: bool = False  # diffusers' attention dispatcher reaches the denoiser
    caches_blocks: bool = False  # diffusers' FirstBlockCache works in this pipeline; of an earlier version's probe
    block_caches: tuple[str, ...] = ()  # caches that reuse blocks in this pipeline, see rehearsal/caches.py
    sets_cache_context: bool = False  # the call tells diffusers' caches its calls of the denoisers apart
    scheduler_class: str = ""
    compatible_schedulers: tuple[Identifier, ...] = ()
    flow_matching: bool = False
    callback_tensors: tuple[Identifier, ...] = ()  # that callback_on_step_end may change; empty: no such callback
    conv1x1_shapes: tuple[tuple[int, int], ...] = ()  # (in, out) of the denoiser's 1x1 convolutions, without repeats
    guidance_argument: Identifier | None = "guidance_scale"  # of the call; None: it takes no guidance
    guidance_fault: str | None = None  # why guidance acts at no scale; None: it acts
    guided_above: float | None = 1.0  # above this scale the denoiser runs with and without the prompt; None: never
    takes_negative_prompt: bool = False
    default_negative_prompt: str | None = None  # of a guided call that does not act without one
    call_arguments: tuple[Identifier, ...] = ()  # the other arguments of the call that a workload may set
    quantized: dict[str, str] = Field(default_factory=dict)  # component -> how the checkpoint itself has quantized it
    unknown: dict[str, str] = Field(default_factory=dict)  # trait -> why it can't be known
    vae_faults: dict[str, str] = Field(default_factory=dict)  # value of the knob "vae" -> why it is not available
    components: tuple[Component, ...] = ()  # those with weights; empty: a file of an earlier version
    # What calls with empty weights showed, see pipelines/rehearsal; a reason in `unknown` where they failed.
    step_attention: tuple[tuple[int, bool, bool], ...] = ()  # SDPA each step: head size, masked?, in a processor?
    kept_outputs: tuple[KeptOutput, ...] = ()
    whole_graph_fault: str | None = None  # why no whole graph holds the denoiser, as a clause
    prompt_lengths_vary: bool = False  # what the denoiser is given is as long as the prompt
    names_sample: bool = False  # the denoiser is given its sample by name (Kandinsky 2.2)
    sets_processors: bool = False  # its own call replaces attention processors of the denoiser, as guidance by PAG does
    used_directly: tuple[str, ...] = ()  # linear layers of the denoiser whose weights are read without a call of them
    scheduler_faults: dict[str, str] = Field(default_factory=dict)  # see rehearsal/schedulers.py
    convolutions_3d: int = 0  # of the denoiser
    vae_convolutions: int = 0  # of two dimensions
    vae_convolutions_3d: int = 0
    default_strength: float | None = None  # of a call that starts from a picture; None: it takes no strength
    strength_rounds: Literal["down", "up"] | None = None  # steps x strength; None: not known
    frames_argument: Identifier | None = None  # of the call; None: it makes pictures
    default_frames: int | None = None  # of a clip
    frames_multiple: int = 1  # the frames after the first are a multiple of this
    more_denoisers: tuple[Identifier, ...] = ()  # that take turns with `denoiser`: models of its class (Wan 2.2)
    guidance_doubles: bool = False  # the denoiser of a guided call gets a batch of double size
    encodes_apart: bool = False  # every call of a text encoder is within encode_prompt, which is given words alone
    vae_encodes: bool = False  # a call encodes a picture, from which it starts
    sequential_fault: str | None = None  # why offload=sequential can't move the weights; None: it can
    vae_slices: bool = True  # the VAE can decode a batch one picture at a time

    @property
    def denoisers(self) -> tuple[str, ...]:
        """The names of all denoisers, the first one first."""
        return (self.denoiser, *self.more_denoisers)

    def steps_that_run(self, steps: int, strength: float | None) -> int:
        """How many of a call's steps run. With a strength below 1, the first ones are left out.

        strength  None: the call's default
        """
        given = self.default_strength if strength is None else strength
        if given is None or self.strength_rounds is None:
            return steps
        run = min(steps * given, steps)  # as diffusers computes it, in floating point
        return int(run) if self.strength_rounds == "down" else steps - int(max(steps - run, 0))


class Pipeline(FrozenModel):
    """A preset, a hub id or a local folder, with what is loaded on top. The probe sets revisions and traits."""

    name: str  # as the user named it
    source: str  # "demo", a hub id, an absolute folder, a single .safetensors file or the file of a factory
    factory: Identifier | None = None  # the user's function in `source` that builds the pipe; None: diffusers loads it
    config: str | None = None  # the hub id or folder whose configurations a single file is loaded with
    variant: str | None = None  # of the weights, such as "fp16"; None: the plain ones. The probe looks which there are
    revision: str | None = None  # the hub's commit, or a digest of a local folder's names and sizes; set by the probe
    weights: Weights = "pretrained"
    scorer: str | None = None  # the CLIP model that scores the pictures: "demo" or a hub id; None: no CLIP scores
    task: Task | None = None  # None: the task of the class in model_index.json
    controlnet: str | None = None  # the hub id or folder of a ControlNet that is loaded with it
    controlnet_weight: Weight | None = None  # how strongly it acts (its conditioning scale); None: the call decides
    more_controlnets: dict[str, Weight | None] = Field(default_factory=dict)  # source -> weight of further ones
    lora: str | None = None  # the hub id, folder or .safetensors file of a LoRA that is fused into the weights
    scheduler: str | None = None  # a diffusers class that replaces the pipeline's scheduler; None: it is kept
    scheduler_settings: dict[Identifier, Setting] = Field(default_factory=dict)  # in which `scheduler` differs from it
    gguf: str | None = None  # the .gguf file with the denoiser's weights: a path, or owner/name:PATH of the hub
    lora_weight: float = Field(default=1.0, allow_inf_nan=False)  # how strongly `lora` is fused
    more_loras: dict[str, Weight] = Field(default_factory=dict)  # source -> weight of LoRAs that are fused with it
    ip_adapter: str | None = None  # the .safetensors file of an IP-Adapter: a path, or owner/name:PATH of the hub
    ip_adapter_scale: float = Field(default=1.0, allow_inf_nan=False)  # how strongly its picture guides
    textual_inversions: dict[str, str] = Field(
        default_factory=dict
    )  # source -> its token in prompts, found by the probe
    part_revisions: dict[str, str] = Field(default_factory=dict)  # "controlnet", a LoRA -> revision; set by the probe
    traits: Traits | None = None

    @property
    def controlnets(self) -> dict[str, tuple[str, float | None]]:
        """Name ("controlnet", "controlnet_2" ...) -> source and weight of each ControlNet, in order."""
        first = [(self.controlnet, self.controlnet_weight)] if self.controlnet is not None else []
        every = enumerate([*first, *self.more_controlnets.items()], start=1)
        return {f"controlnet_{number}" if number > 1 else "controlnet": one for number, one in every}

    @property
    def loras(self) -> dict[str, tuple[str, float]]:
        """Name ("lora", "lora_2" ...) -> source and weight of each LoRA that is fused into the weights, in order."""
        every = [*([(self.lora, self.lora_weight)] if self.lora is not None else []), *self.more_loras.items()]
        return {f"lora_{number}" if number > 1 else "lora": lora for number, lora in enumerate(every, start=1)}

    @property
    def named_inversions(self) -> dict[str, tuple[str, str]]:
        """Name ("textual_inversion", "textual_inversion_2" ...) -> source and token of each textual inversion."""
        numbered = enumerate(self.textual_inversions.items(), start=1)
        return {f"textual_inversion_{n}" if n > 1 else "textual_inversion": one for n, one in numbered}

    @property
    def added(self) -> dict[str, str]:
        """Name -> source of all that is loaded beside the pipeline itself, as in `part_revisions`."""
        several = (*self.controlnets.items(), *self.loras.items(), *self.named_inversions.items())
        one = {name: source for name in ("ip_adapter", "gguf") if (source := getattr(self, name)) is not None}
        return one | {name: source for name, (source, _) in several}

    @property
    def known(self) -> Traits:
        """The traits of a pipeline that was probed."""
        assert self.traits is not None, "this pipeline was not probed"
        return self.traits

    @property
    def slug(self) -> str:
        """The pipeline's name as a part of a folder's name."""
        return self.name.rstrip("/").split("/")[-1].lower()


HUB_ID = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")
HUB_FILE = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*):([\w-][\w.-]*(?:/[\w-][\w.-]*)*)", re.ASCII)
SAFETENSORS, GGUF = ".safetensors", ".gguf"


def split_hub_file(source: str, suffixes: tuple[str, ...] = (SAFETENSORS,)) -> tuple[str, str] | None:
    """The hub id and the file of owner/name:FILE.safetensors; None: the source is of another form.

    suffixes  with which the name of the file may end
    """
    found = HUB_FILE.fullmatch(source)
    fits = found is not None and ".." not in source and source.endswith(suffixes)
    return (found[1], found[2]) if found is not None and fits else None


def same_files(recorded: str | None, current: str | None) -> bool:
    """Do two revisions stand for the same files? Earlier versions recorded no digest of contents: names must do."""
    if recorded is None or current is None or not (recorded.startswith("files-") and current.startswith("files-")):
        return recorded == current
    old, new = recorded.split("-")[1:], current.split("-")[1:]
    return all(a == b for a, b in zip(old, new, strict=False))


class Preset(FrozenModel):
    """A pipeline with a short name, and the workload that is tuned unless the user names another."""

    name: str
    source: str
    task: Task | None = None
    controlnet: str | None = None
    lora: str | None = None
    scheduler: str | None = None
    scheduler_settings: dict[Identifier, Setting] = Field(default_factory=dict)
    architecture: str | None = None  # its folder under pipelines/architectures, for random weights; None: it has none
    controlnet_architecture: str | None = None
    scorer: str
    prompts: str  # the name of a file in autotune/prompts
    space: str  # the name of a file in search_spaces
    width: int
    height: int
    steps: int
    guidance_scale: float
    frames: int | None = None  # of a clip; None: the preset makes pictures

    def replace(self, **changes: Any) -> "Preset":
        """Another preset, which differs in these fields."""
        return Preset.model_validate({**self.model_dump(), **changes})
