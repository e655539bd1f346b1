"""fit(): replace the values of a config that are not available on this machine, such as on another GPU.

For each knob the replacement is the nearest value that every rule of the knobs allows on the target: first the values
that the knob lists (`Knob.nearest`), last its default. The same rules exclude such values from a search. Speed plays no
part: the replaced config was never measured, so each replacement is reported with its reason.
"""

from collections.abc import Iterator

from autotune.config import Config, Value
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel
from autotune.knob import Knob
from autotune.knobs import all_knobs, complete
from autotune.target import Target


class Replacement(FrozenModel):
    """A value that is not available here, the value used instead, and the reason."""

    knob: str
    requested: Value
    used: Value
    why: str

    def __str__(self) -> str:
        return f"{self.knob}={self.used} instead of {self.knob}={self.requested}: {self.why}"


def fit(config: Config, target: Target) -> tuple[Config, tuple[Replacement, ...]]:
    """The nearest config that the target supports, and what was replaced. Raises UserError where there is none."""
    values, replacements = dict(config), list[Replacement]()
    for name, knob in all_knobs().items():
        why = knob.why_not(values[name], target) if name in values else None
        if why:
            used = next((v for v in _nearest(knob, values[name]) if not knob.why_not(v, target)), knob.default)
            replacements.append(Replacement(knob=name, requested=values[name], used=used, why=why))
            values[name] = used
    for _ in range(len(all_knobs()) * 3):
        fitted = complete(values)  # drops the modifiers of a knob that is now at its default
        clash = _first_clash(fitted, target)
        if clash is None:
            return fitted, tuple(replacements)
        knob, why = clash
        used = _without_clash(knob, fitted, target)
        replacements.append(Replacement(knob=knob.name, requested=fitted[knob.name], used=used, why=why))
        values = {**fitted, knob.name: used}
    raise UserError(f"no config near this one is available here: {replacements[-1].why}.")


def _first_clash(config: Config, target: Target) -> tuple[Knob, str] | None:
    """The first knob whose value does not go with another knob's, and the reason."""
    for knob in all_knobs().values():
        why = knob.clash(config, target) if knob.name in config else None
        if why:
            return knob, why
    return None


def _without_clash(knob: Knob, config: Config, target: Target) -> Value:
    """The nearest value of the knob that goes with the rest of the config. Raises UserError where there is none."""
    for value in _nearest(knob, config[knob.name]):
        if not knob.why_not(value, target) and not knob.clash(complete({**config, knob.name: value}), target):
            return value
    raise UserError(f"{knob.name}={config[knob.name]} is not available here, and no other value can replace it.")


def _nearest(knob: Knob, value: Value) -> Iterator[Value]:
    """The values to try instead of this one: the nearest first, the default last."""
    yield from (other for other in knob.nearest.get(value, ()) if other != value)
    if value != knob.default:
        yield knob.default
