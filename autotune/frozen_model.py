"""FrozenModel: the base of every noun. Immutable, read from JSON, and clear about what is wrong with a file.

Here is also how JSON and text files are read and written: whole or not at all.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TextIO

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticUndefined

from autotune.errors import LONGEST_SHOWN, UserError


class FrozenModel(BaseModel):
    """Frozen, and strict about unknown fields: a typo in a file is an error, never ignored."""

    # Built when it is first used: production loads a config without most of the models that exist.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def parse(cls, data: Any, where: str) -> Self:
        """The model in `data` (decoded JSON or TOML); raises UserError naming the first bad field of `where`."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the whole"
            said = first["msg"].lower()  # may quote what was given
            raise UserError(f"{where} can't be used: {field[:LONGEST_SHOWN]}: {said[:200]}.") from None

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def renamed(name: str, earlier: str, *, default: Any = PydanticUndefined) -> Any:
    """A field of this name, which files of earlier versions call otherwise: they still load."""
    return Field(default=default, validation_alias=AliasChoices(name, earlier))


def write_json(path: Path, data: Any) -> None:
    """Write whole or not at all: to a temporary name, flushed to the disk, then renamed. Raises OSError."""
    _write_whole(path, lambda file: json.dump(data, file, indent=2, allow_nan=False))


def write_text(path: Path, text: str) -> None:
    """The same for a text. Raises OSError."""
    _write_whole(path, lambda file: file.write(text.removesuffix("\n")))


def _write_whole(path: Path, write: Callable[[TextIO], Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            write(file)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path, what: str, *, most_bytes: int | None = None) -> Any:
    """The decoded file; raises UserError, calling the file `what`, where it is missing, not JSON or too large."""
    try:
        text = _read_text(path, most_bytes)
    except FileNotFoundError:
        raise UserError(f"there is no {what} at {str(path)!r}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {str(path)!r} can't be read: {error}.") from None
    if text is None:
        raise UserError(f"{what} {str(path)!r} can't be read: it is larger than {most_bytes} bytes.")
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise UserError(f"{what} {str(path)!r} can't be read: it is nested too deep.") from None
    except ValueError as error:  # what is no JSON, and numbers of thousands of digits
        raise UserError(f"{what} {str(path)!r} is not whole JSON ({error}); was it cut short?") from None


def _read_text(path: Path, most_bytes: int | None) -> str | None:
    """None where there is more of it. A bounded file must be one: a pipe or a device would never end."""
    if most_bytes is None:
        return path.read_text(encoding="utf-8")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError("it is no file")
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    return None if len(data) > most_bytes else data.decode("utf-8")


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")
