"""Parcel: the files of a folder as one object that travels between machines."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

Parcel = Mapping[str, bytes]  # path relative to the folder -> content


def pack(folder: Path) -> Parcel:
    """Every file in the folder; {} where there is no such folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unpack(parcel: Parcel, folder: Path) -> None:
    """Write the files into the folder. Raises OSError, and ValueError for a path that leads out of it."""
    for name, content in parcel.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} leads out of the folder")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
