"""Progress: the bars of commands that draw many pictures or replay many searches. Drawn on a terminal only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import Progress

from autotune.report.terminal.theme import plain_console


@contextmanager
def pictures_bar(total: int) -> Iterator[Callable[[Path], None]]:
    """Yields a function to call with each picture that is done. A single picture has no bar."""
    if total < 2 or not sys.stdout.isatty():
        yield lambda done: None
        return
    with Progress(console=plain_console()) as progress:
        task = progress.add_task("pictures", total=total)
        yield lambda done: progress.advance(task)


@contextmanager
def searches_bar() -> Iterator[Callable[[int, int], None]]:
    """Yields a function to call with (replayed searches that are done, all of them)."""
    if not sys.stdout.isatty():
        yield lambda done, total: None
        return
    with Progress(console=plain_console()) as progress:
        task = progress.add_task("searches")
        yield lambda done, total: progress.update(task, completed=done, total=total)
