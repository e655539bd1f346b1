"""Guard: refuse what would undo a tuned pipe's settings without a word, and notice what was replaced all the same.

A LoRA on fused weights is mostly lost, a quantized pipe that is saved can't be loaded. Such methods of the pipe and of
its denoiser raise UserError instead, by the rules of `building/changes.py`. The denoiser is guarded itself, so that the
rules hold for other pipelines that share it. A part or an attention processor that was replaced is logged once.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autotune.building.changes import objection, refusal
from autotune.config import Config
from autotune.errors import UserError
from autotune.knob import Change
from autotune.pipelines import parts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LOG = logging.getLogger("autotune")
OF_PIPES: Mapping[str, Change] = {
    "load_lora_weights": "lora",
    "load_ip_adapter": "ip_adapter",
    "save_pretrained": "save",
}
OF_DENOISERS: Mapping[str, Change] = {
    "load_lora_adapter": "lora",
    "add_adapter": "lora",
    "set_attn_processor": "processors",
    "save_pretrained": "save",
}


def guard(pipe: "DiffusionPipeline", config: Config) -> None:
    """Make the methods that this config does not survive raise UserError, on the pipe and on its denoiser."""
    _refuse(pipe, OF_PIPES, config, {"__deepcopy__": _no_copy} if config else {})
    for denoiser in parts.denoisers(pipe).values() if parts.denoiser_name(pipe) is not None else ():
        _refuse(getattr(denoiser, "_orig_mod", denoiser), OF_DENOISERS, config, {})


def _refuse(thing: Any, methods: Mapping[str, Change], config: Config, more: dict[str, Any]) -> None:
    """Give the object a subclass of the same name, whose refused methods raise."""
    cls: Any = type(thing)
    refused = {name: refusal(change, config) for name, change in methods.items() if hasattr(cls, name)}
    changed = {**{name: _raising(why) for name, why in refused.items() if why}, **more}
    if changed:
        thing.__class__ = type(cls.__name__, (cls,), {**changed, "__module__": cls.__module__})


def _raising(why: str) -> Any:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise UserError(why)

    return refuse


def _no_copy(self: Any, memo: Any) -> Any:
    raise UserError("a tuned pipe can't be copied, as its settings are installed in its parts: load the config again.")


class Installed:
    """What was in a pipe when it was tuned, to notice what has been replaced since. Each thing is logged once."""

    def __init__(self, pipe: "DiffusionPipeline", config: Config) -> None:
        self.parts = {name: part for name, part in pipe.components.items() if part is not None}
        self.in_processors = [f"{n}={v}" for n, v in config.items() if objection("processors", n, v)]
        self.processors = _processors(pipe) if self.in_processors else {}
        self.told: set[str] = set()

    def check(self, pipe: "DiffusionPipeline") -> None:
        """Log what is not in the pipe any more."""
        for name, part in self.parts.items():
            if getattr(pipe, name, None) is not part:
                self._tell(f"the {name} of this pipe was replaced: the config's settings in it")
        if not self.processors:
            return
        now = _processors(pipe)
        gone = sum(now.get(name) is not processor for name, processor in self.processors.items())
        if gone:
            settings = " and ".join(self.in_processors)
            self._tell(f"{gone} of {len(now)} attention processors of this pipe were replaced: {settings}")

    def _tell(self, what: str) -> None:
        if what not in self.told:
            self.told.add(what)
            LOG.warning("%s and the measured numbers don't hold any more.", what)


def _processors(pipe: "DiffusionPipeline") -> dict[str, Any]:
    """Name -> the attention processor of each of the denoiser's blocks."""
    modules = [(f"{of}.{n}", m) for of, model in parts.denoisers(pipe).items() for n, m in model.named_modules()]
    return {name: m.processor for name, m in modules if getattr(m, "processor", None) is not None}
