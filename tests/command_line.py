"""run(): the autotune command in a process of its own; check_refused(): that it refuses bad input.

A fresh interpreter needs a second for its imports. run() therefore forks from a server, which has them done.
This file is also the server's program.
"""

import atexit
import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

HEAVY = ("torch", "diffusers", "transformers")
# A module pynvml for a machine without an NVIDIA driver.
NO_DRIVER = """
NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_LIBRARY_NOT_FOUND = 9, 12
class NVMLError(Exception): value = NVML_ERROR_DRIVER_NOT_LOADED
def nvmlInit(): raise NVMLError("Driver Not Loaded")
"""
COMMAND = "autotune.cli"
# What the commands import late. All of it can be imported where the heavy modules can not.
LATE = ("report.terminal.show", "tuning.search", "tuning.probe_space", "tuning.export", "production.run")


def run(here: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `autotune WORDS` in the folder `here`, in a fork of a server.

    path  a folder to import modules from, before all others
    """
    environment = _environment(path)
    stays = {name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"}
    server = _server(frozenset(stays.items()))
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        request = {"here": str(here), "words": words, "environment": environment, "out": str(out), "err": str(err)}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the server of commands has ended"
        return subprocess.CompletedProcess([COMMAND, *words], int(answer), out.read_text(), err.read_text())


def run_fresh(here: Path, *words: str, path: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `autotune WORDS` like run(), in a fresh interpreter.

    env   further environment variables
    """
    return subprocess.run(
        [sys.executable, "-m", COMMAND, *words],
        cwd=here,
        env={**_environment(path), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def _environment(path: Path | None) -> dict[str, str]:
    search = [str(path) if path else "", os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))}


@functools.cache
def _server(environment: frozenset[tuple[str, str]]) -> subprocess.Popen[str]:
    """The server of this environment. It ends when its input does: with this process at the latest."""
    server = subprocess.Popen(
        [sys.executable, __file__], env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    """Answer each line of the input, a request of run(), with an exit code. Returns at the end of the input."""
    sys.path.pop(0)  # the folder of this file
    import_module(COMMAND)
    for module in LATE:
        import_module(f"autotune.{module}")
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            _become_the_command(**json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become_the_command(here: str, words: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """Run the command as `python -m` does. What it raises ends this process as it would end an interpreter."""
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        opened = os.open(name, flags | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(here)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, here)
    sys.argv[1:] = words
    runpy.run_module(COMMAND, run_name="__main__", alter_sys=True)


def snapshot(folder: Path) -> dict[str, str]:
    """Path -> text of every file in the folder, at any depth; "a folder" for a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    return {str(p): p.read_text() for p in files} | {str(p): "a folder" for p in folders}


def check_refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    """Exit code 2, and one line on stderr with these words."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("autotune: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1, "one line"
    assert done.stderr.rstrip().endswith((".", "?", ")"))


if __name__ == "__main__":
    _serve()
