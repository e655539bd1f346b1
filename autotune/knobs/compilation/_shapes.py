"""Shapes: is one graph made for all sizes, and what that needs of torch."""

from typing import TYPE_CHECKING

from autotune.config import Config
from autotune.pipelines.running import remember

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DUCK_SHAPES = "torch.fx.experimental._config.use_duck_shape = False"  # in a script


def is_dynamic(config: Config) -> bool:
    return config.get("compile_shapes", "static") == "dynamic"


def allow_unequal_sizes(pipe: "DiffusionPipeline") -> None:
    """Sizes that are equal when a graph is made may differ later: each call of the pipe tells torch so."""
    remember(pipe, unequal_sizes=True)
