"""scheduler_sync: whether the scheduler waits for the GPU at each step.

DDIM, PNDM, DDPM and LCM look up each timestep in a table on the host, but the timestep is on the device. So at every
step the host waits until the GPU has finished, and launches nothing meanwhile.

"avoided" gives them the same timesteps from a copy on the host, which is made once per call of the pipeline. The offset
of the device's timestep in its storage tells which one it is, so nothing is read from the device. Schedulers that count
their steps read at most the first timestep of a picture. Other waits remain: noise that is drawn on the host,
inpainting with a UNet that was not trained for it, UniPC's system of equations.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from autotune.config import Config, Value
from autotune.knob import Effect, Knob, Script, Stage
from autotune.knobs.denoising._schedulers import scheduler_of
from autotune.target import Target

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

LOOK_UP = ("DDIMScheduler", "PNDMScheduler", "DDPMScheduler", "LCMScheduler", "TCDScheduler")  # the others count steps
READS_FIRST_TIMESTEP = (  # pipelines that don't tell the scheduler where to begin counting
    "StableDiffusionPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionUpscalePipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusion3Pipeline",
)


def why_not(value: Value, target: Target) -> str | None:
    traits = target.pipeline.known
    if value == "avoided" and not target.device.is_gpu:
        return "needs an NVIDIA GPU: there is none to wait for"
    if value == "avoided" and traits.flow_matching and traits.class_name not in READS_FIRST_TIMESTEP:
        return f"{traits.scheduler_class} counts its steps and never waits for the GPU"
    return None


def clash(config: Config, target: Target) -> str | None:
    kind, pipeline = scheduler_of(config, target), target.pipeline.known.class_name
    if config["scheduler_sync"] == "default" or kind in LOOK_UP:
        return None
    if kind == "UniPCMultistepScheduler":
        return f"{kind} solves equations on the GPU at every step, which it waits for anyway"
    if pipeline not in READS_FIRST_TIMESTEP:
        return f"{kind} counts its steps and never waits for the GPU"
    return None


def apply(pipe: "DiffusionPipeline", config: Config, device: str) -> Effect:
    """Make the scheduler an instance of a subclass of the same name. Its `step` attribute can still be replaced."""
    scheduler, kind = pipe.scheduler, cast(Any, type(pipe.scheduler))
    scheduler.waits_avoided = 0
    scheduler.__class__ = _unwaiting(kind)
    return Effect(count=1, what=f"scheduler given its timesteps on the host, {kind.__name__}")


def verify(pipe: "DiffusionPipeline", config: Config, kernels: dict[str, int]) -> Effect:
    return Effect(count=pipe.scheduler.waits_avoided, what="timesteps looked up without waiting for the GPU, so far")


@functools.cache
def _unwaiting(cls: Any) -> Any:
    """A subclass that reads timesteps on the host."""

    @functools.wraps(cls.set_timesteps)  # pipelines inspect the signatures
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        cls.set_timesteps(self, *args, **kwargs)
        self.timesteps_on_device, self.timesteps_on_host = self.timesteps, self.timesteps.to("cpu", copy=True)

    @functools.wraps(cls.step)
    def step(self: Any, model_output: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        with _on_host(self, timestep, looks_up=not hasattr(self, "sigmas")) as on_host:
            return cls.step(self, model_output, on_host, *args, **kwargs)

    def scale_model_input(self: Any, sample: Any, timestep: Any = None, *args: Any, **kwargs: Any) -> Any:
        with _on_host(self, timestep, looks_up=False) as on_host:
            return cls.scale_model_input(self, sample, on_host, *args, **kwargs)

    def scalings(self: Any, timestep: Any) -> Any:
        """LCM computes factors from a timestep. On the host they would be rounded differently."""
        on_device = _same_place(timestep, self.timesteps_on_host, self.timesteps_on_device)
        return cls.get_scalings_for_boundary_condition_discrete(self, timestep if on_device is None else on_device)

    changed = {"set_timesteps": set_timesteps, "step": step, "__module__": cls.__module__}
    if hasattr(cls, "scale_model_input"):
        changed["scale_model_input"] = functools.wraps(cls.scale_model_input)(scale_model_input)
    if hasattr(cls, "get_scalings_for_boundary_condition_discrete"):
        changed["get_scalings_for_boundary_condition_discrete"] = scalings
    return type(cls.__name__, (cls,), changed)


@contextmanager
def _on_host(scheduler: Any, timestep: Any, *, looks_up: bool) -> Iterator[Any]:
    """Replace the scheduler's timesteps by those on the host for a while; gives the copy of `timestep` on the host.

    Nothing is replaced if `timestep` is no view of the scheduler's timesteps; then it is given unchanged.

    looks_up  does the scheduler's method look up every timestep? Otherwise a wait is avoided only where it had to find
              its first step
    """
    on_device, on_host = getattr(scheduler, "timesteps_on_device", None), None
    if on_device is not None and scheduler.timesteps is on_device:
        on_host = _same_place(timestep, on_device, scheduler.timesteps_on_host)
    if on_host is None:
        yield timestep
        return
    uncounted = hasattr(scheduler, "sigmas") and scheduler.step_index is None and scheduler.begin_index is None
    scheduler.timesteps = scheduler.timesteps_on_host
    try:
        yield on_host
    finally:
        scheduler.timesteps = on_device
    scheduler.waits_avoided += looks_up or (uncounted and scheduler.step_index is not None)


def _same_place(timestep: Any, timesteps: "torch.Tensor", others: "torch.Tensor") -> "torch.Tensor | None":
    """The element of `others` at the position of `timestep`, if that is a view of `timesteps`. Reads no value."""
    import torch

    if not isinstance(timestep, torch.Tensor) or timestep.dim() or timestep.dtype != timesteps.dtype:
        return None
    if timestep.untyped_storage().data_ptr() != timesteps.untyped_storage().data_ptr():
        return None
    return others[(timestep.storage_offset() - timesteps.storage_offset()) // timesteps.stride(0)]


def script(config: Config, target: Target) -> Script:
    return Script(why_not="the scheduler that does not wait for the GPU is autotune's own class")


KNOB = Knob(
    name="scheduler_sync",
    stage=Stage.PATCH,
    values=("default", "avoided"),
    changes_output=False,
    summary="whether the scheduler waits for the GPU at each step",
    why_not=why_not,
    clash=clash,
    apply=apply,
    verify=verify,
    reads_kernels=False,
    script=script,
)
