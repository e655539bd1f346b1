"""Groups of options: a command takes an object, and has an option for each of the object's fields."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command, in which the options of a group take the place of each parameter that has a group as its type."""
    own = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {name: p.annotation for name, p in own.items() if dataclasses.is_dataclass(p.annotation)}
    every: list[inspect.Parameter] = []
    for name, parameter in own.items():
        every += _options_of(groups[name]) if name in groups else [parameter]

    @functools.wraps(command)
    def call(**given: Any) -> None:
        of = {n: {field.name: given.pop(field.name) for field in dataclasses.fields(g)} for n, g in groups.items()}
        command(**{name: groups[name](**values) for name, values in of.items()}, **given)

    vars(call)["__signature__"] = inspect.Signature(every)
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    return call


def _options_of(group: Any) -> list[inspect.Parameter]:
    how = inspect.Parameter.KEYWORD_ONLY
    fields = dataclasses.fields(group)
    return [inspect.Parameter(f.name, how, default=f.default, annotation=f.type) for f in fields]
