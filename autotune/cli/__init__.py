"""argv -> calls -> words and exit codes. The only folder that prints.

Exit codes: 0 done, 1 nothing could be found or measured, 2 input that can't be used, 3 broken (verify), 130 stopped by
Ctrl-C.
Imports of anything heavier than typer are inside the commands, so that `autotune --help` is instant.
"""

import errno
import sys
from importlib import import_module

from autotune.cli.app import app
from autotune.errors import UserError

for group in ("search", "production", "studies", "trust", "research", "machine"):  # the order of --help
    import_module(f"autotune.cli.{group}")


def main() -> None:
    """The console script: every expected error becomes one sentence and an exit code."""
    try:
        app()
    except UserError as error:
        print(f"autotune: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print("autotune: no room left on the disk; free some, then the same command continues.", file=sys.stderr)
        sys.exit(2)
