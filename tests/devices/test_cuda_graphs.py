"""CUDA graphs that Inductor captured or left out, by counters and trees that a test has set: no GPU was there."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autotune.building import build
from autotune.knob import Effect
from autotune.knobs import complete
from autotune.knobs.compilation.compile_mode import CUDA_GRAPHS


def after_calls(monkeypatch: pytest.MonkeyPatch, mode: str, roots: list[Any], skips: int) -> dict[str, Effect]:
    """What verify says where Inductor holds these trees of CUDA graphs, and has left out so many."""
    from torch._dynamo import utils

    manager = SimpleNamespace(get_roots=lambda: iter(roots))
    trees = SimpleNamespace(get_manager=lambda index, create_if_none_exists: manager)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setitem(sys.modules, "torch._inductor.cudagraph_trees", trees)
    monkeypatch.setitem(utils.counters["stats"], "unique_graphs", 3)
    monkeypatch.setitem(utils.counters["inductor"], "cudagraph_skips", skips)
    attempt = SimpleNamespace(fail_reason=None, recompile_reason=None, cudagraph_skip_reason="mutated inputs")
    monkeypatch.setattr(utils, "get_compilation_metrics", lambda: [attempt] if skips else [])
    config = complete({"compile": "denoiser", "compile_mode": mode})
    return build.verify(SimpleNamespace(), config, None)  # type: ignore[arg-type]


def node(*children: Any) -> Any:
    """A captured CUDA graph, and those that follow it."""
    return SimpleNamespace(children={1: list(children)})


@pytest.mark.parametrize("mode", CUDA_GRAPHS)
def test_a_mode_whose_cuda_graphs_were_all_skipped_has_no_effect(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    with pytest.raises(build.NoEffect, match=r"0 CUDA graphs captured, 3 skipped \(mutated inputs\)") as raised:
        after_calls(monkeypatch, mode, [], 3)
    assert raised.value.knob == "compile_mode"


def test_captured_graphs_are_counted_with_those_that_follow_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = after_calls(monkeypatch, "reduce-overhead", [node(node(), node(node())), node()], 1)["compile_mode"]
    assert found.count == 5
    assert "1 skipped" in found.what


def test_a_mode_without_cuda_graphs_acts_where_graphs_were_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert after_calls(monkeypatch, "max-autotune-no-cudagraphs", [], 0)["compile_mode"].count == 3


def test_torch_has_what_is_asked_of_it() -> None:
    """Read off its source: importing it takes seconds."""
    (trees,) = (find_spec("torch") or pytest.fail("no torch")).submodule_search_locations or ()
    source = (Path(trees) / "_inductor" / "cudagraph_trees.py").read_text()
    for name in ("def get_manager(", "create_if_none_exists: bool", "def get_roots(self)", "self.children:"):
        assert name in source, name
