"""Compiled code beside an exported JSON (`best.artifacts`), so that a server's first picture need not wait for it.

torch reads it with pickle, so that whoever wrote the file can run any code in the process that loads it. The hash in
the JSON shows that the file is the one that the JSON speaks of, not that the two are to be trusted. Hence it is
used only where the caller says so (`artifacts=True`), for files from a source that they would run a program from.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from autotune.errors import UserError
from autotune.noun import Noun
from autotune.untrusted import check_file_name

LOG = logging.getLogger("autotune")
MOST_BYTES = 4 * 2**30


class Artifacts(Noun):
    """Which file, by its plain name in the JSON's folder, and what it must hold."""

    file: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)]


def artifacts_of(file: Path) -> Artifacts:
    data = file.read_bytes()
    return Artifacts(file=file.name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def use(artifacts: Artifacts | None, folder: Path, differences: Sequence[str]) -> bool:
    """Put the compiled code into torch's caches, before anything compiles. Were they used? If not, a word says why.

    differences  in what this machine is not the one that they were made on: any of them, and they are ignored

    Raises UserError where the file is not the one that the JSON speaks of.
    """
    if artifacts is None:
        LOG.warning("artifacts=True, but this config comes without any: it is compiled here.")
        return False
    if differences:
        LOG.warning("its artifacts are ignored, because this is not where they were made: %s", differences[0])
        return False
    import torch

    loaded = torch.compiler.load_cache_artifacts(read_checked(artifacts, folder))
    if loaded is None:
        LOG.warning("torch can't use these artifacts: it is compiled here.")
    return loaded is not None


def read_checked(artifacts: Artifacts, folder: Path) -> bytes:
    """The file's content, its hash checked. Raises UserError."""
    check_file_name(artifacts.file)
    path = folder / artifacts.file
    if path.is_symlink() or not path.is_file():
        raise UserError(f"the artifacts {artifacts.file!r} are not beside the config.")
    if path.stat().st_size != artifacts.bytes:
        raise UserError(f"the artifacts {artifacts.file!r} are not those of the config: another size.")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != artifacts.sha256:
        raise UserError(f"the artifacts {artifacts.file!r} are not those of the config: another SHA-256.")
    return data
