"""How every command looks in a terminal: a heading, then lines, then what one may do next, as commands to copy.

Plain text in 80 columns; where there are colours they add nothing that the words don't say.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

Step = tuple[str, str]  # a command, and what it is for


def heading_words(command: str, about: str) -> str:
    """ "autotune compare: a.json and b.json"."""
    return f"autotune {command}: {about}"


def show_heading(console: Console, command: str, about: str) -> None:
    """Never broken into lines by us: a CI log's reader searches for it."""
    console.print(Text(heading_words(command, about)), soft_wrap=True)


def show_steps(console: Console, steps: Sequence[Step]) -> None:
    """What to do next: each command on one line, however long, so that it can be copied, below what it is for."""
    if steps:
        console.print("\nnext:")
    for command, why in steps:
        console.print(Text(f"  # {why}", style="dim"), soft_wrap=True)
        console.print(Text(f"  {command}"), soft_wrap=True)
