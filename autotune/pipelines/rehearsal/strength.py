"""Strength: how many of a call's steps run where it starts from a picture, asked of the pipe's own get_timesteps.

A call with `strength` leaves out the first steps. Some pipelines round steps x strength down, others up.
"""

import copy
import inspect
from typing import TYPE_CHECKING, Any, Literal

from autotune.pipelines import call

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

STEPS, STRENGTH = 10, 0.55  # 5.5 steps
ROUNDED: dict[Any, Literal["down", "up"]] = {5: "down", 6: "up"}


def strength_of(pipe: "DiffusionPipeline") -> dict[str, Any]:
    """The traits `default_strength` and `strength_rounds` of a pipe whose call takes a strength; else empty."""
    default = call.default(pipe, "strength")
    if not isinstance(default, int | float):
        return {}
    return {"default_strength": float(default), "strength_rounds": _rounding(pipe)}


def _rounding(pipe: Any) -> Literal["down", "up"] | None:
    """How the pipe rounds steps x strength; None: it can't be asked."""
    if not hasattr(pipe, "get_timesteps"):
        return None
    known = {"num_inference_steps": STEPS, "strength": STRENGTH, "device": "cpu"}
    own = pipe.scheduler
    pipe.scheduler = copy.deepcopy(own)  # some pipelines set where it begins
    try:
        given = {name: known[name] for name in inspect.signature(pipe.get_timesteps).parameters if name in known}
        steps = pipe.get_timesteps(**given)[1]
    except Exception:  # of any pipeline: one that can't be asked so is not known
        return None
    finally:
        pipe.scheduler = own
    return ROUNDED.get(steps)
