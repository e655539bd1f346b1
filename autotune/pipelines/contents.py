"""Contents: the digest of a checkpoint's files, and which files its indices may name.

A digest of a large file is kept (in the user's cache) under the file's inode, size and times, so that it is read once.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from autotune.errors import UserError, shown
from autotune.frozen_model import read_json, write_json
from autotune.study_folder import caches

# Of what is loaded the contents count, of other files the names and sizes.
SUFFIXES = (".json", ".txt", ".model", ".safetensors", ".gguf")
WORTH_KEEPING_BYTES = 2**20  # digests of smaller files are computed each time
MOST_KEPT = 5000
SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")


def digest_of(files: Iterable[tuple[str, Path]]) -> str:
    """The digest of (name, file) pairs, of their names and contents: 16 hexadecimal digits. Raises OSError."""
    kept = _read_kept()
    known = dict(kept)
    parts = [(name, _digest(path, kept)) for name, path in files if path.name.endswith(SUFFIXES)]
    if kept != known:
        _write_kept(kept)
    return hashlib.sha256(repr(sorted(parts)).encode()).hexdigest()[:16]


def _digest(path: Path, kept: dict[str, str]) -> str:
    """The SHA-256 of the file: the one that is kept, where the file was not touched since."""
    about = path.stat()
    key = f"{about.st_dev}-{about.st_ino}-{about.st_size}-{about.st_mtime_ns}-{about.st_ctime_ns}"
    if key in kept:
        return kept[key]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if about.st_size >= WORTH_KEEPING_BYTES:
        kept[key] = digest
    return digest


def _read_kept() -> dict[str, str]:
    """File (device, inode, size, times) -> SHA-256. A file that can't be used is as good as none."""
    try:
        data = json.loads((caches() / "digests.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    plain = isinstance(data, dict) and all(isinstance(value, str) for value in data.values())
    return data if plain else {}


def _write_kept(kept: dict[str, str]) -> None:
    try:
        caches().mkdir(parents=True, exist_ok=True)
        write_json(caches() / "digests.json", dict(list(kept.items())[-MOST_KEPT:]))
    except OSError:
        return  # a cache that can't be written costs time only: the files are read again


def check_indices(folder: Path) -> None:
    """Raises UserError where an index names a shard that is no safetensors file of its own folder.

    diffusers and transformers load a shard by its suffix, and one of another suffix with pickle.
    """
    for path in sorted(found for depth in ("", "*/", "*/*/") for found in folder.glob(f"{depth}*.index.json")):
        data = read_json(path, "index")
        shards = data.get("weight_map") if isinstance(data, dict) else None
        if not isinstance(shards, dict):
            raise UserError(f"the index {str(path)!r} can't be used: it has no weight_map.")
        if path.name.endswith(".bin.index.json"):
            continue  # of weights that are never loaded
        for shard in shards.values():
            if not (isinstance(shard, str) and SHARD.fullmatch(shard)):
                raise UserError(
                    f"the index {os.fspath(path)!r} names {shown(shard)}: only safetensors files of its own folder are "
                    "loaded."
                )
