"""Command line: reads the options, calls what does the work, and returns an exit code (see exits.py).

What is printed is made by `report`. Everything heavier than typer is imported inside the commands, so that
`autotune --help` is instant.
"""

import contextlib
import errno
import io
import os
import signal
import sys
from importlib import import_module
from typing import Any

import typer

from autotune.cli.app import app
from autotune.cli.exits import BAD_INPUT, CLOSED_PIPE, DONE, code_of, end, last_word
from autotune.cli.paths import with_paths
from autotune.errors import UserError, one_line, shown

# Options that name a part of the pipeline, of which it takes one. Of other options the last one counts, as is usual.
ONE_PART = ("--config", "--variant", "--revision")
OF_PATHS = {  # what pathlib says by a RuntimeError -> the sentence
    "Symlink loop": "a path that was given is a symbolic link that leads back to itself.",
    "Could not determine home": "the home folder that ~ stands for in a path is not known here.",
}
BAD_WORDS: type[Any] = typer.BadParameter.__bases__[0].__bases__[0]  # click's ClickException

for group in ("search", "fleet", "production", "studies", "trust", "research", "machine", "fit"):  # the order of --help
    import_module(f"autotune.cli.{group}")


def main() -> None:
    """The console script. Every expected error becomes one sentence on stderr and an exit code."""
    signal.signal(signal.SIGTERM, end)
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold what the terminal can't show
    try:
        code = _run(with_paths(sys.argv[1:]))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes stdout once more at its end
        code = CLOSED_PIPE
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        code = CLOSED_PIPE  # rich has noticed it, and ends with 1
    except Exception as error:
        sentence = in_words(error)
        if sentence is None:
            raise
        with contextlib.suppress(OSError):  # a full disk as the error stream: the exit code is left
            print(f"autotune: {one_line(sentence)}", file=sys.stderr, flush=True)
        code = BAD_INPUT
    sys.exit(code)


def _open_closed_streams() -> None:
    """Give a process that was started without one of its three streams (`>&-`) one that goes nowhere.

    Otherwise the next file that is opened takes the stream's number, and what a library prints ends up in it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _run(words: list[str]) -> int:
    """Run the command of these words. Returns its exit code."""
    for option in ONE_PART:
        given = sum(word == option or word.startswith(f"{option}=") for word in words)
        if given > 1:
            raise UserError(f"{option} is given {given} times, and a pipeline takes one: leave out the others.")
    command = typer.main.get_command(app)
    try:
        with command.make_context("autotune", words) as context:
            command.invoke(context)
    except typer.Exit as error:
        return error.exit_code
    except KeyboardInterrupt as error:
        print(f"autotune: {last_word(error)}.", file=sys.stderr)
        return code_of(error)
    except BAD_WORDS as error:
        if not words:
            error.show()  # the help
            return BAD_INPUT
        message = " ".join(error.format_message().split())
        raise UserError(message if message.endswith((".", "?", ")")) else f"{message}.") from None
    return DONE


def in_words(error: Exception) -> str | None:
    """What went wrong outside of autotune, as a sentence; None: it is autotune's own fault, and needs a traceback."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no room left on the disk; free some, then the same command continues."
    if isinstance(error, OSError):
        where = f"{shown(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{error.strerror or error} ({type(error).__name__})."
    if isinstance(error, RuntimeError):
        return next((sentence for begin, sentence in OF_PATHS.items() if str(error).startswith(begin)), None)
    if isinstance(error, UnicodeError):
        return f"a name or a file is not UTF-8 ({error})."
    return None
