"""Knob: one setting of a pipeline, with its values and its effect. This is the contract for every file in `knobs/`.

A knob is one file that defines `KNOB`. The search, the reports and production read nothing else of it, and this module
knows no knob by name. A complete example, FreeU for UNets:

    from autotune.config import Config, Value
    from autotune.knob import Effect, Knob, Script, Stage
    from autotune.pipelines import parts
    from autotune.target import Target

    def why_not(value: Value, target: Target) -> str | None:
        if value and not target.pipeline.known.attention_downsamples:
            return f"{target.pipeline.known.denoiser_class} has no upsampling blocks that read FreeU's factors"
        return None

    def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
        from diffusers.models.unets.unet_2d_blocks import CrossAttnUpBlock2D, UpBlock2D

        unet = parts.denoiser(pipe)
        unet.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4)
        # diffusers sets the factors in every block, but only these classes read them, in the first two blocks: count
        # what acts, not what was set.
        blocks = [block for block in unet.up_blocks[:2] if isinstance(block, CrossAttnUpBlock2D | UpBlock2D)]
        return Effect(count=len(blocks), what="upsampling blocks with FreeU")

    def script(config: Config, target: Target) -> Script:
        return Script(lines=("pipe.unet.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4)",))

    KNOB = Knob(
        name="freeu",
        stage=Stage.PATCH,
        values=(False, True),
        changes_output=True,
        summary="skip connections of the UNet reweighted",
        why_not=why_not,
        apply=apply,
        script=script,
    )

A knob file imports torch and diffusers inside functions only, because the parent process lists the knobs without them.
`tests/knobs/test_contract.py` checks what is promised here, for every knob.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

from pydantic import Field

from autotune.config import Config, Range, Value
from autotune.footprint import Footprint
from autotune.frozen_model import FrozenModel
from autotune.target import Target

# What people do to a pipe that is tuned: put a LoRA or an IP-Adapter on it, set attention processors, save_pretrained.
Change = Literal["lora", "ip_adapter", "processors", "save"]


class Stage(IntEnum):
    """When a knob acts. Knobs are applied in this order, which is the order of diffusers' own guides.

    Each stage needs the ones before it: fusing needs plain weights, quantization needs fused weights, compilation needs
    the final modules. Other orders fail.
    """

    WEIGHTS = 0  # what is loaded: number format, VAE, scheduler
    SURGERY = 1  # modules replaced by equivalent ones: fused projections
    LAYOUT = 2  # memory format
    QUANTIZE = 3
    PATCH = 4  # modules that compute something else: token merging, caches
    ATTENTION = 5
    COMPILE = 6
    PLACEMENT = 7  # where the weights lie: on the device, or offloaded
    CALL = 8  # arguments of the pipeline's call


class Effect(FrozenModel):
    """What a knob changed: `count` things, described by `what`. A count of 0 means that the knob had no effect."""

    count: int
    what: str

    def __str__(self) -> str:
        return f"{self.count} {self.what}"


class Script(FrozenModel):
    """The source text that replaces a knob in a plain script. In it, the loaded pipeline is called `pipe`.

    imports  import statements
    load     extra arguments of `from_pretrained`: name -> expression
    lines    statements to run after loading
    call     extra arguments of `pipe(...)`: name -> expression
    places   the lines also move the weights to the device, so that `pipe.to(device)` must not follow
    why_not  why a short script can't do what the knob does, as a clause; the other fields are then empty
    """

    imports: tuple[str, ...] = ()
    load: dict[str, str] = Field(default_factory=dict)
    lines: tuple[str, ...] = ()
    call: dict[str, str] = Field(default_factory=dict)
    places: bool = False
    why_not: str | None = None


def no_ranges(target: Target) -> tuple[Range, ...]:
    """The default of `ranges`: the knob's listed values are all that a search tries."""
    return ()


