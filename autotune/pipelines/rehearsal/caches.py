"""Caches: caches of a denoiser's blocks: diffusers' own switched on and watched, all tried in calls without weights."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from autotune.pipelines import parts
from autotune.pipelines.rehearsal.dual_blocks import ALWAYS, DualBlocks, is_installed

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

APPLY = {  # class of a configuration -> the function of diffusers.hooks, for denoisers without `enable_cache`
    "FirstBlockCacheConfig": "apply_first_block_cache",
    "TaylorSeerCacheConfig": "apply_taylorseer_cache",
    "MagCacheConfig": "apply_mag_cache",
    "PyramidAttentionBroadcastConfig": "apply_pyramid_attention_broadcast",
    "SeaCacheConfig": "apply_sea_cache",
    "FasterCacheConfig": "apply_faster_cache",
}


class BlockCache:
    """A cache of diffusers, switched on in a denoiser, with what it keeps apart for each call of a step.

    diffusers keeps outputs apart by the context that a pipeline sets (`cache_context`). Few pipelines set one, and
    pyramid attention broadcast reads none. Here the calls of a step are told apart by their number.

    modules  the blocks or layers whose outputs are kept
    """

    def __init__(self, denoiser: Any, config: Any) -> None:
        from diffusers.hooks.hooks import StateManager

        self.denoiser = denoiser
        self.hooks = _enable(denoiser, config)
        of_parts = [h for registry in _registries(denoiser, root=False) for h in registry.hooks.values()]
        self.watched = [h for h in self.hooks if hasattr(h, "new_forward") and any(h is other for other in of_parts)]
        held = {id(v): v for h in self.hooks for v in vars(h).values() if isinstance(v, StateManager)}
        self.managers = list(held.values())
        if not self.watched:
            raise ValueError(f"{type(config).__name__} reaches no block of {type(denoiser).__name__}")
        self.own_context = False
        self._computed = 0
        self._wrapped = False
        self._states: dict[str, dict[int, Any]] = {}  # of hooks that know no context

    @property
    def modules(self) -> int:
        return len(self.watched)

    def begin(self, of_step: str, *, fresh: bool) -> None:
        """Called before each call of the denoiser.

        of_step  which of the step's calls it is
        fresh    it is the first of a picture: what is kept of another one is dropped
        """
        self._watch()
        if fresh:
            self.forget()
        self._computed = 0
        self._set_context(of_step)
        states = self._states.setdefault(of_step, {})
        for hook in self.hooks:
            if "state" in vars(hook):
                hook.state = states.setdefault(id(hook), type(hook.state)())

    def forget(self) -> None:
        """Drop all outputs that are kept."""
        self._states.clear()
        for manager in self.managers:
            context = manager._context
            manager.reset()
            manager.set_context(context)

    @property
    def skipped(self) -> int:
        """The modules that were not computed since `begin`."""
        return self.modules - self._computed

    def _watch(self) -> None:
        """Count what the hooks compute. Done at the first call, because until then modules may still be compiled."""
        for hook in () if self._wrapped else self.watched:
            hook.fn_ref.original_forward = self._counted(hook.fn_ref.original_forward)
        self._wrapped = True

    def _counted(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._computed += 1
            return forward(*args, **kwargs)

        return counted

    def _set_context(self, of_step: str) -> None:
        from diffusers.hooks.hooks import CacheContext

        for manager in self.managers:
            if manager._context is None or self.own_context:
                self.own_context = True
                manager.set_context(CacheContext(of_step))


def _enable(denoiser: Any, config: Any) -> list[Any]:
    """Switch the cache on; the hooks that it made."""
    from diffusers import hooks

    before = {id(hook) for registry in _registries(denoiser) for hook in registry.hooks.values()}
    if hasattr(denoiser, "enable_cache"):
        denoiser.enable_cache(config)
    else:
        getattr(hooks, APPLY[type(config).__name__])(denoiser, config)
        hooks.HookRegistry.check_if_exists_or_initialize(denoiser).invalidate_child_registries_cache()
    return [h for registry in _registries(denoiser) for h in registry.hooks.values() if id(h) not in before]


def _registries(denoiser: Any, *, root: bool = True) -> list[Any]:
    modules = [module for module in denoiser.modules() if root or module is not denoiser]
    return [module._diffusers_hook for module in modules if hasattr(module, "_diffusers_hook")]


def sets_context(pipe: "DiffusionPipeline") -> bool:
    """Does the pipe's call tell diffusers' caches apart which of a step's calls of a denoiser it makes?"""
    return "cache_context" in inspect.getsource(type(pipe).__call__)


def tells_calls_apart(pipe: "DiffusionPipeline") -> bool:
    """Does the pipe set contexts, or has it a scheduler whose steps are counted, by itself or here?"""
    if sets_context(pipe):
        return True
    scheduler = getattr(pipe, "scheduler", None)
    return hasattr(scheduler, "step") and hasattr(scheduler, "set_timesteps")


