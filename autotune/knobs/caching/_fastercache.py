"""_fastercache: attention is predicted in all later steps but one of N, from the last two (FasterCache's attention).

It acts below timestep 681 of 1000, about two thirds of a call. What FasterCache does beside, to predict the half of a
guided batch that has no prompt, is the value `cfg_cache`. diffusers calls it experimental (arXiv 2410.19355). A method
of the knob `cache`, from diffusers' FasterCacheConfig.
"""

from typing import TYPE_CHECKING

from autotune.knob import Effect
from autotune.knobs.caching import _hooked
from autotune.knobs.caching._calls import Calls
from autotune.knobs.caching._methods import Method, integer
from autotune.knobs.caching._pab import Timestep

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Later(Timestep):
    """The current timestep; the first of all in a call's first step: diffusers fails without an earlier output."""

    def __call__(self) -> float:
        return super().__call__() if self.calls.step else 1000.0


def apply(pipe: "DiffusionPipeline", number: str) -> Effect:
    from diffusers import FasterCacheConfig

    calls = Calls(pipe)
    config = FasterCacheConfig(
        spatial_attention_block_skip_range=int(number),
        current_timestep_callback=Later(calls),
        attention_weight_callback=lambda _: 0.5,  # diffusers' own default
        is_guidance_distilled=True,  # the whole batch is computed
    )
    kept = _hooked.switch_on(pipe, config, calls=calls)
    return Effect(count=kept.modules, what=f"attention layers computed in one later step of {number}")


METHOD = Method(
    name="fastercache",
    numbers=("2", "3"),
    between=(2, 6),
    accepts=integer(2),
    steps=3,
    why_not=_hooked.why_not("fastercache"),
    clash=_hooked.clash,
    apply=apply,
    script=_hooked.no_script,
    blocks=False,
)
