"""run_program(): a Python program in a process of its own, forked off an interpreter that has loaded what it imports.

A fresh interpreter takes ten seconds of a core to load torch and diffusers. A program that is to have its own process,
for its own graphs and caches, and not its own imports, is a fork of one that has loaded them. A program must not differ
from that one in a variable that a library reads at its import. This file is also that interpreter's program.
"""

import atexit
import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

BEGAN_WITH = dict(os.environ)  # libraries set variables of their own, and each would need another server
LIBRARIES = ("diffusers", "transformers", "torch._dynamo.utils", "diffusers.pipelines.stable_diffusion")


def run_program(
    *words: object,
    loaded: Sequence[str] = LIBRARIES,
    here: Path | None = None,
    environment: Mapping[str, str] | None = None,
    late: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS`: a file, `-m` and a module or `-c` and code, each with its arguments.

    loaded       the modules that are loaded before
    here         the working directory; None: this process's
    environment  the whole environment, also when the modules are loaded; None: this process's, as it began
    late         further variables, that are not read at an import
    """
    whole = dict(BEGAN_WITH if environment is None else environment)
    stays = {name: value for name, value in whole.items() if name != "PYTEST_CURRENT_TEST"}
    server = _server(tuple(loaded), frozenset(stays.items()))
    texts = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        request = {"here": str(here or Path.cwd()), "words": texts, "environment": {**whole, **(late or {})}}
        server.stdin.write(json.dumps({**request, "out": str(out), "err": str(err)}) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the server of programs has ended"
        return subprocess.CompletedProcess(texts, int(answer), out.read_text(), err.read_text())


@functools.cache
def _server(loaded: tuple[str, ...], environment: frozenset[tuple[str, str]]) -> subprocess.Popen[str]:
    """The server of these modules in this environment. It ends when its input does: with this process at the latest."""
    command = [sys.executable, __file__, *loaded]
    server = subprocess.Popen(command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    """Answer each line of the input, a request of run_program(), with an exit code. Returns at the end of the input."""
    sys.path.pop(0)  # the folder of this file
    for module in sys.argv[1:]:
        import_module(module)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            _become_the_program(**json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become_the_program(here: str, words: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """Run the program as `python` does. What it raises ends this process as it would end an interpreter."""
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        opened = os.open(name, flags | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(here)
    os.environ.clear()
    os.environ.update(environment)
    if words[0] == "-m":
        sys.path.insert(0, here)
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *words[2:]]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    else:
        sys.path.insert(0, str(Path(words[0]).parent))
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    _serve()
