"""A metric of the user's own: `file.py:function`, called as function(images, prompts, references) -> list of floats.

Run only where the user says so by the flag --run-code: it is their code, in our process. Higher is better, unless the
function says otherwise (`function.better = "lower"`). The digest of the file is its identity.
"""

import math
import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from autotune.errors import UserError
from autotune.measure.metrics import Better, Images, Judge, Metric
from autotune.measure.metrics._clip import file_digest


def is_users(word: str) -> bool:
    """Does this name a function in a file, rather than a metric of ours?"""
    return ".py:" in word or word.endswith(".py")


def split(word: str) -> tuple[Path, str]:
    """The file and the function's name. Raises UserError; runs nothing."""
    file, _, function = word.rpartition(":") if ".py:" in word else (word, "", "")
    if not function.isidentifier():
        raise UserError(f"--metric takes FILE.py:FUNCTION, not {word!r}.")
    if not Path(file).is_file():
        raise UserError(f"there is no file {file!r} with the metric {function}.")
    return Path(file), function


def user_metric(word: str) -> Metric:
    """The metric that the user's code is. Runs that code. Raises UserError where it offers no such function."""
    file, name = split(word)
    function = getattr(_import(file), name, None)
    if not callable(function):
        raise UserError(f"{str(file)!r} has no function {name}.")
    better: Better = getattr(function, "better", "higher")
    if better not in ("higher", "lower"):
        raise UserError(f"{name}.better in {str(file)!r} is {better!r}: say higher or lower.")
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


def _import(file: Path) -> Any:
    name = f"autotune_user_{file_digest(file)}"
    spec = spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{str(file)!r} can't be imported.")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and others look there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever it is, it is the user's to mend
        raise UserError(f"{str(file)!r} can't be imported: {type(error).__name__}: {error}.") from error
    return module


def _checked(found: Any, count: int, word: str) -> list[float]:
    """The scores as floats. Raises UserError for anything that is not one finite number a picture."""
    try:
        numbers = [float(number) for number in found]
    except (TypeError, ValueError):
        raise UserError(f"{word} gave {type(found).__name__}, not a list of numbers.") from None
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise UserError(f"{word} gave {len(numbers)} numbers for {count} pictures, or some that are not finite.")
    return numbers
