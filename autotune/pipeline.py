"""Pipeline: our description of what is tuned. Which model, from where, and the traits that decide what can act on it.

No torch here: the traits are read off the real classes by the probe (`pipelines/inspect.py`), in a child process.
"""

from typing import Any, Literal

from pydantic import Field

from autotune.frozen_model import FrozenModel

Weights = Literal["pretrained", "random"]
Task = Literal["text2image", "image2image", "inpainting"]
TASKS: tuple[Task, ...] = ("text2image", "image2image", "inpainting")


class Traits(FrozenModel):
    """What a pipeline's classes and configuration can do. Knobs decide by these; no weights are needed to know them."""

    class_name: str  # diffusers' pipeline class
    denoiser: str  # the component that runs once a step
    denoiser_class: str
    vae_class: str | None
    fuses_qkv: bool
    slices_attention: bool
    repeated_blocks: tuple[str, ...]  # the classes that regional compilation compiles
    attention_downsamples: tuple[int, ...]  # levels with transformer blocks: 1 is the latent's full resolution
    linear_shapes: tuple[tuple[int, int], ...]  # (in, out) of every linear layer of the denoiser, without repeats
    convolutions: int
    vae_tile_px: int | None  # pictures up to this side are decoded in one tile
    vae_upcasts_fp16: bool  # the VAE overflows in float16, so the pipeline casts it to float32 and back (SDXL)
    size_multiple: int  # width and height must be multiples of this
    default_width: int
    default_height: int
    default_steps: int
    default_guidance_scale: float
    prompt_tokens: int  # of the text encoder's context, the two end markers included
    inputs: dict[str, str] = Field(default_factory=dict)  # arguments that take pictures: name -> what we put there
    size_arguments: tuple[str, ...] | None = None  # of its call, see inputs.SIZE_ARGUMENTS; None: an older file
    random_prompt_embeds: bool = False  # no text encoder: prompts are replaced by random embeddings of their own
    text_encoders: tuple[str, ...] = ()  # the components that read the prompt
    controlnet_class: str | None = None
    attention_processors: tuple[str, ...] = ()  # the classes of the denoiser's, without repeats
    dispatches_attention: bool = False  # diffusers' attention dispatcher reaches the denoiser
    caches_blocks: bool = False  # diffusers' caches of blocks (FirstBlockCache) work in this pipeline
    scheduler_class: str = ""
    compatible_schedulers: tuple[str, ...] = ()
    flow_matching: bool = False
    callback_tensors: tuple[str, ...] = ()  # what callback_on_step_end may change; empty: there is no such callback
    conv1x1_shapes: tuple[tuple[int, int], ...] = ()  # (in, out) of the denoiser's 1x1 convolutions, without repeats
    vae_faults: dict[str, str] = Field(default_factory=dict)  # value of the knob "vae" -> why it can't be had


class Pipeline(FrozenModel):
    """Which pipeline: a preset, a hub id or a local folder. `traits` are known once it has been probed."""

    name: str  # as the user gave it
    source: str  # "demo", a hub id or an absolute folder
    revision: str | None = None  # the hub's commit, or a digest of a local folder's file list; set by the probe
    weights: Weights = "pretrained"
    scorer: str | None = None  # the CLIP model that judges its pictures: "demo" or a hub id
    task: Task | None = None  # None: what its own model_index.json says
    controlnet: str | None = None  # a hub id or folder of a ControlNet to load with it
    lora: str | None = None  # a hub id, folder or .safetensors file of a LoRA, fused into the weights while loading
    scheduler: str | None = None  # a scheduler class of diffusers to use instead of its own
    part_revisions: dict[str, str] = Field(default_factory=dict)  # of the ControlNet and the LoRA; set by the probe
    traits: Traits | None = None

    @property
    def known(self) -> Traits:
        """The traits, of a pipeline that was probed."""
        assert self.traits is not None, "this pipeline was not probed yet"
        return self.traits

    @property
    def slug(self) -> str:
        """The pipeline's name as a part of a folder's name."""
        return self.name.rstrip("/").split("/")[-1].lower()


class Preset(FrozenModel):
    """A pipeline known by a short name, with the workload its users mean when they say nothing else."""

    name: str
    source: str
    task: Task | None = None
    controlnet: str | None = None
    lora: str | None = None
    scheduler: str | None = None
    architecture: str | None = None  # its folder of configurations under pipelines/architectures, for random weights
    controlnet_architecture: str | None = None
    scorer: str
    prompts: str  # a file in autotune/prompts
    space: str  # a file in search_spaces
    width: int
    height: int
    steps: int
    guidance_scale: float

    def but(self, **changes: Any) -> "Preset":
        """Another one that differs in these fields."""
        return Preset.model_validate({**self.model_dump(), **changes})
