"""The knobs: one file each in the folders below, and whatever other packages offer in the entry-point group `autotune.knobs`.

A knob's module may import torch and diffusers inside its functions only: the parent lists knobs without them.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import walk_packages

from autotune.config import Config, Value
from autotune.errors import UserError, nearest, shown
from autotune.knob import Knob

LONGEST_VALUE = 1024  # characters
LARGEST_VALUE = 2**31


@cache
def all_knobs() -> Mapping[str, Knob]:
    """Every knob by name, in the order in which they act."""
    found = walk_packages(__path__, f"{__name__}.")
    names = [m.name for m in found if not m.ispkg and m.name.rpartition(".")[2][0] != "_"]
    own = [import_module(name).KNOB for name in names]
    others = [point.load() for point in entry_points(group="autotune.knobs")]
    knobs = sorted([*own, *others], key=lambda knob: (knob.stage, knob.modifies is not None, knob.name))
    return {knob.name: knob for knob in knobs}


def find_knob(name: str) -> Knob:
    """The knob of this name; raises UserError with the nearest name."""
    if name not in all_knobs():
        raise UserError(f"unknown knob {shown(name)}: {nearest(name, all_knobs())}")
    return all_knobs()[name]


def check_value(name: str, value: Value) -> Value:
    """The value, if the knob `name` has it; raises UserError with the nearest one."""
    knob = find_knob(name)
    whole = isinstance(knob.default, float) and isinstance(value, int) and not isinstance(value, bool)
    if whole and knob.accepts(float(value)):
        return float(value)  # somebody wrote 0 for 0.0
    if not _is_sane(value) or not knob.accepts(value):
        raise UserError(f"{name} can't be {shown(value)}: {nearest(str(value), map(str, knob.values))}")
    return value


def _is_sane(value: Value) -> bool:
    """Short enough that no knob has to read more than a path or a count; a file may say anything."""
    return len(value) <= LONGEST_VALUE if isinstance(value, str) else abs(value) <= LARGEST_VALUE


def complete(values: Mapping[str, Value]) -> Config:
    """The config that says what acts: a default for each knob not named, and no modifier of a knob at its default.

    Raises UserError for a knob or a value that we don't know.
    """
    checked = {name: check_value(name, value) for name, value in values.items()}
    full = {name: checked.get(name, knob.default) for name, knob in all_knobs().items()}
    return Config({n: v for n, v in full.items() if is_active(all_knobs()[n], full)})


def different(config: Config, other: Config) -> dict[str, Value]:
    """The knobs in which two configs differ, with the values of the first."""
    mine, theirs = complete(config), complete(other)
    return {name: value for name, value in mine.items() if theirs.get(name, value) != value}


def is_active(knob: Knob, values: Mapping[str, Value]) -> bool:
    return knob.modifies is None or values[knob.modifies] != find_knob(knob.modifies).default
