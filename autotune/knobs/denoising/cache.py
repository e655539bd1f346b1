"""cache: the denoiser reuses blocks that it computed a step before, as their outputs differ little between steps.

"deepcache:N" computes the deep blocks of a UNet at every N-th step only (DeepCache). "first_block:X" computes the first
block of a transformer at every step, and the others only if the output of the first one changed by more than the share
X since they were last computed (diffusers' FirstBlockCache).

Cached outputs belong to one call of the pipe. They are dropped when the next call begins, even if the one before was
interrupted. A call begins when the scheduler gets new timesteps.
"""

from typing import TYPE_CHECKING, Any

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.knobs.denoising._calls import Calls
from autotune.knobs.denoising._schedulers import scheduler_of
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

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
        return f"DeepCache supports UNets, not {traits.denoiser_class}"
    if kind == "first_block" and not traits.caches_blocks:
        return f"diffusers has no block cache for {traits.denoiser_class} in {traits.class_name}"
    if kind != "none" and target.workload.steps == 1:
        return "needs at least 2 steps; this workload has 1"
    return target.lacks("DeepCache") if kind == "deepcache" else None


def clash(config: Config, target: Target) -> str | None:
    kind = _kind(config["cache"])
    if kind == "none":
        return None
    if kind == "deepcache" and config.get("guidance_cutoff", 1.0) != 1.0:
        return "DeepCache keeps outputs of a guided batch, so guidance can't end before the last step"
    if config["compile"] not in ("off", "regional"):
        return "a cache decides at each step what to compute, which only regional compilation supports"
    if config.get("compile_mode") in CUDA_GRAPHS:
        return "a cache would keep outputs in the memory of a CUDA graph, which the next graph overwrites"
    if config["offload"] == "group":
        return "group offloading prefetches layers in a fixed order, which a cache breaks by skipping blocks"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    kind, _, number = str(config["cache"]).partition(":")
    if kind == "deepcache":
        return _deepcache(pipe, interval=int(number))
    return _first_block(pipe, threshold=float(number))


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    """The steps that reused blocks, in the last call."""
    calls, reused = (getattr(parts.denoiser(pipe), "cached_calls", None) or [(0, 0)])[-1]
    return Effect(count=reused, what=f"of {calls} calls of the denoiser in a picture reused its blocks")


def _kind(value: Value) -> str:
    """ "none", "deepcache" or "first_block"."""
    return str(value).partition(":")[0]


def _deepcache(pipe: "DiffusionPipeline", *, interval: int) -> Effect:
    from autotune.knobs.denoising._deepcache import Helper

    helper = Helper(pipe, Calls(pipe))
    helper.set_params(cache_interval=interval, cache_branch_id=0)
    helper.enable()
    return Effect(count=len(helper.function_dict) - 1, what=f"layers of the UNet computed in one step of {interval}")


def _first_block(pipe: "DiffusionPipeline", *, threshold: float) -> Effect:
    from diffusers import FirstBlockCacheConfig
    from diffusers.hooks.first_block_cache import _FBC_BLOCK_HOOK, _FBC_LEADER_BLOCK_HOOK

    denoiser, calls = parts.denoiser(pipe), Calls(pipe)
    denoiser.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    registries = [m._diffusers_hook for m in denoiser.modules() if hasattr(m, "_diffusers_hook")]
    [leader] = filter(None, (registry.get_hook(_FBC_LEADER_BLOCK_HOOK) for registry in registries))

    def before(*_: Any) -> None:
        if calls.is_new():
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
        return Script(why_not="diffusers keeps cached outputs for the next call; autotune drops them by its own hooks")
    if scheduler_of(config, target) == "PNDMScheduler" or target.pipeline.known.inputs:
        return Script(why_not="DeepCache counts steps by timesteps, which is wrong here; autotune has its own class")
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
    in_graphs=lambda value: str(value).partition(":")[0],  # the numbers are not part of compiled graphs
    also=also,
    why_not=why_not,
    clash=clash,
    apply=apply,
    verify=verify,
    reads_kernels=False,
    script=script,
)
