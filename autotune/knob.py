"""Knob: one setting of a pipeline. Stage: when it acts. Effect: what it changed.

This module knows no knob by name; each lives in a file of its own under `knobs/`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from pydantic import Field

from autotune.config import Config, Value
from autotune.frozen_model import FrozenModel
from autotune.target import Target


class Stage(IntEnum):
    """The order in which knobs act. Fusing must see plain weights, quantization must see fused ones, and so on down:
    the order of diffusers' own guides, with the failures of every other order in mind."""

    WEIGHTS = 0
    SURGERY = 1  # fused projections
    LAYOUT = 2  # memory format
    QUANTIZE = 3
    PATCH = 4  # token merging, caches
    ATTENTION = 5
    COMPILE = 6
    PLACEMENT = 7  # where the weights live: the device, or offloaded
    CALL = 8  # arguments of the pipeline's call


class Effect(FrozenModel):
    """What a knob changed: `count` of `what`. A count of 0 means that the knob did nothing here."""

    count: int
    what: str

    def __str__(self) -> str:
        return f"{self.count} {self.what}"


class Script(FrozenModel):
    """A knob's part of a plain script (export_script.py), as source text: `pipe` is the loaded pipeline.

    why_not  a sentence why a short script can't do what the knob does; then the rest is empty
    """

    imports: tuple[str, ...] = ()
    load: dict[str, str] = Field(default_factory=dict)  # extra arguments of from_pretrained
    lines: tuple[str, ...] = ()
    call: dict[str, str] = Field(default_factory=dict)  # extra arguments of pipe(...)
    places: bool = False  # it has brought the weights to where they belong
    why_not: str | None = None


def never(*_: Any) -> None:
    """Nothing to object to."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One setting. It acts at up to three moments, each optional: on loading, on the built pipe, on the call.

    values    what is offered, the untouched default first: "all first values" is the pipeline as diffusers gives it
    also      is this value, not among those offered, possible too? (a ratio, a number of steps; used by space files)
    why_not   a sentence why a value can't act on this target, or None; decided before any process is started
    clash     a sentence why its value can't go with an older knob's in this config, or None; one-sided
    modifies  the knob that this one refines: it acts only where that knob is not at its default
    load      extra arguments of `from_pretrained`
    apply     changes the live pipe and says what it changed; called with (pipe, config, torch device name)
    verify    what it changed, as far as only a finished call can show; called with (pipe, config, the attention kernels
              that the profiler saw in the denoiser)
    script    what a plain script writes instead of it; called with (config, target). A modifier is part of that of the
              knob that it modifies
    nearest   a value -> what comes nearest to it, best first, where it can't act: see fallback.py
    call      arguments that become the pipeline's own defaults; called with (value, pipe)
    changes_output  does it change the picture (dtype, merging, steps), or only how it is computed (compile, layout)?
    rounds    does it change the picture by rounding numbers otherwise, and by nothing else (dtype, quantization)?
    in_graphs what of its value the graphs depend on that torch.compile makes, and with them what a call needs of memory
    """

    name: str
    stage: Stage
    values: tuple[Value, ...]
    changes_output: bool
    summary: str
    rounds: bool = False
    in_graphs: Callable[[Value], Value] = lambda value: value
    also: Callable[[Value], bool] = lambda value: False
    why_not: Callable[[Value, Target], str | None] = never
    clash: Callable[[Config, Target], str | None] = never
    modifies: str | None = None
    load: Callable[[Value], dict[str, Any]] | None = None
    apply: Callable[[Any, Config, str], Effect] | None = None
    verify: Callable[[Any, Config, dict[str, int]], Effect] | None = None
    call: Callable[[Value, Any], dict[str, Any]] | None = None
    script: Callable[[Config, Target], Script] | None = None
    nearest: Mapping[Value, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def default(self) -> Value:
        return self.values[0]

    def accepts(self, value: Value) -> bool:
        """Is this a value of the knob at all, on whatever device? (`True` is not 1 here.)"""
        return any(value == v and type(value) is type(v) for v in self.values) or self.also(value)
