"""diffusers: a script that needs torch and diffusers only. Settings of other packages are left at their defaults."""

import ast
import sys

from autotune.building.build import acting
from autotune.knob import Script
from autotune.knobs import all_knobs
from autotune.production.plain_script import script
from autotune.production.programs.handed_on import HandedOn, Settings, comment, notes
from autotune.production.tuned_config import TunedConfig

ITS_OWN = {"torch", "diffusers", "transformers", "accelerate", *sys.stdlib_module_names}


def hand_on(tuned: TunedConfig, name: str) -> HandedOn:
    """Raises UserError where no script can do what the config does, whatever its settings."""
    settings = Settings(tuned, "diffusers")
    for knob, _ in acting(tuned.config):
        if settings.get(knob) is None:
            continue
        of = all_knobs()[knob].modifies
        lost = of is not None and of not in settings.taken
        reason = f"it modifies {of}" if lost else _why_not(all_knobs()[knob].script, tuned)
        if reason is None:
            settings.take(knob)
        else:
            settings.leave(knob, reason)
    settings.require_some()
    defaults = {knob: of.default for knob, of in all_knobs().items() if knob not in settings.taken}
    kept = {knob: value for knob, value in tuned.knobs.items() if knob not in defaults}
    text = script(tuned.model_copy(update={"knobs": kept}), name)
    head = notes("For torch and diffusers alone.", tuned.about, settings.left_out) if settings.left_out else []
    return HandedOn("\n".join([*map(comment, head), text]), settings.left_out)


def _why_not(script_of: object, tuned: TunedConfig) -> str | None:
    """Why the lines of a setting are not for diffusers alone, as a clause; None: they are."""
    if not callable(script_of):
        return None  # it modifies another setting, whose lines have it
    part = script_of(tuned.config, tuned.target)
    assert isinstance(part, Script)
    if part.why_not:
        return part.why_not
    nodes = [node for line in part.imports for node in ast.walk(ast.parse(line))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    foreign = sorted({name.partition(".")[0] for name in names} - ITS_OWN)
    return f"needs {' and '.join(foreign)}, which is no part of diffusers (--as python has it)" if foreign else None
