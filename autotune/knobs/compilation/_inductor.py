"""_inductor: which of Inductor's settings the installed torch reads. A helper of the knobs of torch.compile."""

import ast
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FLAGS: Mapping[str, dict[str, Any]] = {
    "default": {},
    "fast_diffusion": {
        "conv_1x1_as_mm": True,
        "coordinate_descent_tuning": True,
        "coordinate_descent_check_all_directions": True,
        "epilogue_fusion": False,
        "force_fuse_int_mm_with_mul": True,
    },
    # Each Triton kernel's tile sizes are improved one by one, in the order in which that helps most.
    "coordinate_descent": {"coordinate_descent_tuning": True, "coordinate_descent_check_all_directions": True},
    # Independent kernels become one where that was timed to be faster; so are kernels that could be fused.
    "combo_kernels": {"combo_kernels": True, "benchmark_combo_kernel": True, "benchmark_fusion": True},
}


def flags_of(value: str) -> dict[str, Any]:
    """The settings of a value of the knob `inductor_flags`, without those that the installed torch does not read."""
    idle = unread(FLAGS[value])
    return {name: setting for name, setting in FLAGS[value].items() if name not in idle}


def unread(names: Iterable[str]) -> set[str]:
    """Those of Inductor's settings that the installed torch does not read. Loads no torch."""
    spec = find_spec("torch")
    places = spec.submodule_search_locations if spec is not None else None
    return set() if not places else set(_unread(Path(places[0]) / "_inductor", frozenset(names)))


@cache
def _unread(folder: Path, names: frozenset[str]) -> frozenset[str]:
    """Those of the settings that no code under this folder reads, but for functions that nothing names."""
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))}
    sources = {path: text for path, text in sources.items() if path.name != "config.py"}
    return frozenset(name for name in names if not _is_read(name, sources))


def _is_read(name: str, sources: Mapping[Path, str]) -> bool:
    for text in sources.values():
        if name not in text:
            continue
        module = ast.parse(text)
        readers = [_function(module, number) for number in _lines(name, text)]
        if any(reader is None or _is_named(reader, sources) for reader in readers):
            return True
    return False


def _lines(name: str, text: str) -> list[int]:
    whole = re.compile(rf"\b{name}\b")
    return [number for number, line in enumerate(text.splitlines(), start=1) if name in line and whole.search(line)]


def _function(module: ast.Module, line: int) -> str | None:
    """The function of the module's top level that has this line; None: no such function has it."""
    functions = (node for node in module.body if isinstance(node, ast.FunctionDef))
    return next((f.name for f in functions if f.lineno <= line <= (f.end_lineno or f.lineno)), None)


def _is_named(function: str, sources: Mapping[Path, str]) -> bool:
    """Is the function named anywhere but in its definition?"""
    return any(function in text and re.search(rf"(?<!def )\b{function}\b", text) for text in sources.values())
