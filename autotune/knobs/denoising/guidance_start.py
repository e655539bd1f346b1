"""guidance_start: classifier-free guidance begins after the first share of the steps.

The first steps settle the layout, where strong guidance costs variety (arXiv 2404.07724). With `guidance_cutoff`, the
steps in between are an interval. A step without guidance runs the denoiser on half of the batch, the one with the
prompt. Its output stands for both halves, so that guidance of any scale changes nothing. A ControlNet still runs on
all of the batch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotune.config import Config, Range, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.knobs._half_batch import around, batch_of, each, second_half
from autotune.pipelines import parts
from autotune.pipelines.running import running_pipe
from autotune.target import Target

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def also(value: Value) -> bool:
    return isinstance(value, float) and 0 < value < 1


def why_not(value: Value, target: Target) -> str | None:
    traits, scale = target.pipeline.known, target.workload.guidance_scale
    if value == 0.0:
        return None
    if traits.guided_above is None:
        return traits.guidance_fault or f"{traits.class_name} never runs its denoiser without the prompt"
    if not traits.guidance_doubles:
        return f"{traits.class_name} is not seen to guide by a batch of double size"
    if scale is None or scale <= traits.guided_above:
        given = "unknown" if scale is None else f"{scale:g}"
        return f"the workload has no guidance that could begin later: its guidance scale is {given}"
    if round(float(value) * target.steps_run) < 1:
        return f"is less than one of the {target.steps_run} steps"
    return None


def clash(config: Config, target: Target) -> str | None:
    start, end = config["guidance_start"], config["guidance_cutoff"]
    if start == 0.0:
        return None
    steps = _steps_run(config, target)
    if float(start) >= float(end) or round(float(start) * steps) >= max(1, round(float(end) * steps)):
        return f"no step would be guided: guidance begins at {start} of {steps} steps, and ends at {end}"
    if round(float(start) * steps) < 1:
        return f"guidance_start={start} is less than one of {steps} steps"
    if config["cache"] != "none":
        return "a cache keeps outputs of the first steps, whose batch is half of that of the guided ones"
    return None


def _steps_run(config: Config, target: Target) -> int:
    """How many steps a call of this config runs."""
    steps = config.get("steps")
    return target.steps_run_of(steps) if isinstance(steps, int) else target.steps_run


class Late:
    """Halves the batch of the denoisers in the first share of the steps of each guided call."""

    def __init__(self, pipe: "DiffusionPipeline", share: float) -> None:
        self.share, self.done, self.timesteps = share, 0, None
        self.unguided = 0
        for denoiser in parts.denoisers(pipe).values():
            around(denoiser, self._around)

    def _around(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            halve = self._is_early()
            self.done += 1
            size = batch_of(args, kwargs)
            if not halve or size % 2 or not size:
                return inner(*args, **kwargs)
            self.unguided += 1
            halved = inner(*second_half(args, size), **second_half(kwargs, size))
            return each(halved, lambda tensor: _twice(tensor, size))

        return called

    def _is_early(self) -> bool:
        """Is this call of a denoiser in a guided call's first steps? A call begins where the timesteps are new."""
        pipe = running_pipe()
        if pipe is None:
            return False
        if pipe.scheduler.timesteps is not self.timesteps:
            self.timesteps, self.done = pipe.scheduler.timesteps, 0
        steps = getattr(pipe, "num_timesteps", None)  # fewer than the scheduler's where a call starts from a picture
        steps = len(pipe.scheduler.timesteps) if steps is None else steps
        return bool(pipe.do_classifier_free_guidance) and self.done < round(self.share * steps)


def _twice(tensor: "torch.Tensor", size: int) -> "torch.Tensor":
    import torch

    return torch.cat([tensor, tensor]) if tensor.dim() and len(tensor) == size // 2 else tensor


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    late = Late(pipe, float(config["guidance_start"]))
    parts.denoiser(pipe).late_guidance = late
    return Effect(count=len(parts.denoisers(pipe)), what="models that run without guidance at first")


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    return Effect(count=parts.denoiser(pipe).late_guidance.unguided, what="first steps without guidance, so far")


def script(config: Config, target: Target) -> Script:
    return Script(why_not="the batch of the first steps is halved by autotune's own wrapper of the denoiser")


KNOB = Knob(
    name="guidance_start",
    stage=Stage.CALL,
    values=(0.0, 0.1, 0.2),
    changes_output=True,
    summary="share of the first steps that are not guided",
    in_graphs=lambda value: value == 0.0,  # above 0, the batch of half size has a graph, too
    ranges=lambda target: (Range(low=0.05, high=0.4),),
    also=also,
    why_not=why_not,
    clash=clash,
    apply=apply,
    verify=verify,
    reads_kernels=False,
    script=script,
)
