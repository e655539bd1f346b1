"""_taylorseer: attention is computed at every N-th step, and predicted from its change in between (TaylorSeer).

The first 3 steps are computed. A method of the knob `cache`, from diffusers' TaylorSeerCacheConfig, whose first-order
prediction it takes.
"""

from typing import TYPE_CHECKING

from autotune.config import Config
from autotune.knob import Effect
from autotune.knobs.caching import _hooked
from autotune.knobs.caching._methods import Method, integer
from autotune.pipelines import parts
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

COMPUTED = 3  # the first steps, which are never predicted


def apply(pipe: "DiffusionPipeline", number: str, *, lite: bool = False) -> Effect:
    from diffusers import TaylorSeerCacheConfig

    config = TaylorSeerCacheConfig(
        cache_interval=int(number),
        disable_cache_before_step=COMPUTED,
        taylor_factors_dtype=parts.denoiser(pipe).dtype,
        use_lite_mode=lite,
    )
    what = "blocks and the last layer" if lite else "attention layers"
    kept = _hooked.switch_on(pipe, config)
    return Effect(count=kept.modules, what=f"{what} computed in one step of {number}, predicted in the others")


def arguments(number: str, config: Config, target: Target, *, lite: bool = False) -> dict[str, str]:
    """Of the configuration, as they stand in a script."""
    name = target.pipeline.known.denoisers[0]
    interval = {"cache_interval": number, "disable_cache_before_step": str(COMPUTED)}
    return interval | {"taylor_factors_dtype": f"pipe.{name}.dtype", "use_lite_mode": str(lite)}


METHOD = Method(
    name="taylorseer",
    numbers=("3", "5"),
    between=(2, 8),
    accepts=integer(2),
    steps=COMPUTED + 1,
    why_not=_hooked.why_not("taylorseer"),
    clash=_hooked.clash,
    apply=apply,
    script=_hooked.script("TaylorSeerCacheConfig", arguments),
    blocks=False,
)
