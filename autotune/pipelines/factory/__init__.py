"""Factory: the user's own function that builds a pipe, named as FILE.py:FUNCTION. No code of a checkpoint ever runs.

It is called as function(dtype=torch.float16) and returns a diffusers pipeline whose weights are in that format, in host
memory. So pipelines are tuned that a checkpoint alone does not describe: with classes of their own, or modified.

It runs where the user allows it: in the children of a command with --run-code, and in production where the caller of
autotune.load() hands it over. A study or an exported JSON names it, and can't make it run.
"""

import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from autotune.errors import UserError
from autotune.frozen_model import absolute
from autotune.isolation import RUN_CODE
from autotune.pipeline import Pipeline

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

Factory = Callable[..., Any]
ALONE = "--run-code allows the code of --factory FILE.py:FUNCTION to run: give that, or leave it out."
_allowed: set[str] = set()  # words of the factories that the user allows the children of this process to run
_given: ContextVar[Factory | None] = ContextVar("factory", default=None)


def split(word: str, option: str) -> tuple[Path, str]:
    """The absolute file and the function's name of FILE.py:FUNCTION. Runs no code. Raises UserError.

    option  that takes the word, for messages
    """
    file, _, function = word.rpartition(":")
    if not (file.endswith(".py") and function.isidentifier()):
        raise UserError(f"{option} takes FILE.py:FUNCTION, such as my_pipe.py:make, not {word!r}.")
    path = absolute(file)
    if not path.is_file():
        raise UserError(f"{option} {word}: there is no file {file!r}.")
    return path, function


def described(word: str, *, run_code: bool) -> Pipeline:
    """The pipeline that this function builds, whose children may run it from now on. Raises UserError without run_code.

    Its revision is a digest of the file alone: what the file imports, and weights that it loads, are not part of it.
    """
    path, function = split(word, "--factory")
    if not run_code:
        raise UserError(f"--factory {word} is code of your own: add --run-code to let it build the pipe.")
    pipeline = Pipeline(name=path.name, source=str(path), factory=function)
    _allowed.add(word_of(pipeline))
    return pipeline


def rebuilt(pipeline: Pipeline, word: str | None, *, run_code: bool) -> Pipeline:
    """A measured pipeline that this function builds now, wherever its file lies today; None: it stays as it is.

    Raises UserError without run_code, and for a pipeline that no factory built.
    """
    if word is None and run_code:
        raise UserError(ALONE)
    if word is None:
        return pipeline
    now = described(word, run_code=run_code)
    if pipeline.factory is None:
        raise UserError(f"--factory {word}: the pipe of this config was built by no factory; leave it out.")
    return pipeline.model_copy(update={"source": now.source, "factory": now.factory})


def word_of(pipeline: Pipeline) -> str:
    """FILE.py:FUNCTION, with the absolute path."""
    return f"{pipeline.source}:{pipeline.factory}"


def refusal(pipeline: Pipeline) -> UserError:
    return UserError(
        f"the pipe is built by {pipeline.factory} in {pipeline.source!r}, which is code and runs only where you allow "
        f"it: autotune.load(FILE, factory={pipeline.factory}) in Python, --factory {word_of(pipeline)} --run-code for "
        "the commands search, ladder, verify, compare and run."
    )


def variables(pipelines: Iterable[Pipeline]) -> dict[str, str]:
    """The environment variable that lets a child run the factories of these pipelines; empty: they have none.

    Raises UserError where the user did not allow one of them in this process.
    """
    built = [pipeline for pipeline in pipelines if pipeline.factory is not None]
    for pipeline in built:
        if word_of(pipeline) not in _allowed:
            raise refusal(pipeline)
    return {RUN_CODE: "\n".join(dict.fromkeys(map(word_of, built)))} if built else {}


@contextmanager
def given(function: Factory | None) -> Iterator[None]:
    """Inside the block, this function builds the pipe, whatever file is recorded; None: as outside."""
    token = _given.set(function or _given.get())
    try:
        yield
    finally:
        _given.reset(token)


def make(pipeline: Pipeline, dtype: "torch.dtype") -> "DiffusionPipeline":
    """The pipe that the user's function returns, in host memory. What the function raises is not caught.

    Raises UserError where it may not run, takes no `dtype`, or returns something else than a pipe.
    """
    from diffusers import DiffusionPipeline

    function = find(pipeline)
    what = f"the factory {pipeline.factory} of {pipeline.name}"
    taken = inspect.signature(function).parameters.values()
    if not any(one.name == "dtype" or one.kind is inspect.Parameter.VAR_KEYWORD for one in taken):
        raise UserError(f"{what} takes no dtype: write it as `def {pipeline.factory}(dtype)`, a torch.dtype.")
    pipe = function(dtype=dtype)
    if not isinstance(pipe, DiffusionPipeline):
        raise UserError(f"{what} returned {type(pipe).__name__}, not a diffusers pipeline.")
    if any(hasattr(part, "_hf_hook") for part in pipe.components.values()):
        raise UserError(f"{what} returned a pipe that is offloaded already: leave that to the setting offload.")
    return pipe if pipe.device.type == "cpu" else pipe.to("cpu")


def file_of(pipeline: Pipeline) -> Path | None:
    """The file of the function that will build the pipe; None: it comes from no file that is there."""
    function = _given.get()
    if function is None:
        path = Path(pipeline.source)
    else:
        try:
            path = Path(inspect.getsourcefile(function) or "")
        except TypeError:  # an object that can be called
            return None
    return path if path.is_file() else None


def digest_of(file: Path) -> str:
    """The revision of a pipeline that this file builds. Raises UserError where it can't be read."""
    try:
        return f"files-{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"
    except OSError as error:
        raise UserError(f"the factory's file {str(file)!r} can't be read: {error.strerror or error}.") from None


def find(pipeline: Pipeline) -> Factory:
    """The function that builds this pipe; its file is imported. Raises UserError where it may not run."""
    function = _given.get()
    if function is not None:
        return function
    if word_of(pipeline) not in os.environ.get(RUN_CODE, "").split("\n"):
        raise refusal(pipeline)
    return function_of(Path(pipeline.source), str(pipeline.factory))


def function_of(file: Path, name: str) -> Factory:
    """The function of this name. Runs the file, which may import what lies beside it. Raises UserError without one."""
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last: a file there takes the place of no library
    function = getattr(import_file(file), name, None)
    if not callable(function):
        raise UserError(f"{str(file)!r} has no function {name}.")
    made: Factory = function
    return made


def import_file(file: Path) -> ModuleType:
    """The module that this file of the user makes, imported once. Raises UserError where it can't be imported."""
    name = f"autotune_user_{digest_of(file).removeprefix('files-')}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, absolute(file))
    if spec is None or spec.loader is None:
        raise UserError(f"{str(file)!r} can't be imported.")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and others look there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # any error in the user's code is reported to the user
        del sys.modules[name]
        raise UserError(f"{str(file)!r} can't be imported: {type(error).__name__}: {error}.") from error
    return module
