"""What torch.compile did: every graph, break, recompilation and function given up is counted. In a process of its own,
as they are counted for a process as a whole."""

import json
from types import SimpleNamespace

import pytest
from programs import run_program

from autotune.measure.compilation import compilation

CHILD = """
import json, torch
from autotune.measure.compilation import compilation, keep_all_attempts
keep_all_attempts()
seen = {"nothing": compilation()}

def look(name):
    seen[name] = compilation().to_json()

def double(x):
    return x * 2 + 1

static = torch.compile(double, backend="eager", dynamic=False)
static(torch.ones(2)); static(torch.zeros(2)); look("one graph")
static(torch.ones(3)); look("another shape")
for size in range(4, 16):
    static(torch.ones(size))
look("too many shapes")

@torch.compiler.disable
def unseen(x):
    return x

def broken(x):
    return unseen(x + 1) + 1

torch.compile(broken, backend="eager")(torch.ones(2)); look("a break")
for number in range(80):
    scope = {}
    exec(f"def f(x): return x + {number}", scope)
    torch.compile(scope["f"], backend="eager")(torch.ones(2))
look("many functions")
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, dict[str, float]]:
    done = run_program("-c", CHILD)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def counts(one: dict[str, float]) -> tuple[float, ...]:
    return one["graphs"], one["graph_breaks"], one["recompilations"], one["fallbacks"]


def test_where_nothing_was_compiled_there_is_nothing_to_say(seen: dict[str, dict[str, float]]) -> None:
    assert seen["nothing"] is None


def test_a_function_called_twice_with_one_shape_is_one_graph(seen: dict[str, dict[str, float]]) -> None:
    assert counts(seen["one graph"]) == (1, 0, 0, 0)
    assert 0 < seen["one graph"]["seconds"] < 60


def test_another_shape_is_a_recompilation(seen: dict[str, dict[str, float]]) -> None:
    assert counts(seen["another shape"]) == (2, 0, 1, 0)
    assert seen["another shape"]["seconds"] > seen["one graph"]["seconds"]


def test_a_function_with_more_graphs_than_dynamo_allows_is_given_up(seen: dict[str, dict[str, float]]) -> None:
    assert counts(seen["too many shapes"]) == (8, 0, 7, 1)


def test_a_break_makes_two_graphs_of_one(seen: dict[str, dict[str, float]]) -> None:
    assert counts(seen["a break"]) == (8 + 2, 1, 7, 1)


def test_more_attempts_are_kept_than_torch_keeps_by_itself(seen: dict[str, dict[str, float]]) -> None:
    """Of its last 64 it would have forgotten the one that was given up."""
    assert counts(seen["many functions"]) == (10 + 80, 1, 7, 1)


def test_cuda_graphs_that_were_captured_and_left_out_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo import utils

    from autotune.devices import cuda_graphs

    attempt = SimpleNamespace(fail_reason=None, recompile_reason=None, entire_frame_compile_time_s=1.0)
    monkeypatch.setattr(utils, "get_compilation_metrics", lambda: [attempt])
    monkeypatch.setattr(cuda_graphs, "captured", lambda: 4)
    monkeypatch.setattr(cuda_graphs, "skipped", lambda: (2, ("mutated inputs",)))
    found = compilation()
    assert found is not None
    assert (found.cuda_graphs, found.cuda_graph_skips) == (4, 2)
