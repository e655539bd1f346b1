"""UserError: bad input, explained to the user in one sentence, with the nearest word that is known."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_SHOWN = 80  # characters of the user's input that a message quotes: the input may be a whole file

LONGEST_WORD = 400  # characters without a space that a message on the terminal has: paths are shorter
ENDLESS = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


class UserError(Exception):
    """Bad input. The text is one sentence: what is wrong, what was given, what to do. The CLI exits with status 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message: "did you mean 'x'?" where a known word is close, otherwise "known: " and the list."""
    names = list(known)
    close = get_close_matches(word[:LONGEST_SHOWN], names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}."


def shown(value: object) -> str:
    """The value as a message quotes it: its repr, cut to LONGEST_SHOWN characters."""
    text = repr(value[: LONGEST_SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def cause(error: Exception) -> str:
    """What the system says of a file, such as "Permission denied": without a number, and without the path again."""
    return getattr(error, "strerror", None) or str(error)


def one_line(text: str) -> str:
    """The text as a terminal can show it: what is not printable is escaped, and endless words are cut."""
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return ENDLESS.sub(lambda word: f"{word[0][: LONGEST_WORD - 3]}...", printable)