def count_steps(pipe: "DiffusionPipeline") -> None:
    """Make the scheduler count its steps, where it does not by itself: DDIM, PNDM, LCM. Its class keeps its name."""
    scheduler: Any = getattr(pipe, "scheduler", None)
    if tells_calls_apart(pipe) and scheduler is not None and step_of(scheduler, default=False) is False:
        scheduler.__class__ = _counting(cast(Any, type(scheduler)))
        scheduler.steps_made = 0


def step_of(scheduler: Any, default: Any = None) -> Any:
    """The step of a call that the scheduler is at, from 0; schedulers that count by themselves begin with None."""
    return getattr(scheduler, "step_index", getattr(scheduler, "steps_made", default))


@functools.cache
def _counting(cls: Any) -> Any:
    @functools.wraps(cls.set_timesteps)  # pipelines inspect the signatures
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        cls.set_timesteps(self, *args, **kwargs)
        self.steps_made = 0

    @functools.wraps(cls.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = cls.step(self, *args, **kwargs)
        self.steps_made += 1
        return made

    return type(cls.__name__, (cls,), {"set_timesteps": set_timesteps, "step": step, "__module__": cls.__module__})


def _without_values(look: Callable[..., Any], *args: Any) -> Any:
    """What a function finds, as empty tensors: the latents of a rehearsed call have values in its first step alone."""
    import torch

    found = look(*args)
    with torch._C.DisableTorchFunction():
        return found and [tensor.to("meta") for tensor in found]


class HalfWay:
    """The timestep of a rehearsed call, of 1000: the beginning in its first step, then the middle."""

    first = True

    def __call__(self) -> float:
        return 1000.0 if self.first else 500.0


def eager_configs() -> Mapping[str, Callable[[], Any]]:
    """Method -> a configuration with which the second call of a denoiser reuses all that it can."""
    import diffusers

    half_way = {"current_timestep_callback": HalfWay()}
    skip = {"spatial_attention_block_skip_range": 2, "cross_attention_block_skip_range": 2}
    faster = {"attention_weight_callback": lambda _: 0.5, "is_guidance_distilled": True}
    taylor = {"disable_cache_before_step": 1, "cache_interval": 4}
    mag = {"mag_ratios": [1.0] * 4, "threshold": 0.9, "retention_ratio": 0.0, "num_inference_steps": 4}
    return {
        "first_block": lambda: diffusers.FirstBlockCacheConfig(threshold=2.0),  # a value that is not known reads as 1
        "taylorseer": lambda: diffusers.TaylorSeerCacheConfig(**taylor),
        "taylorseer_lite": lambda: diffusers.TaylorSeerCacheConfig(**taylor, use_lite_mode=True),
        "magcache": lambda: diffusers.MagCacheConfig(**mag),
        "seacache": lambda: diffusers.SeaCacheConfig(threshold=1e6, retention_steps=0, cache_end_steps=0),
        "fastercache": lambda: diffusers.FasterCacheConfig(**half_way, **faster),
        "pab": lambda: diffusers.PyramidAttentionBroadcastConfig(**half_way, **skip),
    }


class Rehearsed(BlockCache):
    """A cache of diffusers in a rehearsed call, whose latents have values in the first step alone."""

    def __init__(self, denoiser: Any, config: Any) -> None:
        super().__init__(denoiser, config)
        self.clock = getattr(config, "current_timestep_callback", None)
        for hook in self.hooks:
            if getattr(hook, "raw_vision_callback", None) is not None:  # SeaCache compares latents of like devices
                hook.raw_vision_callback = functools.partial(_without_values, hook.raw_vision_callback)

    def begin(self, of_step: str, *, fresh: bool) -> None:
        if isinstance(self.clock, HalfWay) and of_step == "0":
            self.clock.first = fresh
        super().begin(of_step, fresh=fresh)


def rehearsable() -> Mapping[str, Callable[["DiffusionPipeline"], "Rehearsed | DualBlocks"]]:
    """Method -> switches its cache on in a pipe, so that the second call of a denoiser reuses all that it can."""

    def of_diffusers(config: Callable[[], Any]) -> Callable[["DiffusionPipeline"], Rehearsed]:
        return lambda pipe: Rehearsed(parts.denoiser(pipe), config())

    methods: dict[str, Any] = {name: of_diffusers(config) for name, config in eager_configs().items()}
    return methods | ({"dbcache": lambda pipe: DualBlocks(pipe, ALWAYS)} if is_installed() else {})


def reusing(call: Callable[..., Any], switch_on: Callable[["DiffusionPipeline"], "Rehearsed | DualBlocks"]) -> bool:
    """Does a cache reuse anything in a rehearsed call, and does the call work with it?

    call  (change=) -> Seen, a rehearsed call of at least two steps
    """
    skipped: list[int] = []

    def change(stand_in: Any) -> None:
        cache = switch_on(stand_in)
        count_steps(stand_in)
        steps: list[Any] = []

        def before(*_: Any) -> None:
            step = step_of(stand_in.scheduler)
            steps.append(step)
            of_step = sum(step == other for other in steps) - 1
            cache.begin(str(of_step), fresh=len(steps) == 1)

        parts.denoiser(stand_in).register_forward_pre_hook(before)
        parts.denoiser(stand_in).register_forward_hook(lambda *_: skipped.append(cache.skipped))

    return call(change=change).fault is None and any(skipped)
