"""_pab: attention is computed in one step of N, in the middle of a call (Pyramid Attention Broadcast).

Timesteps from 100 to 800 of 1000 are the middle. A method of the knob `cache`, from diffusers'
PyramidAttentionBroadcastConfig. diffusers keeps one output for all calls of a step; here each has its own.
"""

from typing import TYPE_CHECKING, Any

from autotune.knob import Effect
from autotune.knobs.caching import _hooked
from autotune.knobs.caching._calls import Calls
from autotune.knobs.caching._methods import Method, integer
from autotune.pipelines.running import running_pipe

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Timestep:
    """The current timestep, from 0 to 1000. The scheduler's are read once a call: each read waits for the GPU."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.of: Any = None
        self.values: list[float] = []

    def __call__(self) -> float:
        pipe = running_pipe()
        if pipe is None:
            return 1000.0  # at the beginning, where nothing is reused
        if self.of is not pipe.scheduler.timesteps:
            self.of, self.values = pipe.scheduler.timesteps, pipe.scheduler.timesteps.tolist()
        step = self.calls.step if self.calls.step is not None else getattr(pipe.scheduler, "begin_index", None)
        return self.values[min(step or 0, len(self.values) - 1)]


def apply(pipe: "DiffusionPipeline", number: str) -> Effect:
    from diffusers import PyramidAttentionBroadcastConfig

    calls = Calls(pipe)
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=int(number),
        cross_attention_block_skip_range=int(number),
        current_timestep_callback=Timestep(calls),
    )
    kept = _hooked.switch_on(pipe, config, calls=calls)
    return Effect(count=kept.modules, what=f"attention layers computed in one step of {number} in the middle")


METHOD = Method(
    name="pab",
    numbers=("2", "3"),
    between=(2, 6),
    accepts=integer(2),
    steps=3,
    why_not=_hooked.why_not("pab"),
    clash=_hooked.clash,
    apply=apply,
    script=_hooked.no_script,
    blocks=False,
)
