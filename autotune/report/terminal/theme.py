"""Theme: how every command looks in a terminal: a heading, lines, then the next steps as commands to copy.

Plain text in 80 columns. Colours repeat what the words say.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

Step = tuple[str, str]  # a command, and what it is for


def plain_console() -> Console:
    """A console on standard output that does not colour numbers and names by itself."""
    return Console(highlight=False)


def heading_words(command: str, about: str) -> str:
    """ "autotune compare: a.json and b.json"."""
    return f"autotune {command}: {about}"


def show_heading(console: Console, command: str, about: str) -> None:
    """On one line, however long, so that it can be searched for in a log."""
    console.print(Text(heading_words(command, about)), soft_wrap=True)


def show_steps(console: Console, steps: Sequence[Step]) -> None:
    """Print the next steps. Each command is on one line, however long, so that it can be copied."""
    if steps:
        console.print("\nnext:")
    for command, why in steps:
        console.print(Text(f"  # {why}", style="dim"), soft_wrap=True)
        console.print(Text(f"  {command}"), soft_wrap=True)
