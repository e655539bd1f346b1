"""Words of the command line: `~` also after an equals sign; a sentence for paths of Windows and for empty values."""

import re
from pathlib import Path, PureWindowsPath

from autotune.errors import UserError, shown

TEXT = ("--prompt", "--negative-prompt", "--call")  # options whose values are no paths
HOME = re.compile(r"~(?=/|$)")
DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def with_paths(words: list[str]) -> list[str]:
    """The words with the home folder in place of `~`, as a shell has it.

    Raises UserError for paths of Windows, for options with nothing as their value, and for texts that are not UTF-8.
    """
    made: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        named, given = (option, value) if equals else (before if before.startswith("-") else "", word)
        if not given and named and named not in TEXT:
            raise UserError(f"{named} is given nothing: name a value, or leave it out.")
        if named in TEXT and not _is_utf_8(given):
            raise UserError(f"the text of {named} is not UTF-8: {shown(given)}.")
        made.append(word if before in TEXT or option in TEXT else f"{option}{equals}{_path(value)}")
    return made


def _is_utf_8(text: str) -> bool:
    """Of words that are not, Python keeps each byte as half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _path(value: str) -> str:
    if (DRIVE.match(value) or "\\" in value) and not Path(value).exists():
        windows = PureWindowsPath(value)
        drive = f"/mnt/{windows.drive[0].lower()}/" if DRIVE.match(value) else ""
        posix = drive + "/".join(windows.parts[1:] if windows.anchor else windows.parts)
        where = f" (under WSL, {posix})" if drive else f", such as {posix}"
        raise UserError(f"{value!r} is a path of Windows: give it as this system writes it{where}.")
    return str(Path(value).expanduser()) if HOME.match(value) else value
