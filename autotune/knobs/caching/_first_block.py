"""_first_block: blocks are reused where the first one changed by less than a share (diffusers' FirstBlockCache).

The first block is computed at every step. Where its output differs by less than the share X from that of the last step
that was computed in full, the others are left out. A method of the knob `cache`.
"""

from typing import TYPE_CHECKING

from autotune.knob import Effect
from autotune.knobs.caching import _hooked
from autotune.knobs.caching._methods import Method, share

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def apply(pipe: "DiffusionPipeline", number: str) -> Effect:
    from diffusers import FirstBlockCacheConfig

    kept = _hooked.switch_on(pipe, FirstBlockCacheConfig(threshold=float(number)))
    return Effect(count=kept.modules - 1, what="blocks computed only where the first one has changed")


METHOD = Method(
    name="first_block",
    numbers=("0.05", "0.08", "0.12", "0.2"),
    between=(0.02, 0.3),
    accepts=share,
    why_not=_hooked.why_not("first_block"),
    apply=apply,
    script=_hooked.script("FirstBlockCacheConfig", lambda number, *_: {"threshold": number}),
)
