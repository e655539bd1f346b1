"""LadderRecipe: the rungs of a ladder, each of which adds settings to another; read from a TOML file.

Recipes ship in search_spaces/ladders; users can write their own. A rung can list several values of a knob: place()
uses the first ones that are available on the target.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from autotune.config import Config, Value
from autotune.errors import UserError, cause, nearest
from autotune.frozen_model import FrozenModel, read_toml
from autotune.knobs import check_value
from autotune.research import published
from autotune.study.space import SearchSpace
from autotune.study.space_file import SHIPPED


class Rung(FrozenModel):
    """Settings that are added to those of another rung. Of several values the first available one is used.

    The first rung may set nothing: it is then the pipeline as loaded.
    """

    name: str
    set: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    on: str | None = None  # the name of the rung that it builds on; None: the one before
    published: str | None = None  # the name of the config in the published table
    note: str | None = None  # how the rung differs from the published config


class LadderRecipe(FrozenModel):
    """The rungs in the order of measurement; all are compared with the first one."""

    name: str
    description: str = ""
    published: str | None = None  # the table of research/published/results.csv that the recipe follows
    rungs: tuple[Rung, ...] = Field(min_length=1)

    def number(self, name: str) -> int:
        return [rung.name for rung in self.rungs].index(name)

    def below(self, number: int) -> int:
        """The number of the rung that this one (not the first) builds on."""
        on = self.rungs[number].on
        return number - 1 if on is None else self.number(on)


@dataclass(frozen=True)
class Placed:
    """A rung on a target: its config, and a sentence for each value that is not the recipe's first one."""

    config: Config
    stands_in: tuple[str, ...]


def place(rung: Rung, base: Config, space: SearchSpace, *, is_first: bool = False) -> Placed | str:
    """The config of a rung on top of `base`, or a sentence why the rung is not available on the target.

    is_first  it may be `base` itself

    Of several values the earliest in the recipe are used: the choice with the smallest sum of positions.
    """
    choices = sorted(itertools.product(*(range(len(values)) for values in rung.set.values())), key=sum)

    def config_of(choice: tuple[int, ...]) -> Config:
        chosen = {name: values[i] for i, (name, values) in zip(choice, rung.set.items(), strict=True)}
        return space.config({**base, **chosen})

    first = config_of(choices[0])
    for choice in choices:
        config = config_of(choice)
        if space.objection(config):
            continue
        if config == base and not is_first:
            break  # the rung changes nothing
        sentences = []
        for k, (name, values) in enumerate(rung.set.items()):
            if choice[k]:
                with_first = config_of((*choice[:k], 0, *choice[k + 1 :]))
                why = space.objection(with_first) or space.objection(first) or ""
                sentences.append(_replaces(name, values[choice[k]], values[0], why))
        return Placed(config, tuple(sentences))
    return space.objection(first) or "its config is that of the rung that it builds on"


def _replaces(name: str, used: Value, first: Value, why: str) -> str:
    reason = why.removeprefix(f"{name}={first}: ").removeprefix(f"{name}={first} ")
    return f"{name}={used} replaces {first}: {reason}"


def read_recipe(word: str) -> LadderRecipe:
    """The recipe that `--recipe` names: a shipped one, or a TOML file. Raises UserError where it can't be used."""
    shipped = {name: _shipped_folder() / f"{name}.toml" for name in recipe_names()}
    if word in shipped:
        return read_recipe_file(shipped[word])
    if word.endswith(".toml"):
        return read_recipe_file(Path(word))
    raise UserError(
        f"unknown recipe {word!r}, neither a shipped one nor a .toml file: {nearest(word, sorted(shipped))}"
    )


def recipe_names() -> list[str]:
    """The names of the shipped recipes."""
    return sorted(path.stem for path in _shipped_folder().glob("*.toml"))


def _shipped_folder() -> Path:
    return next(folder for folder in SHIPPED if folder.is_dir()) / "ladders"


def read_recipe_file(path: Path) -> LadderRecipe:
    """Read a recipe, and check it against the knobs and the published tables. Raises UserError for anything unknown."""
    what = f"the recipe {str(path)!r}"
    try:
        data = read_toml(path)
    except FileNotFoundError:
        raise UserError(f"there is no recipe {str(path)!r}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{what} can't be read: {cause(error)}.") from None
    known = LadderRecipe.model_fields.keys() - {"name"}
    for key in data.keys() - known:
        raise UserError(f"{what}: {key!r} is unknown, {nearest(key, sorted(known))}")
    recipe = LadderRecipe.parse({**_listed(data), "name": path.stem}, what)
    try:
        return recipe.model_copy(update={"rungs": tuple(_checked(recipe, i) for i in range(len(recipe.rungs)))})
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def _listed(data: dict[str, Any]) -> dict[str, Any]:
    """The data with a list of values for each knob: `dtype = "bf16"` means a list of one."""
    rungs = data.get("rungs")
    if not isinstance(rungs, list):
        return data  # parsing refuses it
    return {**data, "rungs": [{**rung, "set": _lists(rung["set"])} if _has_set(rung) else rung for rung in rungs]}


def _has_set(rung: Any) -> bool:
    return isinstance(rung, dict) and isinstance(rung.get("set"), dict)


def _lists(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, list) else [value] for name, value in values.items()}


def _checked(recipe: LadderRecipe, number: int) -> Rung:
    """The rung, with its values converted to those of the knobs. Raises UserError where something is unknown."""
    rung, earlier = recipe.rungs[number], [r.name for r in recipe.rungs[:number]]
    if rung.name in earlier:
        raise UserError(f"two rungs are called {rung.name!r}; give each its own name.")
    if rung.on is not None and rung.on not in earlier:
        known = nearest(rung.on, earlier) if earlier else "it is the first."
        raise UserError(f"rung {rung.name!r} builds on {rung.on!r}, which is not an earlier rung: {known}")
    if number and not rung.set:
        raise UserError(f"rung {rung.name!r} sets nothing; only the first one may.")
    for name, values in rung.set.items():
        if not values:
            raise UserError(f"rung {rung.name!r} sets {name} to an empty list; name a value.")
    _check_published(recipe.published, rung)
    checked = {name: tuple(check_value(name, value) for value in values) for name, values in rung.set.items()}
    return rung.model_copy(update={"set": checked})


def _check_published(table: str | None, rung: Rung) -> None:
    tables = published.tables()
    if table is not None and table not in tables:
        raise UserError(f"there is no published table {table!r}: {nearest(table, tables)}")
    if rung.published is None:
        return
    if table is None:
        raise UserError(
            f'rung {rung.name!r} names a published config, but the recipe names no table (published = "...").'
        )
    if rung.published not in tables[table]:
        raise UserError(f"the table {table!r} has no {rung.published!r}: {nearest(rung.published, tables[table])}")
