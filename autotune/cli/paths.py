"""Paths on the command line: `~` also after an equals sign, and a sentence for paths of Windows."""

import re
from pathlib import Path, PureWindowsPath

from autotune.errors import UserError

TEXT = ("--prompt", "--negative-prompt", "--call")  # options whose values are no paths
HOME = re.compile(r"~(?=/|$)")
DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def with_paths(words: list[str]) -> list[str]:
    """The words with the home folder in place of `~`, as a shell has it. Raises UserError for paths of Windows."""
    made: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        made.append(word if before in TEXT or option in TEXT else f"{option}{equals}{_path(value)}")
    return made


def _path(value: str) -> str:
    if (DRIVE.match(value) or "\\" in value) and not Path(value).exists():
        windows = PureWindowsPath(value)
        drive = f"/mnt/{windows.drive[0].lower()}/" if DRIVE.match(value) else ""
        posix = drive + "/".join(windows.parts[1:] if windows.anchor else windows.parts)
        where = f" (under WSL, {posix})" if drive else f", such as {posix}"
        raise UserError(f"{value!r} is a path of Windows: give it as this system writes it{where}.")
    return str(Path(value).expanduser()) if HOME.match(value) else value
