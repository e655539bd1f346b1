"""_taylorseer_lite: the last layer alone is kept, and predicted between every N-th step (TaylorSeer's lite mode).

It needs little memory and leaves out all blocks. A method of the knob `cache`, from diffusers' TaylorSeerCacheConfig.
"""

from functools import partial

from autotune.knobs.caching import _hooked
from autotune.knobs.caching._methods import Method, integer
from autotune.knobs.caching._taylorseer import COMPUTED, apply, arguments

METHOD = Method(
    name="taylorseer_lite",
    numbers=("3", "5"),
    between=(2, 8),
    accepts=integer(2),
    steps=COMPUTED + 1,
    why_not=_hooked.why_not("taylorseer_lite"),
    clash=_hooked.clash,
    apply=partial(apply, lite=True),
    script=_hooked.script("TaylorSeerCacheConfig", partial(arguments, lite=True)),
)
