"""load(): a pipe as build.load() loads it, copied from one that was loaded before: that takes a third of the time."""

from copy import deepcopy
from typing import Any

from autotune.building import build
from autotune.config import Config
from autotune.knobs import all_knobs
from autotune.pipeline import Pipeline

MOST = 8  # pipes, the newest; each has some MB
_loaded: dict[tuple[str, str], Any] = {}


def load(pipeline: Pipeline, config: Config) -> Any:
    """The pipe on the CPU, without the knobs that act after loading."""
    read = {knob.name: config[knob.name] for knob in all_knobs().values() if knob.load}
    key = pipeline.model_dump_json(), str(read)
    if key not in _loaded:
        _loaded[key] = build.load(pipeline, config, "cpu")
        for oldest in list(_loaded)[:-MOST]:
            del _loaded[oldest]
    return deepcopy(_loaded[key])
