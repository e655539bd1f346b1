"""run(): the autotune command in a process of its own; check_refused(): that it refuses bad input."""

import os
import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "diffusers", "transformers")
# A module pynvml for a machine without an NVIDIA driver.
NO_DRIVER = """
class NVMLError(Exception): pass
def nvmlInit(): raise NVMLError("Driver Not Loaded")
"""


def run(here: Path, *words: str, path: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `autotune WORDS` in the folder `here`.

    path  a folder to import modules from, before all others
    env   further environment variables
    """
    search = [str(path), os.environ.get("PYTHONPATH", "")] if path else [os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "autotune.cli", *words],
        cwd=here,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search)), **env},
        capture_output=True,
        text=True,
        check=False,
    )


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
