"""HandedOn: a config as a file of another program, and what it can't take. Settings: those still to hand on."""

import json
from typing import NamedTuple

from autotune.building.build import acting
from autotune.config import Value
from autotune.errors import UserError
from autotune.knobs import all_knobs
from autotune.production.tuned_config import TunedConfig

Scalar = str | int | float | bool | None


class HandedOn(NamedTuple):
    """The file's text, and one clause for each thing that is not in it."""

    text: str
    left_out: tuple[str, ...]


class Settings:
    """The settings of a config that differ from their defaults. A program takes some; the others are left out."""

    def __init__(self, tuned: TunedConfig, program: str) -> None:
        knobs = all_knobs()
        self._program = program
        self._open = {name: value for name, value in acting(tuned.config) if value != knobs[name].default}
        self._reasons: dict[str, str] = {}
        self.taken: dict[str, Value] = {}

    def get(self, name: str) -> Value | None:
        """The value of a setting that nothing has taken; None: it has its default."""
        return self._open.get(name)

    def take(self, name: str) -> None:
        """The program takes this setting."""
        self.taken[name] = self._open.pop(name)

    def leave(self, name: str, reason: str) -> None:
        """Say why the program does not take this setting, if it is set."""
        self._reasons[name] = reason

    @property
    def left_out(self) -> tuple[str, ...]:
        usual = f"{self._program} has no such setting, or none that a file can set"
        return tuple(f"{name}={value}: {self._reasons.get(name, usual)}" for name, value in self._open.items())

    def require_some(self) -> None:
        """Raises UserError where the config has settings and the program takes none of them."""
        if self._open and not self.taken:
            raise UserError(f"{self._program} can take none of the settings ({'; '.join(self.left_out)}).")


def yaml_file(comments: list[str], values: dict[str, Scalar | dict[str, Scalar | list[str]]]) -> str:
    """Comments, then the values as YAML: each on a line, as a JSON literal, which YAML reads as well."""
    lines = [comment(text) for text in comments]
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {inner}: {json.dumps(of)}" for inner, of in value.items())]
        else:
            lines.append(f"{name}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def comment(text: str) -> str:
    """The text as one line that is a comment. It may come from a file: it can't end the line."""
    return ("# " + " ".join("".join(c if c.isprintable() else " " for c in text).split())).rstrip()


def notes(handed: str, about: str, left_out: tuple[str, ...]) -> list[str]:
    """What the file's comments say: what it is, the figures, and what is missing."""
    missing = [f"Not in this file, {len(left_out)}:", *(f"- {what}" for what in left_out)] if left_out else []
    return [handed, f"autotune measured of the whole config, in diffusers: {about}", *missing]
