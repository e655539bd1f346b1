"""Parcel: the files of a folder as one object that travels between machines."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

Parcel = Mapping[str, bytes]  # path relative to the folder -> content
Listing = tuple[tuple[str, int, int], ...]  # path, size and time of change of each file


def pack(folder: Path) -> Parcel:
    """Every file in the folder; {} where there is no such folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in _files(folder)}


def listing(folder: Path) -> Listing:
    """What tells whether the files of a folder are those of before, without reading them."""
    found = ((path, path.stat()) for path in _files(folder))
    return tuple((path.as_posix(), file.st_size, file.st_mtime_ns) for path, file in found)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]


def unpack(parcel: Parcel, folder: Path) -> None:
    """Write the files into the folder. Raises OSError, and ValueError for a path that leads out of it."""
    for name, content in parcel.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} leads out of the folder")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
