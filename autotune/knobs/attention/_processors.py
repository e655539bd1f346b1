"""_processors: attention processors that hold weights, as an IP-Adapter's do. A helper of the knobs about attention."""

from typing import Any

from autotune.errors import UserError
from autotune.target import Target


def weighted_processors(model: Any) -> list[Any]:
    """The attention processors of a model that hold weights of their own. No other processor can take their place."""
    processors = [getattr(module, "processor", None) for module in model.modules()]
    return [processor for processor in processors if list(getattr(processor, "parameters", tuple)())]


def beside_adapter(target: Target) -> str | None:
    """Why a setting that puts other attention processors in place is not available, as a clause; None: it is."""
    taken = target.pipeline.ip_adapter is not None
    return "would replace the attention processors of the IP-Adapter" if taken else None


def would_replace(setting: str) -> UserError:
    """The error of a setting, as "knob=value", that would replace such processors."""
    return UserError(
        f"{setting} would replace the attention processors of the IP-Adapter that is on this pipe: load the config "
        "without this setting, or search with --ip-adapter-later."
    )
