"""Interpreter: another Python environment, which runs a config as well, and how its packages differ."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from autotune.errors import UserError
from autotune.frozen_model import FrozenModel
from autotune.isolation import SAFE_PATH

ASK_TIMEOUT_S = 120.0
PYTHON = "python"  # the interpreter's own version, beside its packages'

# Runs in the other environment with its standard library alone. The files of autotune are told apart by what is in
# them: two checkouts of one version could measure in two ways, which would look like a difference of the packages.
ASK = """
import hashlib, importlib.metadata, json, pathlib, platform
import autotune
root = pathlib.Path(autotune.__file__).parent
code = hashlib.sha256()
for path in sorted(root.rglob("*.py")):
    code.update(str(path.relative_to(root)).encode() + path.read_bytes())
found = [d for d in importlib.metadata.distributions() if d.name]
packages = {d.name: (d.version, d.requires or []) for d in reversed(found)}  # the first on the path is the one imported
print(json.dumps({"autotune": autotune.__version__, "code": code.hexdigest(), "python": platform.python_version(),
                  "packages": packages}))
"""


class PackageDifference(FrozenModel):
    """A package whose version differs between two environments. None: it is not installed there."""

    name: str
    first: str | None
    second: str | None


class Package(NamedTuple):
    """An installed package, and the names of those that it asks for."""

    version: str
    requires: frozenset[str]


class Interpreter(NamedTuple):
    """A Python environment that has this very autotune. Names of packages are normalised as PEP 503 says."""

    path: str
    autotune: str
    code: str
    packages: Mapping[str, Package]

    @property
    def worker(self) -> tuple[str, ...]:
        """The command that runs a job there. -P: see isolation.INTERPRETER."""
        return (self.path, "-P", "-m", "autotune.worker")

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """The versions of these packages, as far as they are installed, by the names as given."""
        found = {name: self.packages.get(normalised(name)) for name in names}
        return {name: package.version for name, package in found.items() if package is not None}

    def differences(self, other: "Interpreter") -> tuple[PackageDifference, ...]:
        """The packages whose versions differ, Python itself among them, by name."""
        names = sorted(self.packages.keys() | other.packages.keys())
        own, others = ({n: p.version for n, p in side.packages.items()} for side in (self, other))
        return tuple(
            PackageDifference(name=name, first=own.get(name), second=others.get(name))
            for name in names
            if own.get(name) != others.get(name)
        )

    def with_required(self, names: Iterable[str]) -> frozenset[str]:
        """These packages and all that they ask for, directly or not, where it is installed."""
        found, left = set[str](), {normalised(name) for name in names}
        while left:
            name = left.pop()
            if name in self.packages and name not in found:
                found.add(name)
                left |= self.packages[name].requires
        return frozenset(found)


def own_interpreter() -> Interpreter:
    """The environment that this process runs in."""
    return _ask(sys.executable)


def other_interpreter(word: str) -> Interpreter:
    """The environment of this interpreter: a path, or a name on PATH. Raises UserError where it can't run our jobs."""
    # The link is not followed: an environment's python is a link to the system's, and the place of the link decides.
    named = os.path.abspath(os.path.expanduser(word)) if os.sep in word else shutil.which(word)
    if named is None or not Path(named).exists():
        raise UserError(f"--python {word}: there is no such file: name the interpreter, as in /other/venv/bin/python.")
    if Path(named).is_dir():
        raise UserError(f"--python {word} is a folder: name the interpreter in it, as in {Path(named)}/bin/python.")
    other, own = _ask(named), own_interpreter()
    if other.autotune != own.autotune:
        raise UserError(
            f"--python {word} has autotune {other.autotune}, this is {own.autotune}: install the same version there, "
            "so that both measure in the same way."
        )
    if other.code != own.code:
        raise UserError(
            f"--python {word} has other files of autotune {other.autotune} than this environment: install the very "
            "same there, so that both measure in the same way."
        )
    return other


def _ask(path: str) -> Interpreter:
    """Raises UserError where the file is no Python, or can't import autotune."""
    try:
        done = subprocess.run(
            [path, "-P", "-c", ASK],
            env={**os.environ, **SAFE_PATH},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_TIMEOUT_S,
            check=False,
        )
        answer = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else None
        if answer is not None:
            packages = {
                normalised(name): Package(version, frozenset(_names(requires)))
                for name, (version, requires) in dict(answer["packages"]).items()
            }
            python = {PYTHON: Package(str(answer["python"]), frozenset())}
            return Interpreter(path, str(answer["autotune"]), str(answer["code"]), {**packages, **python})
    except OSError as error:
        raise UserError(f"--python {path} can't be started: {error.strerror or error}.") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"--python {path} did not answer within {ASK_TIMEOUT_S:.0f} s.") from None
    except (ValueError, LookupError, TypeError):
        raise UserError(f"--python {path} does not answer as Python 3.11 or newer does.") from None
    last = next(iter(done.stderr.strip().splitlines()[-1:]), f"exit status {done.returncode}")
    raise UserError(f"--python {path} can't import autotune ({last[:200]}): install autotune in that environment.")


def _names(requirements: Iterable[str]) -> set[str]:
    """The packages of these requirements, without those of extras."""
    plain = [text for text in requirements if not re.search(r";.*\bextra\b", text)]
    return {normalised(match[0]) for text in plain if (match := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", text))}


def normalised(name: str) -> str:
    """A package's name as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()
