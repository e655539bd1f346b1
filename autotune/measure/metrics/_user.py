"""User metrics: a metric that is the user's own function, named as `file.py:function`.

It is called as function(images, prompts, references) and returns one float for each picture. The user's code runs with
--run-code only, in the child process that scores. Higher is better, unless the function has the attribute
`better = "lower"`. The metric's identity holds the digest of the file.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from autotune.errors import UserError
from autotune.measure.metrics import Better, Images, Judge, Metric
from autotune.measure.metrics._clip import file_digest
from autotune.pipelines.factory import import_file


def is_users(word: str) -> bool:
    """Does this word name a function in a file, rather than a built-in metric?"""
    return ".py:" in word or word.endswith(".py")


def split(word: str) -> tuple[Path, str]:
    """The file and the function's name. Runs no code. Raises UserError for another form, or a missing file."""
    file, _, function = word.rpartition(":") if ".py:" in word else (word, "", "")
    if not function.isidentifier():
        raise UserError(f"--metric takes FILE.py:FUNCTION, not {word!r}.")
    if not Path(file).is_file():
        raise UserError(f"there is no file {file!r} with the metric {function}.")
    return Path(file), function


def user_metric(word: str) -> Metric:
    """The metric of the user's function. Runs the user's file. Raises UserError if it has no such function."""
    file, name = split(word)
    function = getattr(import_file(file), name, None)
    if not callable(function):
        raise UserError(f"{str(file)!r} has no function {name}.")
    better: Better = getattr(function, "better", "higher")
    if better not in ("higher", "lower"):
        raise UserError(f"{name}.better in {str(file)!r} is {better!r}: it must be higher or lower.")
    identity = f"{file.name}:{name}@{file_digest(file)}"

    def scores(images: Images, prompts: Sequence[str], references: Images) -> list[float]:
        return _checked(function(list(images), list(prompts), list(references)), len(images), word)

    return Metric(
        f"user_{name}",
        summary=f"{name} of {file.name}",
        better=better,
        unit="",
        load=lambda source, device: Judge(identity, scores),
    )


def _checked(scores: Iterable[float], count: int, word: str) -> list[float]:
    """The scores as floats. Raises UserError unless there is one finite number for each of `count` pictures."""
    try:
        numbers = [float(number) for number in scores]
    except (TypeError, ValueError):
        raise UserError(f"{word} returned {type(scores).__name__}, not a list of numbers.") from None
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise UserError(f"{word} returned {len(numbers)} numbers for {count} pictures, or some are not finite.")
    return numbers
