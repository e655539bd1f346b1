"""Scratch: a temporary folder for jobs, which is kept where an error names a file in it, such as a log."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autotune.errors import UserError


@contextmanager
def scratch(prefix: str = "autotune-") -> Iterator[Path]:
    """A new folder. It is removed at the end, unless the block ends with a UserError that names it: a user reads it."""
    folder, named = Path(tempfile.mkdtemp(prefix=prefix)), False
    try:
        yield folder
    except UserError as error:
        named = str(folder) in str(error)
        raise
    finally:
        if not named:
            shutil.rmtree(folder, ignore_errors=True)
