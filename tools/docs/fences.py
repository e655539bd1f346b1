"""fences: the fenced blocks of the pages, and the commands in them."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.M | re.S)


class Block(NamedTuple):
    """A fenced block: its page, the line where it begins, its language, and its text."""

    page: Path
    line: int
    language: str
    text: str


class Command(NamedTuple):
    """A command line of a page, and where it stands. Output that follows it in its block is not in it."""

    where: str
    text: str


def pages() -> list[Path]:
    """The pages for users: README.md and CONTRIBUTING.md, and all of docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[2], textwrap.dedent(found[3]))


def commands() -> list[Command]:
    """Every command of every page: lines with "$ " in console blocks, lines of sh blocks, and inline code.

    Inline code is a command where it begins with a program that the pages use. Lines with "..." leave something out.
    """
    found = []
    for page in pages():
        name = page.relative_to(ROOT)
        for block in blocks(page):
            for number, line in enumerate(block.text.splitlines(), block.line + 1):
                if block.language == "console" and line.startswith("$ "):
                    found.append(Command(f"{name}:{number}", _bare(line[2:])))
                elif block.language == "sh" and line.strip():
                    found.append(Command(f"{name}:{number}", _bare(line)))
        outside = FENCE.sub("", page.read_text(encoding="utf-8"))
        inline = [text for text in re.findall(r"`([^`\n]+)`", outside) if re.match(r"(autotune|make|python) ", text)]
        found += [Command(f"{name}: `{text}`", _bare(text)) for text in inline]
    return [command for command in found if command.text and "..." not in command.text]


def _bare(line: str) -> str:
    """Without a comment after two spaces, as shells allow."""
    return line.partition("  #")[0].strip()
