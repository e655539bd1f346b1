"""Reuse what the denoiser computed a step ago: neighbouring steps differ little deep inside it.

"deepcache:N" computes the deep blocks of a UNet at every N-th step only (DeepCache). "first_block:X" computes the first
block of a transformer, and the others only where its output has changed by more than the share X since they were last
computed (diffusers' FirstBlockCache). What is kept belongs to one call of the pipe: it is dropped when the next begins,
also where a call was broken off. A call begins when the scheduler has new timesteps.
"""

from typing import Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.knobs.denoising._calls import Calls
from autotune.knobs.denoising._schedulers import scheduler_of
from autotune.pipelines import parts
from autotune.target import Target

CUDA_GRAPHS = ("reduce-overhead", "max-autotune")


def also(value: Value) -> bool:
    kind, _, number = str(value).partition(":")
    if kind == "deepcache":
        return number.isdecimal() and number.isascii() and int(number) >= 2
    try:
        return kind == "first_block" and 0 < float(number) < 1
    except ValueError:
        return False


def why_not(value: Value, target: Target) -> str | None:
    traits, kind = target.pipeline.known, _kind(value)
    if kind == "deepcache" and traits.denoiser_class != "UNet2DConditionModel":
        return f"DeepCache is for UNets, not for {traits.denoiser_class}"
    if kind == "first_block" and not traits.caches_blocks:
        return f"diffusers has no cache of blocks for {traits.denoiser_class} in {traits.class_name}"
    if kind != "none" and target.workload.steps == 1:
        return "a single step has no step before it"
    return None


def clash(config: Config, target: Target) -> str | None:
    kind = _kind(config["cache"])
    if kind == "none":
        return None
    if kind == "deepcache" and config.get("guidance_cutoff", 1.0) != 1.0:
        return "what DeepCache keeps has the size of a guided batch, so guidance can't end half-way"
    if config["compile"] not in ("off", "regional"):
        return "a cache decides step by step what to compute; of compiled graphs only regional ones go with it"
    if config.get("compile_mode") in CUDA_GRAPHS:
        return "what a cache keeps lies in the memory of CUDA graphs, which the next one overwrites"
    if config["offload"] == "group":
        return "streams of group offload run ahead by an order of layers that skipped blocks break"
    return None


def apply(pipe: Any, config: Config, device: str) -> Effect:
    kind, _, number = str(config["cache"]).partition(":")
    if kind == "deepcache":
        return _deepcache(pipe, interval=int(number))
    return _first_block(pipe, threshold=float(number))


def verify(pipe: Any, config: Config, kernels: dict[str, int]) -> Effect:
    """The last call but one counts, where there are two: the last is the profiled one, of few steps."""
    calls, skipped = (getattr(parts.denoiser(pipe), "cached_calls", None) or [(0, 0)])[0]
    return Effect(count=skipped, what=f"of {calls} calls of the denoiser in a picture reused its blocks")


def _kind(value: Value) -> str:
    return str(value).partition(":")[0]


def _deepcache(pipe: Any, *, interval: int) -> Effect:
    from autotune.knobs.denoising._deepcache import Helper

    helper = Helper(pipe, Calls(pipe))
    helper.set_params(cache_interval=interval, cache_branch_id=0)
    helper.enable()
    return Effect(count=len(helper.function_dict) - 1, what=f"layers of the UNet computed in one step of {interval}")


def _first_block(pipe: Any, *, threshold: float) -> Effect:
    from diffusers import FirstBlockCacheConfig
    from diffusers.hooks.first_block_cache import _FBC_BLOCK_HOOK, _FBC_LEADER_BLOCK_HOOK

    denoiser, calls = parts.denoiser(pipe), Calls(pipe)
    denoiser.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    registries = [m._diffusers_hook for m in denoiser.modules() if hasattr(m, "_diffusers_hook")]
    [leader] = filter(None, (registry.get_hook(_FBC_LEADER_BLOCK_HOOK) for registry in registries))

    def before(*_: Any) -> None:
        if calls.new():
            context = leader.state_manager.context
            leader.state_manager.reset()
            leader.state_manager.set_context(context)

    def after(*_: Any) -> None:
        calls.count(reused=not leader.state_manager.get_state().should_compute)

    denoiser.register_forward_pre_hook(before)
    denoiser.register_forward_hook(after)
    count = sum(registry.get_hook(_FBC_BLOCK_HOOK) is not None for registry in registries)
    return Effect(count=count, what="blocks computed only where the first one has changed")


def script(config: Config, target: Target) -> Script:
    kind, _, number = str(config["cache"]).partition(":")
    if kind == "first_block":
        return Script(
            why_not="diffusers keeps what one call has left for the next, which autotune drops with hooks of its own"
        )
    if scheduler_of(config, target) == "PNDMScheduler" or target.pipeline.known.inputs:
        return Script(why_not="DeepCache counts steps by their timesteps, which autotune mends with a class of its own")
    lines = (
        "deepcache = DeepCacheSDHelper(pipe=pipe)",
        f"deepcache.set_params(cache_interval={number}, cache_branch_id=0)",
        "deepcache.enable()",
    )
    return Script(imports=("from DeepCache import DeepCacheSDHelper",), lines=lines)


KNOB = Knob(
    name="cache",
    stage=Stage.PATCH,
    values=("none", "deepcache:3", "deepcache:5", "first_block:0.05", "first_block:0.12"),
    changes_output=True,
    summary="blocks reused from one step to the next",
    in_graphs=lambda value: str(value).partition(":")[0],  # how often blocks are reused is not compiled
    also=also,
    why_not=why_not,
    clash=clash,
    apply=apply,
    verify=verify,
    script=script,
)
