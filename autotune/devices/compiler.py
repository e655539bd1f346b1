"""Compiler: whether torch.compile works on a device, and if not, what is missing."""

import os
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_ERROR = 200  # characters of a compiler's message that are kept


def fault_on_processor() -> str | None:
    """Why Inductor can't compile for a processor, or None. Compiling for one takes long, so nothing is compiled."""
    import torch

    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"torch.compile needs a C++ compiler, and there is no {compiler}"
    if any(letter.isspace() for letter in torch.__file__):
        return "torch lies in a folder with a space in its name, from where Inductor can't link"
    return None


def fault_on_gpu(device: str, *, by_trial: bool) -> str | None:
    """Why Inductor can't compile for this GPU (torch's name), or None.

    by_trial  compile and run one small kernel, in a few seconds; for a process of its own, as torch forgets what this
              process has compiled. False: only look whether what Triton usually needs is here

    Triton builds a part of its own with the C compiler and Python's headers, which slim containers lack: then no config
    that compiles would run.
    """
    from torch.utils._triton import has_triton

    if not has_triton():
        return "torch.compile needs Triton, which does not work here"
    if not by_trial:
        return f"torch.compile needs {missing()}" if missing() else None
    try:
        with _empty_caches():
            _compile_and_run(device)
    except Exception as error:
        return f"torch.compile needs {missing()}" if missing() else f"torch.compile fails here: {_what(error)}"
    return None


def missing() -> str | None:
    """What Triton needs to build its part of a kernel, and does not find here; None: it is all here."""
    named = os.environ.get("CC")
    if named is not None and shutil.which(named) is None:
        return f"a C compiler, and there is no {named}, which CC names"
    if named is None and not any(map(shutil.which, ("clang", "gcc", "cc"))):
        return "a C compiler, and there is neither gcc nor clang"
    folder = sysconfig.get_paths()["include"]
    if not Path(folder, "Python.h").exists():
        return f"Python's headers (the package python3-dev), and there is no {folder}/Python.h"
    return None


def _compile_and_run(device: str) -> None:
    import torch

    numbers = torch.arange(32, dtype=torch.float32, device=device)
    compiled = torch.compile(lambda x: torch.sin(x) * 2 + 1, fullgraph=True)
    difference = (compiled(numbers) - (torch.sin(numbers) * 2 + 1)).abs().max().item()
    torch.compiler.reset()
    if not difference < 1e-4:
        raise ArithmeticError(f"a compiled sum is off by {difference}")


@contextmanager
def _empty_caches() -> Iterator[None]:
    """Caches of Inductor and Triton in which nothing was compiled, when the compiler was still here."""
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ.update({name: str(Path(folder, name)) for name in names})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def _what(error: Exception) -> str:
    """The line of a compiler's long message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith(" raised:")]  # "backend='inductor' raised:"
    return f"{type(error).__name__}: {(lines or ['no message'])[0]}"[:LONGEST_ERROR]
