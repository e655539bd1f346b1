"""Shapes: is one graph made for all sizes, and what that needs of torch."""

from autotune.config import Config

DUCK_SHAPES = "torch.fx.experimental._config.use_duck_shape = False"  # in a script


def is_dynamic(config: Config) -> bool:
    return config.get("compile_shapes", "static") == "dynamic"


def allow_unequal_sizes() -> None:
    """Sizes that are equal when a graph is made may differ later."""
    from torch.fx.experimental import _config

    _config.use_duck_shape = False
