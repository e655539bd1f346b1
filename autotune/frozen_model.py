"""FrozenModel: the base of every noun. Immutable, read from JSON, and clear about what is wrong with a file.

Here is also how JSON and text files are read and written, whole or not at all, and how a path is made absolute.
"""

import codecs
import errno
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TextIO

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticUndefined

from autotune.errors import LONGEST_SHOWN, UserError, cause

MOST_TOML_BYTES = 2**18  # a space file has 3 KB
MOST_DOTS = 1000  # of a line: a list of numbers, one for each step of a call, has as many
MOST_BYTES = 64 * 2**20  # of any JSON or text file: an exported config has 15 KB, a trial 30 KB


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
    if path.exists() and not path.is_file() and not path.is_dir():  # a device node would be replaced by the file
        raise OSError(errno.EINVAL, "it is no file", str(path))
    if not path.name or path.is_dir():  # "." and "/" have no name
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.is_symlink():  # what it points to is written, as by a redirection of the shell
        path = Path(os.path.realpath(path))
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


def absolute(path: str | Path) -> Path:
    """The absolute path, with the home folder in place of `~`. Links are not followed: messages show the user's words.

    In the hub's cache, links point to files without a suffix; elsewhere a link is a name that the user chose. A link
    before `..` is followed: the system takes it for the folder above the one that the link points to.
    """
    whole = Path(path).expanduser().absolute()
    above = [number for number, part in enumerate(whole.parts, start=1) if part == os.pardir]
    if not above:
        return whole
    return Path(*whole.parts[: above[-1]]).resolve().joinpath(*whole.parts[above[-1] :])


def same_place(one: str, other: str) -> bool:
    """Are these two absolute paths of one file or folder, by whatever links?"""
    return os.path.isabs(one) and os.path.isabs(other) and os.path.realpath(one) == os.path.realpath(other)


def read_json(path: Path, what: str, *, most_bytes: int = MOST_BYTES) -> Any:
    """The decoded file; raises UserError, calling the file `what`, where it is missing, not JSON or too large."""
    try:
        text = read_text(path, most_bytes=most_bytes)
    except FileNotFoundError:
        raise UserError(f"there is no {what} at {str(path)!r}.") from None
    except IsADirectoryError:
        raise UserError(f"{what} {str(path)!r} is a folder: name the file in it.") from None
    except OSError as error:
        raise UserError(f"{what} {str(path)!r} can't be read: {cause(error)}.") from None
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise UserError(f"{what} {str(path)!r} can't be read: it is nested too deep.") from None
    except ValueError as error:  # what is no JSON, and numbers of thousands of digits
        raise UserError(f"{what} {str(path)!r} is not whole JSON ({error}); was it cut short?") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The decoded file. Raises OSError where it can't be read, and ValueError where it is not TOML, in a clause.

    It is bounded before it is parsed: the parser takes time with the square of a key's dots, seconds for 20,000.
    """
    text = read_text(path, most_bytes=MOST_TOML_BYTES)
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count(".") > MOST_DOTS:
            raise ValueError(f"its line {number} has more than {MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_text(path: Path, *, most_bytes: int = MOST_BYTES) -> str:
    """The text of a UTF-8 file, without a byte-order mark. Raises OSError, whose text is a clause.

    It must be a file of at most `most_bytes`: a pipe or a device would never end.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError("it is no file")
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(f"it is larger than {most_bytes} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        found, of = ("it is UTF-16", "UTF-16") if utf_16 else (f"its byte {error.start} is not UTF-8", "WINDOWS-1252")
        raise OSError(f"{found}: save it as UTF-8, such as by `iconv -f {of} -t UTF-8 FILE`") from None


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")
