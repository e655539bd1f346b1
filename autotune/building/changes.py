"""Changes: what people do to a tuned pipe (LoRAs, IP-Adapters ...), and which settings would not survive it.

`Knob.undone_by` says so for one value. Settings that replace weights or layers (SURGERY, QUANTIZE) lose a LoRA and
can't be saved, whatever knob they are.
"""

from collections.abc import Mapping

from autotune.config import Config, Value
from autotune.knob import Change, Stage
from autotune.knobs import find_knob

REPLACE_WEIGHTS = (Stage.SURGERY, Stage.QUANTIZE)
WHAT: Mapping[Change, str] = {
    "lora": "a LoRA can't be put on this pipe",
    "ip_adapter": "an IP-Adapter can't be put on this pipe",
    "processors": "the attention processors of this pipe can't be set",
    "save": "this pipe can't be saved",
}
WAY_OUT: Mapping[Change, str] = {
    "lora": (
        "Load the LoRA into an ordinary pipe first, fuse it (pipe.fuse_lora(); pipe.unload_lora_weights()) and call "
        "TunedConfig.load(FILE).apply(pipe), or search with --lora-later, which leaves such settings out."
    ),
    "ip_adapter": "Search with --ip-adapter-later, which leaves such settings out.",
    "processors": "Load the config without that setting.",
    "save": "Keep the exported JSON, from which it is built again, or save the pipeline before it is tuned.",
}


def objection(change: Change, name: str, value: Value) -> str | None:
    """Why this value of a knob does not survive the change, as a clause; None: it does."""
    knob = find_knob(name)
    if value == knob.default:
        return None
    if change == "lora" and knob.stage in REPLACE_WEIGHTS:
        return knob.undone_by(value, change) or "would lose the LoRA"
    if change == "save" and knob.stage in REPLACE_WEIGHTS:
        return knob.undone_by(value, change) or "has replaced weights, which diffusers would not load again"
    return knob.undone_by(value, change)


def refusal(change: Change, config: Config) -> str | None:
    """Why the change is refused on a pipe with this config, and the way out, in sentences; None: it is allowed."""
    for name, value in config.items():
        why = objection(change, name, value)
        if why:
            return f"{WHAT[change]}: {name}={value} {why}. {WAY_OUT[change]}"
    return None
