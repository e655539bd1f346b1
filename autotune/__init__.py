"""autotune: finds the best inference settings of a diffusers pipeline on the device in front of it.

    import autotune

    pipe = autotune.load("best.json")              # production: an ordinary diffusers pipeline
    study = autotune.search(pipeline="demo", budget=12)

The names are loaded on first use, so that `import autotune` costs nothing: neither torch nor optuna.
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
