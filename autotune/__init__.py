"""autotune: finds the best inference settings of a diffusers pipeline on one device.

    import autotune

    study = autotune.search(pipeline="demo", budget=12)
    pipe = autotune.load("best.json")  # in production: an ordinary diffusers pipeline

Each name is imported on first use, so `import autotune` imports neither torch nor Optuna.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["TunedConfig", "UserError", "load", "search"]

_HOMES = {
    "TunedConfig": "autotune.production.tuned_config",
    "load": "autotune.production.chain",
    "search": "autotune.report.searched",
    "UserError": "autotune.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autotune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
