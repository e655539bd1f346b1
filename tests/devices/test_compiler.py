"""A GPU's probe compiles one kernel. What is missing is named."""

import os
import sysconfig
from pathlib import Path

import pytest
import torch
from torch.utils import _triton

from autotune.devices import compiler
from autotune.devices.compiler import fault_on_gpu, missing


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "has_triton", lambda: True)


def fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def compile_and_run(device: str) -> None:
        raise error

    monkeypatch.setattr(compiler, "_compile_and_run", compile_and_run)


def test_no_triton_is_a_reason_not_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "has_triton", lambda: False)
    assert fault_on_gpu("cuda:0", by_trial=True) == "torch.compile needs Triton, which does not work here"


@pytest.mark.usefixtures("triton")
def test_a_kernel_that_compiles_is_no_fault_whatever_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decided by what works, not by what is usually needed: the next Triton may need no compiler."""
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(compiler, "_compile_and_run", lambda device: None)
    assert fault_on_gpu("cuda:0", by_trial=True) is None


@pytest.mark.usefixtures("triton")
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fails(monkeypatch, RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable."))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert fault_on_gpu("cuda:0", by_trial=True) == (
        "torch.compile needs a C compiler, and there is no no-such-compiler, which CC names"
    )
    monkeypatch.delenv("CC")
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)
    assert missing() == "a C compiler, and there is neither gcc nor clang"
    monkeypatch.setattr(compiler.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert missing() == f"Python's headers (the package python3-dev), and there is no {tmp_path}/Python.h"


@pytest.mark.usefixtures("triton")
def test_without_a_trial_it_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """In production: a trial would take seconds, and torch would forget what the process has compiled."""
    fails(monkeypatch, AssertionError("compiled"))
    assert fault_on_gpu("cuda:0", by_trial=False) is None
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "there is no no-such-compiler" in str(fault_on_gpu("cuda:0", by_trial=False))


@pytest.mark.usefixtures("triton")
def test_another_fault_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    message = (
        "backend='inductor' raised:\nRuntimeError: ptxas fatal: Value 'sm_121a' is not defined\n\nSet TORCHDYNAMO_"
    )
    fails(monkeypatch, RuntimeError(message))
    fault = fault_on_gpu("cuda:0", by_trial=True)
    assert fault is not None
    assert fault.startswith("torch.compile fails here: RuntimeError: ")
    assert "ptxas fatal" in fault


@pytest.mark.usefixtures("triton")
def test_the_kernel_is_compiled_with_empty_caches_which_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached kernel would hide that the compiler is gone."""
    monkeypatch.setenv("TRITON_CACHE_DIR", "/mine")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    seen = []
    monkeypatch.setattr(compiler, "_compile_and_run", lambda device: seen.append(dict(os.environ)))
    assert fault_on_gpu("cuda:0", by_trial=True) is None
    (inside,) = seen
    folders = [Path(inside[name]) for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")]
    assert not any(folder.parent.exists() for folder in folders)
    assert os.environ["TRITON_CACHE_DIR"] == "/mine"
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_the_kernels_result_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda function, fullgraph: function)
    compiler._compile_and_run("cpu")
    monkeypatch.setattr(torch, "compile", lambda function, fullgraph: lambda x: x)
    with pytest.raises(ArithmeticError, match="off by"):
        compiler._compile_and_run("cpu")
