"""_schedulers: the scheduler class of a config. A helper of the knobs about schedulers."""

from autotune.config import Config
from autotune.pipelines.rehearsal.schedulers import CLASSES
from autotune.target import Target

__all__ = ["CLASSES", "own_scheduler", "scheduler_of"]


def own_scheduler(target: Target) -> str:
    """The class name of the pipeline's own scheduler."""
    return target.pipeline.scheduler or target.pipeline.known.scheduler_class


def scheduler_of(config: Config, target: Target) -> str:
    """The class name of the scheduler that this config uses."""
    return CLASSES.get(str(config["scheduler"]), own_scheduler(target))
