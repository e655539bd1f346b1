"""Schedulers: which others can take the steps of a pipe, tried with what its call hands to its own scheduler."""

import copy
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autotune.pipelines import parts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

STEPS = 28  # of a call, where the pipe gives no noise levels
# Schedulers that autotune offers in place of a pipe's own: word -> class.
CLASSES = {
    "dpm++_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
}


def configuration(pipe: "DiffusionPipeline") -> dict[str, Any]:
    """The configuration of the pipe's own scheduler, adapted for one of CLASSES."""
    own = dict(pipe.scheduler.config)
    if _flows(pipe.scheduler):
        return own | {
            "use_flow_sigmas": True,
            "prediction_type": "flow_prediction",
            "flow_shift": own.get("shift", 1.0),
        }
    if parts.vae(pipe) is not None:
        return {"clip_sample": False, **own}  # DDIM clips by default, but latents have no fixed range
    # A learned variance is for DDPM's noise. With "fixed_small" the pipeline drops it from the model's output.
    return own | ({"variance_type": "fixed_small"} if "learned" in str(own.get("variance_type")) else {})


def _flows(scheduler: Any) -> bool:
    """Does the scheduler follow straight paths from noise to picture?"""
    return "FlowMatch" in type(scheduler).__name__ or bool(scheduler.config.get("use_flow_sigmas"))


def faults(
    pipe: "DiffusionPipeline",
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]],
    tried: Callable[[Any], str | None] = lambda scheduler: None,
) -> dict[str, str]:
    """Word of CLASSES -> why that scheduler can't take the steps of this pipe, as a clause.

    calls  the arguments that a call of the pipe gave to set_timesteps of its own scheduler
    tried  makes a call with another scheduler; returns why it failed, or None
    """
    found: dict[str, str] = {}
    for word, name in CLASSES.items():
        fault = _fault(pipe, name, calls) if name != type(pipe.scheduler).__name__ else None
        if fault is None and name != type(pipe.scheduler).__name__:
            said = tried(_replacement(pipe, name))
            fault = said and f"{type(pipe).__name__} fails with {name} ({said})"
        if fault:
            found[word] = fault
    return found


def _replacement(pipe: "DiffusionPipeline", name: str) -> Any:
    import diffusers

    return getattr(diffusers, name).from_config(configuration(pipe))


def _fault(pipe: "DiffusionPipeline", name: str, calls: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> str | None:
    import diffusers

    cls = getattr(diffusers, name)
    flows = _flows(pipe.scheduler)
    if flows and "use_flow_sigmas" not in inspect.signature(cls.__init__).parameters:
        return f"{name} does not support flow-matching models"
    own = copy.deepcopy(pipe.scheduler)
    try:
        new = _replacement(pipe, name)
    except Exception as error:  # any scheduler of the library: what it says is the reason
        return f"{name} does not accept the configuration of {type(own).__name__} ({_said(error)})"
    for args, kwargs in calls:
        strange = sorted(set(kwargs) - set(inspect.signature(new.set_timesteps).parameters))
        if strange:
            return f"{name} does not accept the {' and '.join(strange)} that {type(pipe).__name__} gives it"
        own_levels = {"sigmas", "timesteps"} & kwargs.keys()  # given by the pipe, so that they should be the same
        given = dict(kwargs) | ({"device": "cpu"} if "device" in kwargs else {})
        if not own_levels:
            args, given = ((STEPS, *args[1:]), given) if args else ((), given | {"num_inference_steps": STEPS})
        try:
            own.set_timesteps(*args, **copy.deepcopy(given))
            new.set_timesteps(*args, **copy.deepcopy(given))
        except Exception as error:
            names = " and ".join(key for key in kwargs if key not in ("device", "num_inference_steps")) or "steps"
            return f"{name} does not accept the {names} that {type(pipe).__name__} gives it ({_said(error)})"
        if flows and _distance(own, new) > (0.02 if own_levels else 0.1):
            return f"{name} would take other noise levels than {type(own).__name__} with this configuration"
    return None


def _distance(own: Any, new: Any) -> float:
    """The mean difference of the noise levels, which are from 0 to 1. The last ones are spaced in ways of their own."""
    if len(own.sigmas) != len(new.sigmas):
        return 1.0
    return float((own.sigmas - new.sigmas).abs().mean())


def _said(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), "").rstrip(".")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