def no_objection(*_: Any) -> None:
    """The default of `why_not` and `clash`: every value is available, with every other knob."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One setting of a pipeline. Only the first five fields are required.

    A `pipe` below is a live `diffusers.DiffusionPipeline`. Reasons are clauses without a capital and a full stop.

    Description

    name     The name in configs and on the command line. It is the name of the file. Example: "tome_ratio".
    stage    When the knob acts, see Stage.
    values   The values that a search offers, the default first. The default leaves the pipeline as diffusers loads it.
             Example: (0.0, 0.25, 0.5, 0.75).
    changes_output
             Does the knob change the picture (dtype, token merging, steps)? False: it only changes how the picture is
             computed (compilation, memory layout). Trials that differ in such knobs alone share their pictures.
    summary  What the knob sets, in at most 60 characters. Example: "share of tokens merged before self-attention".
    rounds   Does the knob change the picture by rounding alone (dtype, quantization)? Then small differences to the
             picture of another trial are expected.
    modifies The knob that this one refines. This one is part of a config only where that one is not at its default.
             Example: "compile", for compile_mode.

    Which values are possible. These run in the parent process, before any trial.

    ranges(target) -> ranges
             Numbers that a search may try between the listed values, where they are ordered: a threshold, a share, a
             size. The listed values that lie in a range are tried first, or where only a few can be; without such a
             value, a grid of the range is. `also` must allow every number of a range.
             Example: lambda target: (Range(low=0.03, high=0.2, log=True, prefix="first_block:"),).
    also(value) -> bool
             Is this value allowed, though `values` does not list it? Space files and --fix may name it. Called for
             values that are not in `values`. Example: any float from 0 to 0.75.
    why_not(value, target) -> reason or None
             Why this value is not available for the target (pipeline, workload, device, versions). It follows
             "NAME=VALUE: ". Called for every value that is offered; must return None for the default.
             Example: "needs compute capability 8.9; this GPU has 8.0".
    not_worth_trying(value, target) -> reason or None
             Why a search leaves this value out, although it works. It follows "NAME=VALUE: ". Not asked of values
             that the user fixes, that the space file lists, and of the baseline's.
             Example: "takes more than 4 times as long here".
    clash(config, target) -> reason or None
             Why this knob's value can't be combined with another knob's value. The reason stands alone, so it names
             what clashes. Called for every config that has this knob; must return None where the knob is at its
             default. Only one of the two knobs checks: the newer one. Knobs that modify another one may be absent from
             the config. Example: "the int4 kernel supports bfloat16 only".
    nearest  Value -> the values that replace it where it is not available, best first. Used in production, where a
             tuned config meets another device. Without an entry the default replaces it.
             Example: {"fp16": ("bf16",)}.

    What the knob does. These run in the process of the trial, and in production. A knob acts at one or more of the
    first three moments, in this order; a knob that modifies another one acts through that one's functions.

    load(value) -> arguments
             Extra arguments of `pipelines.loading.load`, called before the pipeline is loaded, for the default too.
             Example: {"dtype": torch.bfloat16}.
    apply(pipe, config, device) -> Effect
             Change the loaded pipe and return what was changed. Called once, unless the knob is at its default.
             `device` is torch's name, such as "cuda:0". A trial whose Effect counts 0 fails: the knob had no effect.
             A knob with `load` needs `apply` as well, which changes nothing and counts what loading did.
    call(value, pipe) -> arguments
             Arguments that become defaults of the pipe's `__call__`. Example: {"num_inference_steps": 8}.
    prepare(pipe, config, known) -> numbers
             Called once, right before the first call of the built pipe, for a knob that is not at its default. It may
             call the pipe, and its time is part of the first call's. Returns what it has measured, if `calibrates` has
             a word for the value; `known` is what it returned in an earlier process, to be returned again, or empty.
             Example: a cache that is calibrated.
    calibrates(value) -> word or None
             What `prepare` measures for this value. The numbers are kept with the trial and in an exported config.
             Trials whose value has the same word, and whose other knobs draw the same picture, share them.
    verify(pipe, config, kernels) -> Effect
             Return the effect that only finished calls show. Called after the measured calls, for a knob that is not
             at its default. `kernels` counts the attention kernels that the profiler saw in the denoiser during the
             first steps of a call: {"flash": 16}. A count of 0 fails the trial, as with `apply`. Every call before it
             is one of the workload.
    reads_kernels
             Does `verify` look at `kernels`? They are known only when all is measured, because a process that was
             profiled is slower. False: `verify` is called before the timed calls, too, with no kernels, so that a value
             without effect costs less time.
    weighs(footprint, config, target) -> Footprint
             What the knob makes of the weights: how many bytes they take, and which of them must be on the device at
             the same time. Called in the parent process for every config that has the knob, in the order of the
             stages, to predict what fits before anything is loaded. Example: offload. Return the footprint as it is
             where nothing changes.
    undone_by(value, change) -> reason or None
             Why this value would be lost or would fail where the user changes the tuned pipe: "lora" or "ip_adapter"
             (it is put on later), "processors" (attention processors are set), "save" (save_pretrained). It follows
             "NAME=VALUE ". Such a change is then refused. Never called for the default. The stages SURGERY and
             QUANTIZE refuse "lora" and "save" without it. Example: "acts in the attention processors".
    script(config, target) -> Script
             The same change as source text, for `autotune export --as python`. The script of a knob includes that of
             the knobs that modify it.

    What earlier trials tell

    in_graphs(value) -> value
             The part of the value on which the graphs of torch.compile depend, and with them the memory of a call.
             Configs that agree in this part of every knob run the same compiled code. The default is the value itself.
             Example: lambda value: "any" for steps, whose number is not compiled.
    """

    name: str
    stage: Stage
    values: tuple[Value, ...]
    changes_output: bool
    summary: str
    rounds: bool = False
    in_graphs: Callable[[Value], Value] = lambda value: value
    ranges: Callable[[Target], tuple[Range, ...]] = no_ranges
    also: Callable[[Value], bool] = lambda value: False
    why_not: Callable[[Value, Target], str | None] = no_objection
    not_worth_trying: Callable[[Value, Target], str | None] = no_objection
    clash: Callable[[Config, Target], str | None] = no_objection
    modifies: str | None = None
    load: Callable[[Value], dict[str, Any]] | None = None
    apply: Callable[[Any, Config, str], Effect] | None = None  # Any: DiffusionPipeline, which is not imported here
    prepare: Callable[[Any, Config, tuple[float, ...]], tuple[float, ...]] | None = None
    calibrates: Callable[[Value], str | None] = no_objection
    verify: Callable[[Any, Config, dict[str, int]], Effect] | None = None
    reads_kernels: bool = True
    call: Callable[[Value, Any], dict[str, Any]] | None = None
    weighs: Callable[[Footprint, Config, Target], Footprint] | None = None
    undone_by: Callable[[Value, Change], str | None] = no_objection
    script: Callable[[Config, Target], Script] | None = None
    nearest: Mapping[Value, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def default(self) -> Value:
        """The value that leaves the pipeline as diffusers loads it."""
        return self.values[0]

    def calibration(self, value: Value) -> str | None:
        """The name of what `prepare` measures for this value, such as "cache=magcache"; None: nothing is kept."""
        word = self.calibrates(value)
        return None if word is None else f"{self.name}={word}"

    def accepts(self, value: Value) -> bool:
        """Is this a value of the knob, on any device? Types must match: True is not 1, 1 is not 1.0."""
        return any(value == v and type(value) is type(v) for v in self.values) or self.also(value)
