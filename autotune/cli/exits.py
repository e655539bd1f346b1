"""Exits: the exit codes of the commands, and how Ctrl-C ends a command that can be continued."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

DONE = 0
WORSE = 1  # verify: slower or larger than its file says
BAD_INPUT = 2
BROKEN = 3  # verify: it can't run, or draws other pictures
STOPPED = 130  # by Ctrl-C


@contextmanager
def resumable() -> Iterator[None]:
    """On Ctrl-C, say that the same command continues, and exit."""
    try:
        yield
    except KeyboardInterrupt:
        print("autotune: stopped; the same command continues.", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
