"""How every command looks: its heading, its next steps, its bar; what Ctrl-C leaves."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[Path], None]]:
    """Gives what is called for each picture that is done. Drawn on a terminal only, and for more than one picture."""
    if total < 2 or not sys.stdout.isatty():
        yield lambda done: None
        return
    from rich.progress import Progress

    with Progress(console=console()) as progress:
        task = progress.add_task("pictures", total=total)
        yield lambda done: progress.advance(task)


@contextmanager
def searches_bar() -> Iterator[Callable[[int, int], None]]:
    """Gives what hears how many of how many replayed searches are done. Drawn on a terminal only."""
    if not sys.stdout.isatty():
        yield lambda done, of: None
        return
    from rich.progress import Progress

    with Progress(console=console()) as progress:
        task = progress.add_task("searches")
        yield lambda done, of: progress.update(task, completed=done, total=of)


def console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def heading(command: str, about: str) -> None:
    from autotune.report.terminal.theme import show_heading

    show_heading(console(), command, about)


def show_steps(steps: list[tuple[str, str]]) -> None:
    from autotune.report.terminal import theme as look

    look.show_steps(console(), steps)


@contextmanager
def resumable() -> Iterator[None]:
    """For commands that go on where they were stopped."""
    try:
        yield
    except KeyboardInterrupt:
        print("autotune: stopped; the same command continues.", file=sys.stderr)
        raise typer.Exit(130) from None
