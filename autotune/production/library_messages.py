"""Library messages: what torch and the others say while a pipe loads or draws goes to the log, not to the terminal.

They say what a user can't act on: torchvision is not installed, torchao has no kernels for another card, dynamo looks
through a cache. The messages are kept: logger `autotune.libraries`, level INFO, which logging shows on request.
"""

import logging
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOG = logging.getLogger("autotune.libraries")
COMPILERS = frozenset(
    {"torch", "torchao"}
)  # while a pipe draws: what diffusers says then, such as of a cut prompt, is shown
LIBRARIES = COMPILERS | {"accelerate", "diffusers", "huggingface_hub", "optimum", "peft", "transformers"}


class _Diverted:
    """The libraries whose messages are diverted now, each as often as it was asked for, by whatever thread."""

    def __init__(self) -> None:
        self.lock, self.asked = threading.Lock(), Counter[str]()
        self.call_handlers, self.showwarning = logging.Logger.callHandlers, warnings.showwarning

    def enter(self, libraries: frozenset[str]) -> None:
        with self.lock:
            if not self.asked:
                self.call_handlers, self.showwarning = logging.Logger.callHandlers, warnings.showwarning
                logging.Logger.callHandlers = _call_handlers  # type: ignore[assignment, method-assign]
                warnings.showwarning = _showwarning
            self.asked.update(libraries)

    def leave(self, libraries: frozenset[str]) -> None:
        with self.lock:
            self.asked = +(self.asked - Counter(libraries))
            if self.asked:
                return
            # Whoever has replaced them meanwhile, such as warnings.catch_warnings, keeps what is there now.
            if logging.Logger.callHandlers is _call_handlers:
                logging.Logger.callHandlers = self.call_handlers  # type: ignore[method-assign]
            if warnings.showwarning is _showwarning:
                warnings.showwarning = self.showwarning


_DIVERTED = _Diverted()


@contextmanager
def kept_in_log(libraries: frozenset[str] = LIBRARIES) -> Iterator[None]:
    """Inside, these libraries' warnings and messages below an error go to `autotune.libraries`, whatever thread speaks.

    Handlers of the libraries can't be replaced instead: they are made when a library is first imported, often in here.
    """
    _DIVERTED.enter(libraries)
    try:
        yield
    finally:
        _DIVERTED.leave(libraries)


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    if record.levelno < logging.ERROR and record.name.partition(".")[0] in _DIVERTED.asked:
        LOG.info("%s: %s", record.name, record.getMessage())
    else:
        _DIVERTED.call_handlers(logger, record)


def _showwarning(message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any, **named: Any) -> None:
    library = next((part for part in reversed(filename.replace("\\", "/").split("/")) if part in LIBRARIES), None)
    if library in _DIVERTED.asked:
        LOG.info("%s: %s: %s", library, category.__name__, message)
    else:
        _DIVERTED.showwarning(message, category, filename, lineno, *rest, **named)
