"""What we tell a user whose input can't be used: one sentence, and the word they probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_SHOWN = 80  # characters of somebody's input in a sentence: it may be a whole file


class UserError(Exception):
    """Bad input. The text is one sentence: what was wrong, what was given, what to do. The CLI exits with 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence: "did you mean 'x'?" where something is close, otherwise the list of what is known."""
    names = list(known)
    close = get_close_matches(word[:LONGEST_SHOWN], names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}."


def shown(value: object) -> str:
    """A value as it stands in a sentence: quoted, and cut where it is long."""
    text = repr(value[: LONGEST_SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
