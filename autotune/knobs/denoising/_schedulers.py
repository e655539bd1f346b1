"""Which scheduler a config ends up with. Not a knob: three knobs ask it."""

from autotune.config import Config
from autotune.target import Target

CLASSES = {
    "dpm++_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
}


def own_scheduler(target: Target) -> str:
    """The class that the pipeline has before any knob."""
    return target.pipeline.scheduler or target.pipeline.known.scheduler_class


def scheduler_of(config: Config, target: Target) -> str:
    """The class that steps with this config."""
    return CLASSES.get(str(config["scheduler"]), own_scheduler(target))
