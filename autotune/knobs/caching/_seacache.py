"""_seacache: blocks are reused while the smoothed latents have changed by less than a threshold (SeaCache).

The change is that of the latents after a filter for what the steps are working on (arXiv 2602.18993). It adds up from
step to step, at most 2 in a row are reused, and the first and the last step are computed. diffusers knows the latents
of Wan's text-to-video models and of Cosmos 3. A method of the knob `cache`, from diffusers' SeaCacheConfig.
"""

from typing import TYPE_CHECKING

from autotune.knob import Effect
from autotune.knobs.caching import _hooked
from autotune.knobs.caching._methods import Method, share

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def apply(pipe: "DiffusionPipeline", number: str) -> Effect:
    from diffusers import SeaCacheConfig

    kept = _hooked.switch_on(pipe, SeaCacheConfig(threshold=float(number)))
    return Effect(count=kept.modules, what="blocks computed only where the latents have changed")


METHOD = Method(
    name="seacache",
    numbers=("0.15", "0.25", "0.4"),
    between=(0.05, 0.6),
    accepts=share,
    steps=3,
    why_not=_hooked.why_not("seacache"),
    clash=_hooked.clash,
    apply=apply,
    script=_hooked.script("SeaCacheConfig", lambda number, *_: {"threshold": number}),
)
