"""Knobs: one setting of a pipeline per file. `autotune/knob.py` says what such a file contains.

all_knobs() searches the subfolders of this folder. Every file there defines one `KNOB`, except files whose names start
with "_", which are helpers shared by several knobs. A subfolder is a topic and has no other meaning; a new knob goes
into any of them. Other packages add knobs in the entry-point group `autotune.knobs`.

A knob's file may import torch and diffusers inside functions only, because the parent process lists the knobs without
them.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import walk_packages

from autotune.config import Config, Value
from autotune.errors import UserError, nearest, shown
from autotune.footprint import Footprint
from autotune.knob import Knob
from autotune.target import Target

LONGEST_VALUE = 1024  # characters of a word
LARGEST_VALUE = 2**31  # of a number


@cache
def all_knobs() -> Mapping[str, Knob]:
    """Every knob by name, in the order in which they are applied."""
    modules = walk_packages(__path__, f"{__name__}.")
    names = [m.name for m in modules if not m.ispkg and m.name.rpartition(".")[2][0] != "_"]
    own = [import_module(name).KNOB for name in names]
    others = [point.load() for point in entry_points(group="autotune.knobs")]
    knobs = sorted([*own, *others], key=lambda knob: (knob.stage, knob.modifies is not None, knob.name))
    return {knob.name: knob for knob in knobs}


def find_knob(name: str) -> Knob:
    """The knob of this name. Raises UserError with the nearest name."""
    if name not in all_knobs():
        raise UserError(f"unknown knob {shown(name)}: {nearest(name, all_knobs())}")
    return all_knobs()[name]


def check_value(name: str, value: Value) -> Value:
    """The value, if it is one of the knob `name`. Raises UserError with the nearest value."""
    knob = find_knob(name)
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if is_int and isinstance(knob.default, float) and knob.accepts(float(value)):
        return float(value)  # 0 is read as 0.0
    if not _is_sane(value) or not knob.accepts(value):
        raise UserError(f"{name} can't be {shown(value)}: {nearest(str(value), map(str, knob.values))}")
    return value


def _is_sane(value: Value) -> bool:
    """Is the value no longer than a path, or no larger than a count? Values from files can be anything."""
    return len(value) <= LONGEST_VALUE if isinstance(value, str) else abs(value) <= LARGEST_VALUE


def complete(values: Mapping[str, Value]) -> Config:
    """The complete config: defaults for the knobs that are not given, without the modifiers of a knob at its default.

    Raises UserError for an unknown knob or value.
    """
    checked = {name: check_value(name, value) for name, value in values.items()}
    return active_part({name: checked.get(name, knob.default) for name, knob in all_knobs().items()})


def filled(values: Mapping[str, Value]) -> Config:
    """The config of values that an earlier version wrote: knobs that are newer than it were at their defaults.

    The values are not checked, and those of knobs that are not installed stay.
    """
    knobs = all_knobs()
    whole = {**{name: knob.default for name, knob in knobs.items()}, **values}
    return Config({n: value for n, value in whole.items() if n in values or is_active(knobs[n], whole)})


def active_part(values: Mapping[str, Value]) -> Config:
    """The config of these values, one for each knob and unchecked, without the modifiers of a knob at its default."""
    knobs = all_knobs()
    return Config({name: value for name, value in values.items() if is_active(knobs[name], values)})


def different(config: Config, other: Config) -> dict[str, Value]:
    """The knobs in which `config` differs from `other`, with the values of `config`.

    A knob that is absent from one of the two, because it modifies a knob at its default, is no difference.
    """
    values, others = complete(config), complete(other)
    return {name: value for name, value in values.items() if others.get(name, value) != value}


def footprint(config: Config, target: Target) -> Footprint:
    """The weights of the target's pipeline under this config, predicted before anything is loaded."""
    held = Footprint.of(target.pipeline.known.components)
    for knob in all_knobs().values():
        if knob.weighs is not None and knob.name in config:
            held = knob.weighs(held, config, target)
    return held


def is_active(knob: Knob, values: Mapping[str, Value]) -> bool:
    """Can the knob have an effect beside these values? One that modifies a knob at its default can't."""
    return knob.modifies is None or values[knob.modifies] != find_knob(knob.modifies).default
