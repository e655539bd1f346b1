"""_hooked: what the methods that diffusers itself has share. A helper of the knob `cache`."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from autotune.config import Config
from autotune.knob import Script
from autotune.knobs.caching._calls import Calls
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from autotune.pipelines.rehearsal.caches import BlockCache

Arguments = Callable[[str, Config, Target], Mapping[str, str] | None]


def why_not(name: str) -> Callable[[Target], str | None]:
    """Why diffusers' cache of this name is not available, as the probe tried it in a call without weights."""

    def said(target: Target) -> str | None:
        traits = target.pipeline.known
        if name in traits.block_caches or (name == "first_block" and traits.caches_blocks):
            return None
        return f"diffusers' cache of this kind does not work with {traits.denoiser_class} in {traits.class_name}"

    return said


def clash(config: Config, target: Target) -> str | None:
    if config.get("guidance_cutoff", 1.0) != 1.0:
        return "a cache keeps outputs of a guided batch, so guidance can't end before the last step"
    return None


def switch_on(pipe: "DiffusionPipeline", config: Any, *, calls: Calls | None = None) -> "BlockCache":
    """Switch the cache of this configuration on. What it keeps is dropped when a call of the pipe begins.

    Denoisers that take turns have a cache each; the first one's is returned.
    """
    calls = calls or Calls(pipe)
    first, *_ = [_switch_on(denoiser, config, calls) for denoiser in parts.denoisers(pipe).values()]
    return first


def _switch_on(denoiser: Any, config: Any, calls: Calls) -> "BlockCache":
    from autotune.pipelines.rehearsal.caches import BlockCache

    kept = BlockCache(denoiser, config)
    kept_of: Any = None  # the timesteps of the call of the pipe to which the outputs belong

    def before(*_: Any) -> None:
        nonlocal kept_of
        calls.is_new()
        fresh = calls.timesteps is None or calls.timesteps is not kept_of
        kept_of = calls.timesteps
        kept.begin(calls.of_step, fresh=fresh)

    def after(*_: Any) -> None:
        calls.count(reused=kept.skipped)

    denoiser.register_forward_pre_hook(before)
    denoiser.register_forward_hook(after)
    return kept


def script(config_class: str, arguments: Arguments) -> Callable[[str, Config, Target], Script]:
    """The lines that switch a cache of diffusers on, for pipelines that tell it their calls apart.

    diffusers itself drops what it keeps where a call ends well. Where one is broken off, autotune's own hooks do.

    config_class  of diffusers
    arguments     (number, config, target) -> of the class, by name; None: they are not known
    """

    def written(number: str, config: Config, target: Target) -> Script:
        traits = target.pipeline.known
        if not traits.sets_cache_context:
            return Script(
                why_not=f"{traits.class_name} tells diffusers no calls apart; autotune counts them by its hooks"
            )
        given = arguments(number, config, target)
        if given is None:
            return Script(why_not="what is measured before the first call is not known here")
        made = f"{config_class}({', '.join(f'{name}={value}' for name, value in given.items())})"
        lines = tuple(f"pipe.{name}.enable_cache({made})" for name in traits.denoisers)
        return Script(imports=(f"from diffusers import {config_class}",), lines=lines)

    return written


def no_script(number: str, config: Config, target: Target) -> Script:
    return Script(
        why_not="diffusers keeps one output for all calls of a step; autotune keeps each call's by its own hooks"
    )
