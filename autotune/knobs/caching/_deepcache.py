"""_deepcache: a UNet's deep blocks are computed at every N-th step only (DeepCache). A method of the knob `cache`."""

from typing import TYPE_CHECKING

from autotune.config import Config
from autotune.knob import Effect, Script
from autotune.knobs.caching._calls import Calls
from autotune.knobs.caching._methods import Method, integer
from autotune.knobs.denoising._schedulers import scheduler_of
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(target: Target) -> str | None:
    denoiser = target.pipeline.known.denoiser_class
    if denoiser != "UNet2DConditionModel":
        return f"DeepCache supports UNets, not {denoiser}"
    return target.lacks("DeepCache")


def clash(config: Config, target: Target) -> str | None:
    if config.get("guidance_cutoff", 1.0) != 1.0:
        return "DeepCache keeps outputs of a guided batch, so guidance can't end before the last step"
    return None


def apply(pipe: "DiffusionPipeline", number: str) -> Effect:
    from autotune.knobs.caching._deepcache_helper import Helper

    helper = Helper(pipe, Calls(pipe))
    helper.set_params(cache_interval=int(number), cache_branch_id=0)
    helper.enable()
    return Effect(count=helper.layers, what=f"layers of the UNet computed in one step of {number}")


def script(number: str, config: Config, target: Target) -> Script:
    if scheduler_of(config, target) == "PNDMScheduler" or target.pipeline.known.inputs:
        return Script(why_not="DeepCache counts steps by timesteps, which is wrong here; autotune has its own class")
    if target.pipeline.known.names_sample:
        return Script(why_not="DeepCache reads the UNet's arguments by place; autotune has its own class")
    lines = (
        "deepcache = DeepCacheSDHelper(pipe=pipe)",
        f"deepcache.set_params(cache_interval={number}, cache_branch_id=0)",
        "deepcache.enable()",
    )
    return Script(imports=("from DeepCache import DeepCacheSDHelper",), lines=lines)


METHOD = Method(
    name="deepcache",
    numbers=("3", "5"),
    between=(2, 8),
    accepts=integer(2),
    why_not=why_not,
    clash=clash,
    apply=apply,
    script=script,
)
