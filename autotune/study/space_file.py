"""SpaceFile: search_spaces/*.toml, the values to search for each knob, and recipes to try first."""

from pathlib import Path
from typing import Any

from pydantic import Field

from autotune.config import Range, Value, read_range
from autotune.errors import UserError, cause, nearest
from autotune.frozen_model import FrozenModel, read_toml
from autotune.knobs import check_value, find_knob

PACKAGE = Path(__file__).parents[1]
OWN = "range"  # the word for the ranges that a knob itself has
TABLES = {"description", "knobs", "recipes"}
SHIPPED = (PACKAGE / "search_spaces", PACKAGE.parent / "search_spaces")  # in a wheel, in a checkout


class Recipe(FrozenModel):
    """A recommended config: tried before the sampler proposes any."""

    name: str
    values: dict[str, Value]


class SpaceFile(FrozenModel):
    """The values to search, by knob. A knob that is not named in one of the two keeps all values that it offers.

    knobs       knob -> the listed values
    ranges      knob -> the ranges of numbers, which stand among its values in the file
    own_ranges  knobs among whose values stands the word "range": the ranges that the knob itself has for the target
    """

    description: str = ""
    knobs: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    ranges: dict[str, tuple[Range, ...]] = Field(default_factory=dict)
    own_ranges: tuple[str, ...] = ()
    recipes: tuple[Recipe, ...] = ()


def read_space_file(path: Path) -> SpaceFile:
    """Raises UserError if the file can't be read, or names an unknown key, knob or value."""
    where = f"the space file {str(path)!r}"
    try:
        data = read_toml(path)
    except FileNotFoundError:
        raise UserError(f"there is no space file {str(path)!r}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{where} can't be read: {cause(error)}.") from None
    for key in data.keys() - TABLES:
        raise UserError(f"{where}: {key!r} is unknown, {nearest(key, TABLES)}")
    listed = _with_lists(data)
    own = _take_own_ranges(listed.get("knobs", {}))
    try:
        ranges = _ranges(listed.get("knobs", {}))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    file = SpaceFile.parse(listed | {"ranges": ranges, "own_ranges": own}, where)
    empty = next((name for name, values in file.knobs.items() if not values and name not in (*ranges, *own)), None)
    if empty is not None:
        raise UserError(f"{where}: {empty} has an empty list: give its values, or leave the knob out to search all.")
    for name, values in [*file.knobs.items(), *((n, (v,)) for r in file.recipes for n, v in r.values.items())]:
        for value in values:
            try:
                check_value(name, value)
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
    return file


def _with_lists(data: dict[str, Any]) -> dict[str, Any]:
    """Turn a single value such as `dtype = "bf16"`, which fixes the knob, into a list of one."""
    knobs = data.get("knobs", {})
    if not isinstance(knobs, dict):
        return data  # refused where it is parsed
    return {**data, "knobs": {name: v if isinstance(v, list) else [v] for name, v in knobs.items()}}


def _take_own_ranges(knobs: Any) -> list[str]:
    """The knobs with the word "range" among their values, from which it is taken out."""
    lists = knobs.items() if isinstance(knobs, dict) else ()
    own = [name for name, values in lists if OWN in values and not find_knob(name).accepts(OWN)]
    for name in own:
        knobs[name][:] = [value for value in knobs[name] if value != OWN]
    return own


def _ranges(knobs: Any) -> dict[str, tuple[Range, ...]]:
    """Knob -> the ranges among its values, which are taken out of these lists. Raises UserError."""
    ranges: dict[str, tuple[Range, ...]] = {}
    for name, values in knobs.items() if isinstance(knobs, dict) else ():
        fields = {index: found for index, value in enumerate(values) if (found := _fields(name, value)) is not None}
        if fields:
            ranges[name] = tuple(_range(name, found) for found in fields.values())
            values[:] = [value for index, value in enumerate(values) if index not in fields]
    return ranges


def _fields(name: str, value: Any) -> dict[str, Any] | None:
    """The fields of the range that a value in a file stands for; None: it is a plain value."""
    if isinstance(value, dict) and {"low", "high"} & value.keys():
        return value
    if not isinstance(value, str) or find_knob(name).accepts(value):
        return None
    return read_range(value)


def _range(name: str, fields: dict[str, Any]) -> Range:
    """The range of a knob's numbers. Raises UserError where it is none, or where the knob can't have its numbers."""
    found = Range.parse(fields, f"the range of {name}")
    if found.is_whole and not found.prefix and isinstance(find_knob(name).default, float):
        found = Range(low=float(found.low), high=float(found.high), log=found.log)  # 0..1 is read as 0.0..1.0
    for value in found.grid():
        check_value(name, value)
    return found


def shipped_space_file(name: str) -> SpaceFile:
    """The space file of this name that comes with autotune."""
    folder = next(folder for folder in SHIPPED if folder.is_dir())
    return read_space_file(folder / name)
