"""Command line: reads the options, calls what does the work, and returns an exit code (see exits.py).

What is printed is made by `report`. Everything heavier than typer is imported inside the commands, so that
`autotune --help` is instant.
"""

import errno
import sys
from importlib import import_module

from autotune.cli.app import app
from autotune.cli.exits import BAD_INPUT
from autotune.errors import UserError

for group in ("search", "production", "studies", "trust", "research", "machine", "fit"):  # the order of --help
    import_module(f"autotune.cli.{group}")


def main() -> None:
    """The console script. Every expected error becomes one sentence on stderr and an exit code."""
    try:
        app()
    except UserError as error:
        print(f"autotune: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print("autotune: no room left on the disk; free some, then the same command continues.", file=sys.stderr)
        sys.exit(BAD_INPUT)
