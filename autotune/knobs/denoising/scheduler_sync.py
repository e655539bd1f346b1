"""Does the scheduler wait for the GPU? DDIM, PNDM, DDPM and LCM look up each timestep in a table on the host, but the
timestep lies on the device: at every step the host waits until the GPU has caught up, and launches nothing meanwhile.

"avoided": they are given the same timesteps from a copy on the host, made once for each call of the pipeline. Which of
them is meant, the position of the pipeline's own in its storage tells, so nothing is read from the device. Schedulers
that count their steps ask at most once a picture, for the first one. What waits elsewhere stays: noise that is drawn on
the host, inpainting with a UNet that was not made for it, UniPC's little system of equations.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.knobs.denoising._schedulers import scheduler_of
from autotune.target import Target

LOOK_UP = ("DDIMScheduler", "PNDMScheduler", "DDPMScheduler", "LCMScheduler", "TCDScheduler")  # others count steps
ASKED_FOR_THE_FIRST = (  # pipelines that don't say where the counting begins
    "StableDiffusionPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionUpscalePipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusion3Pipeline",
)


def why_not(value: Value, target: Target) -> str | None:
    traits = target.pipeline.known
    if value == "avoided" and target.device.kind != "cuda":
        return "there is no GPU to wait for"
    if value == "avoided" and traits.flow_matching and traits.class_name not in ASKED_FOR_THE_FIRST:
        return f"{traits.scheduler_class} counts its steps and never asks the GPU"
    return None


def clash(config: Config, target: Target) -> str | None:
    kind, pipeline = scheduler_of(config, target), target.pipeline.known.class_name
    if config["scheduler_sync"] == "default" or kind in LOOK_UP:
        return None
    if kind == "UniPCMultistepScheduler":
        return f"{kind} solves equations on the GPU at every step, and waits for them anyway"
    if pipeline not in ASKED_FOR_THE_FIRST:
        return f"{kind} counts its steps and never asks the GPU"
    return None


def apply(pipe: Any, config: Config, device: str) -> Effect:
    """The scheduler becomes an instance of a subclass of the same name. Its `step` attribute stays free for others."""
    scheduler, kind = pipe.scheduler, cast(Any, type(pipe.scheduler))
    scheduler.waits_avoided = 0
    scheduler.__class__ = _unwaiting(kind)
    return Effect(count=1, what=f"scheduler given its timesteps on the host, {kind.__name__}")


def verify(pipe: Any, config: Config, kernels: dict[str, int]) -> Effect:
    return Effect(count=pipe.scheduler.waits_avoided, what="timesteps looked up without asking the GPU, so far")


@functools.cache
def _unwaiting(cls: Any) -> Any:
    """The class, but what it reads of the timesteps it reads on the host."""

    @functools.wraps(cls.set_timesteps)  # pipelines look into the signatures
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        cls.set_timesteps(self, *args, **kwargs)
        self.timesteps_on_device, self.timesteps_on_host = self.timesteps, self.timesteps.to("cpu", copy=True)

    @functools.wraps(cls.step)
    def step(self: Any, model_output: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        with _on_host(self, timestep, looks_up=not hasattr(self, "sigmas")) as here:
            return cls.step(self, model_output, here, *args, **kwargs)

    def scale_model_input(self: Any, sample: Any, timestep: Any = None, *args: Any, **kwargs: Any) -> Any:
        with _on_host(self, timestep, looks_up=False) as here:
            return cls.scale_model_input(self, sample, here, *args, **kwargs)

    def scalings(self: Any, timestep: Any) -> Any:
        """LCM makes factors of a timestep: on the device as before, or they would be rounded otherwise."""
        there = _same_place(timestep, self.timesteps_on_host, self.timesteps_on_device)
        return cls.get_scalings_for_boundary_condition_discrete(self, timestep if there is None else there)

    changed = {"set_timesteps": set_timesteps, "step": step, "__module__": cls.__module__}
    if hasattr(cls, "scale_model_input"):
        changed["scale_model_input"] = functools.wraps(cls.scale_model_input)(scale_model_input)
    if hasattr(cls, "get_scalings_for_boundary_condition_discrete"):
        changed["get_scalings_for_boundary_condition_discrete"] = scalings
    return type(cls.__name__, (cls,), changed)


@contextmanager
def _on_host(scheduler: Any, timestep: Any, *, looks_up: bool) -> Iterator[Any]:
    """The scheduler's timesteps are meanwhile those on the host; gives the one that `timestep` stands for.

    A timestep that is no view of the scheduler's own is left as it is, and so are the scheduler's.
    """
    known, here = getattr(scheduler, "timesteps_on_device", None), None
    if known is not None and scheduler.timesteps is known:
        here = _same_place(timestep, known, scheduler.timesteps_on_host)
    if here is None:
        yield timestep
        return
    lost = hasattr(scheduler, "sigmas") and scheduler.step_index is None and scheduler.begin_index is None
    scheduler.timesteps = scheduler.timesteps_on_host
    try:
        yield here
    finally:
        scheduler.timesteps = known
    scheduler.waits_avoided += looks_up or (lost and scheduler.step_index is not None)


def _same_place(timestep: Any, these: Any, those: Any) -> Any:
    """If `timestep` is a view of one of these timesteps, the same of those; otherwise None. Reads no value."""
    import torch

    if not isinstance(timestep, torch.Tensor) or timestep.dim() or timestep.dtype != these.dtype:
        return None
    if timestep.untyped_storage().data_ptr() != these.untyped_storage().data_ptr():
        return None
    return those[(timestep.storage_offset() - these.storage_offset()) // these.stride(0)]


def script(config: Config, target: Target) -> Script:
    return Script(why_not="the scheduler that does not wait for the GPU is a class of autotune's own")


KNOB = Knob(
    name="scheduler_sync",
    stage=Stage.PATCH,
    values=("default", "avoided"),
    changes_output=False,
    summary="does the scheduler wait for the GPU",
    why_not=why_not,
    clash=clash,
    apply=apply,
    verify=verify,
    script=script,
)
