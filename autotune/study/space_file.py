"""SpaceFile: search_spaces/*.toml, the values to search for each knob, and recipes to try first."""

from pathlib import Path
from typing import Any

from pydantic import Field

from autotune.config import Value
from autotune.errors import UserError, nearest
from autotune.frozen_model import FrozenModel, read_toml
from autotune.knobs import check_value

PACKAGE = Path(__file__).parents[1]
SHIPPED = (PACKAGE / "search_spaces", PACKAGE.parent / "search_spaces")  # in a wheel, in a checkout


class Recipe(FrozenModel):
    """A recommended config: tried before the sampler proposes any."""

    name: str
    values: dict[str, Value]


class SpaceFile(FrozenModel):
    """The values to search, by knob. A knob that is not named keeps all values that it offers."""

    description: str = ""
    knobs: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    recipes: tuple[Recipe, ...] = ()


def read_space_file(path: Path) -> SpaceFile:
    """Raises UserError if the file can't be read, or names an unknown key, knob or value."""
    where = f"the space file {str(path)!r}"
    try:
        data = read_toml(path)
    except FileNotFoundError:
        raise UserError(f"there is no space file {str(path)!r}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{where} can't be read: {error}.") from None
    for key in data.keys() - SpaceFile.model_fields.keys():
        raise UserError(f"{where}: {key!r} is unknown, {nearest(key, SpaceFile.model_fields)}")
    file = SpaceFile.parse(_with_lists(data), where)
    empty = next((name for name, values in file.knobs.items() if not values), None)
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


def shipped_space_file(name: str) -> SpaceFile:
    """The space file of this name that comes with autotune."""
    folder = next(folder for folder in SHIPPED if folder.is_dir())
    return read_space_file(folder / name)
