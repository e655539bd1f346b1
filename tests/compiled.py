"""compile_in_child(): compile the demo in a new process; captured(): capture graphs in this one, without Inductor.

A child process has its own graphs, counters and caches. This file is also its program:

    python tests/compiled.py '[{"compile": "regional"}]'

builds the demo once for each set of values, and prints what it observed as JSON. The key "pattern_matcher" is not a
knob: with false, Inductor does not replace the formulas of attention by the fused kernel.
"""

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from programs import run_program


@contextmanager
def captured() -> Iterator[Any]:
    """Within it, Dynamo captures graphs and runs them as they are, without Inductor. Yields Dynamo's counters.

    It is fast, and shows graphs, graph breaks and recompilations.
    """
    import torch
    from torch._dynamo.utils import clear_compilation_metrics, counters

    with warnings.catch_warnings():  # torch deprecates what it imports itself
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        importlib.import_module("torch._inductor.cudagraph_trees")
    inductor = torch._TorchCompileInductorWrapper
    compile_graph = inductor.__call__
    inductor.__call__ = lambda self, graph, inputs, **_: graph.forward
    try:
        torch._dynamo.reset()
        counters.clear()
        clear_compilation_metrics()
        yield counters
    finally:
        inductor.__call__ = compile_graph
        torch._dynamo.reset()
        counters.clear()
        clear_compilation_metrics()


def compile_in_child(cache: Path, *runs: dict[str, Any]) -> list[dict[str, Any]]:
    """What a new process observes of each set of values, with its compiled code in the folder `cache`."""
    done = run_program(__file__, json.dumps(runs), late={"TORCHINDUCTOR_CACHE_DIR": str(cache)})
    assert done.returncode == 0, done.stderr
    seen: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return seen


def observe(values: dict[str, Any]) -> dict[str, Any]:
    """Build the demo with these values, call it, and return the differences, kernels and counters."""
    import torch
    from live import built, difference, picture, profiled_kernels
    from torch._dynamo.utils import clear_compilation_metrics, counters

    from autotune.building import build
    from autotune.knobs import complete

    torch._dynamo.reset()
    counters.clear()
    clear_compilation_metrics()
    matching = values.pop("pattern_matcher", True)
    eager = picture(built(**{name: value for name, value in values.items() if name != "compile"})[0])
    pipe, effects = built(**values)
    with torch._inductor.config.patch(pattern_matcher=matching):
        seen: dict[str, Any] = {
            "difference": difference(eager, picture(pipe)),
            "kernels": profiled_kernels(pipe),
            "compiled": effects["compile"].count,
        }
    seen["graphs"] = counters["stats"]["unique_graphs"]
    seen["read_from_disk"] = counters["inductor"]["fxgraph_cache_hit"]
    try:
        verified = build.verify(pipe, complete(values), seen["kernels"])
        seen["verified"] = {name: effect.to_json() for name, effect in verified.items()}
    except build.NoEffect as error:
        seen["no_effect"] = str(error)
    return seen


if __name__ == "__main__":
    print(json.dumps([observe(values) for values in json.loads(sys.argv[1])]))
