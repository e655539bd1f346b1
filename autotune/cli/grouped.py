"""Groups of options: a command takes an object, with an option for each of its fields. Panels: of a command's help."""

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_args


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


def in_panels(panels: Mapping[str, Sequence[str]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The command, whose help shows these options in panels of their own, below the others: title -> their names."""
    title = {name: title for title, names in panels.items() for name in names}

    def placed(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        unknown = title.keys() - signature.parameters.keys()
        assert not unknown, f"no option of this command: {unknown}"
        every = [p.replace(annotation=_placed(p.annotation, title.get(n))) for n, p in signature.parameters.items()]
        vars(command)["__signature__"] = signature.replace(parameters=every)
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
        return command

    return placed


def _placed(annotation: Any, title: str | None) -> Any:
    if title is None:
        return annotation
    kind, option = get_args(annotation)
    own = copy.copy(option)  # other commands share it
    own.rich_help_panel = title
    return Annotated[kind, own]
