"""_dbcache: the blocks after the first ones are reused where those changed by less than a share (DBCache of cache-dit).

The first blocks are computed at every step: eight of each list, or a quarter of the shortest one. Where what they add
differs by less than the share X from what they added at the last step that was computed in full, what the others added
then is added again. The first steps of a picture are computed in full: eight, or a quarter of them. A method of the
knob `cache`, for transformers of which the package cache-dit has an adapter.
"""

from typing import TYPE_CHECKING, Any

from autotune.config import Config
from autotune.knob import Effect, Script
from autotune.knobs.caching import _hooked
from autotune.knobs.caching._calls import Calls
from autotune.knobs.caching._methods import Method, share
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def why_not(target: Target) -> str | None:
    traits = target.pipeline.known
    why = target.lacks("cache-dit")
    if why is None and "dbcache" not in traits.block_caches:
        why = f"cache-dit has no adapter that works with {traits.denoiser_class} in {traits.class_name}"
    return why


def apply(pipe: "DiffusionPipeline", number: str) -> Effect:
    from autotune.pipelines.rehearsal.dual_blocks import DualBlocks

    kept, calls = DualBlocks(pipe, float(number)), Calls(pipe)

    def before(*_: Any) -> None:
        fresh = calls.is_new()
        kept.begin(calls.of_step, fresh=fresh, steps=1 if calls.timesteps is None else len(calls.timesteps))

    def after(*_: Any) -> None:
        calls.count(reused=kept.skipped)

    for denoiser in parts.denoisers(pipe).values():
        denoiser.register_forward_pre_hook(before)
        denoiser.register_forward_hook(after)
    return Effect(count=kept.blocks, what=f"blocks computed only where the first {kept.first} have changed")


def script(number: str, config: Config, target: Target) -> Script:
    return Script(why_not="how many first blocks cache-dit computes depends on the model; autotune chooses it there")


METHOD = Method(
    name="dbcache",
    numbers=("0.08", "0.12", "0.24"),
    between=(0.03, 0.4),
    accepts=share,
    steps=4,
    why_not=why_not,
    clash=_hooked.clash,
    apply=apply,
    script=script,
)
