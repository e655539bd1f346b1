"""run(): the autotune command in a process of its own; check_refused(): that it refuses bad input.

A fresh interpreter needs a second for its imports. run() therefore forks one that has them done.
"""

import os
import subprocess
import sys
from pathlib import Path

from programs import run_program

HEAVY = ("torch", "diffusers", "transformers")
# A module pynvml for a machine without an NVIDIA driver.
NO_DRIVER = """
NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_LIBRARY_NOT_FOUND = 9, 12
class NVMLError(Exception): value = NVML_ERROR_DRIVER_NOT_LOADED
def nvmlInit(): raise NVMLError("Driver Not Loaded")
"""
COMMAND = "autotune.cli"
# With what the commands import late. All of it can be imported where the heavy modules can not.
LATE = ("report.terminal.show", "tuning.search", "tuning.probe_space", "tuning.export", "production.run")
LOADED = (COMMAND, *(f"autotune.{module}" for module in LATE))


def run(here: Path, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `autotune WORDS` in the folder `here`, in a fork of an interpreter that has its imports done.

    path  a folder to import modules from, before all others
    """
    return run_program("-m", COMMAND, *words, loaded=LOADED, here=here, environment=_environment(path))


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
