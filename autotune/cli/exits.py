"""Exits: the exit codes of the commands, and how Ctrl-C or SIGTERM ends a command that can be continued."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

DONE = 0
WORSE = 1  # verify: slower or larger than its file says
BAD_INPUT = 2  # also no result: the baseline fails, no trial keeps the limits, a search of a fleet has failed
BROKEN = 3  # verify: it can't run, or draws other pictures; search: a child can't be ended, best.json has what is known
STOPPED = 130  # by Ctrl-C
CLOSED_PIPE = 141  # the program that reads the output has ended
TERMINATED = 143  # by SIGTERM, as service managers and batch systems send it


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends what Ctrl-C ends."""


def end(signum: int, frame: object) -> NoReturn:
    """The handler of SIGTERM."""
    raise Terminated


def code_of(error: KeyboardInterrupt) -> int:
    return TERMINATED if isinstance(error, Terminated) else STOPPED


def last_word(error: KeyboardInterrupt) -> str:
    return "ended by SIGTERM" if isinstance(error, Terminated) else "stopped"


def end_early(held: str | None) -> None:
    """Exit where a search has ended early, because a child can't be ended. `held`: what to do; None: it has not."""
    if held is not None:
        print(f"autotune: {held}", file=sys.stderr)
        raise typer.Exit(BROKEN)


@contextmanager
def resumable() -> Iterator[None]:
    """On Ctrl-C or SIGTERM, say that the same command continues, and exit."""
    try:
        yield
    except KeyboardInterrupt as error:
        print(f"autotune: {last_word(error)}; the same command continues.", file=sys.stderr)
        raise typer.Exit(code_of(error)) from None
