"""_magcache: blocks are reused while the error that this is known to make stays below a threshold (MagCache).

How much the blocks' outputs change from step to step hardly depends on the prompt. It is measured once, in a call with
the workload's first prompt and seed that is made before the first call of the pipe. The error of reused steps adds up,
at most 3 in a row, and not in the first fifth of the steps. A method of the knob `cache`, from diffusers'
MagCacheConfig.

The ratios that were found are kept with the trial. Nothing is skipped while they are measured, so they do not depend on
the threshold: later trials that differ in it, or in what does not change the picture, take them over. An exported
config has them, and draws with them.
"""

from typing import TYPE_CHECKING, Any

from autotune.config import Config
from autotune.knob import Effect
from autotune.knobs.caching import _hooked
from autotune.knobs.caching._calls import Calls
from autotune.knobs.caching._methods import Method, share
from autotune.pipelines import inputs, parts
from autotune.pipelines.running import running_pipe, workload_for
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ENDLESS = 10**9  # steps: diffusers drops what it measured after the last one


class Calibrated(Calls):
    """Gives the cache the ratios for as many steps as the call has that begins."""

    def __init__(self, pipe: "DiffusionPipeline", config: Any) -> None:
        super().__init__(pipe)
        self.config, self.ratios = config, [1.0]
        self.kept: Any = None
        self.found: dict[str, list[float]] = {}  # which call of a step -> ratios, while it is calibrated

    def is_new(self) -> bool:
        new = super().is_new()
        if new and not self.config.calibrate:
            self._fit_to(running_pipe())
        return new

    def count(self, *, reused: int) -> None:
        super().count(reused=reused)
        if self.config.calibrate:  # read here, as some pipelines make diffusers drop all when a call ends
            [manager] = self.kept.managers
            self.found = {name: list(state.calibration_ratios) for name, state in manager._state_cache.items()}

    def _fit_to(self, pipe: Any) -> None:
        import torch
        from diffusers.hooks.mag_cache import nearest_interp

        steps = len(self.ratios) if pipe is None else len(pipe.scheduler.timesteps)
        self.config.num_inference_steps = steps
        self.config.mag_ratios = nearest_interp(torch.tensor(self.ratios), steps)


def why_not(target: Target) -> str | None:
    if len(target.pipeline.known.denoisers) > 1:
        return f"is calibrated for one denoiser, and {target.pipeline.known.class_name} has several that take turns"
    return _hooked.why_not("magcache")(target)


def apply(pipe: "DiffusionPipeline", number: str) -> Effect:
    from diffusers import MagCacheConfig

    config = MagCacheConfig(threshold=float(number), mag_ratios=[1.0], num_inference_steps=1)
    calls = Calibrated(pipe, config)
    calls.kept = _hooked.switch_on(pipe, config, calls=calls)
    parts.denoiser(pipe).calibration = calls
    return Effect(count=calls.kept.modules, what="blocks computed only where the error would be too large")


def prepare(pipe: "DiffusionPipeline", known: tuple[float, ...]) -> tuple[float, ...]:
    """The ratios of each step's outputs to those of the step before, measured unless they are known."""
    denoiser = parts.denoiser(pipe)
    calls: Calibrated = denoiser.calibration
    calls.ratios = list(known) or _calibrated(pipe, calls)
    denoiser.cache_note = "; calibrated ratios " + " ".join(f"{ratio:.3g}" for ratio in calls.ratios)
    return tuple(calls.ratios)


def _calibrated(pipe: "DiffusionPipeline", calls: Calibrated) -> list[float]:
    """Measure how the outputs change, in one call in which nothing is skipped."""
    workload = workload_for(pipe)
    assert workload is not None, "a built pipe knows its workload"
    prompts, seeds = next(workload.calls())
    calls.config.calibrate, calls.config.num_inference_steps = True, ENDLESS
    try:
        pipe(**inputs.call_arguments(pipe, workload, prompts, seeds))
    finally:
        calls.config.calibrate = False
    return [sum(ratios) / len(ratios) for ratios in zip(*calls.found.values(), strict=True)]


def arguments(number: str, config: Config, target: Target) -> dict[str, str] | None:
    """Of the configuration, as they stand in a script; None: the ratios were not measured."""
    ratios, steps = target.calibrations.get("cache=magcache"), config.get("steps")
    if not ratios:
        return None
    run = target.with_steps(steps).steps_run if isinstance(steps, int) else target.steps_run
    return {"threshold": number, "num_inference_steps": str(run), "mag_ratios": str(list(ratios))}


METHOD = Method(
    name="magcache",
    numbers=("0.06", "0.12", "0.24"),
    between=(0.03, 0.4),
    accepts=share,
    steps=4,
    why_not=why_not,
    clash=_hooked.clash,
    apply=apply,
    prepare=prepare,
    script=_hooked.script("MagCacheConfig", arguments),
)
