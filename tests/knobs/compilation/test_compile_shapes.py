"""compile_shapes: sizes that come later need no graph of their own, whatever was equal in the first call."""

from threading import Thread
from types import SimpleNamespace

import pytest
import torch
from conftest import make_target
from live import loaded, picture
from torch._dynamo.testing import CompileCounter
from torch.fx.experimental import _config

from autotune.building import build
from autotune.knobs import complete, find_knob
from autotune.knobs.compilation._shapes import allow_unequal_sizes
from autotune.knobs.compilation.compile import _how
from autotune.pipelines.running import remember
from autotune.workload import Shape

KNOB = find_knob("compile_shapes")
DYNAMIC = complete({"compile": "denoiser", "compile_shapes": "dynamic"})


class Layer(torch.nn.Module):
    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(picture, scale_factor=2.0).flatten(2).sum(2)


@pytest.mark.parametrize(("shapes", "graphs"), [("static", 4), ("dynamic", 1)])
def test_graphs_of_four_sizes(shapes: str, graphs: int) -> None:
    counter, layer = CompileCounter(), Layer()
    how = _how(DYNAMIC.replace(compile_shapes=shapes), layer)
    with _config.patch(use_duck_shape=not how["dynamic"]):
        layer.compile(fullgraph=True, dynamic=how["dynamic"], backend=counter)
        for height, width in ((8, 8), (12, 12), (8, 12), (16, 8)):
            layer(torch.ones(2, 3, height, width))
    assert counter.frame_count == graphs


def test_a_call_in_any_thread_tells_torch_and_another_pipes_does_not() -> None:
    dynamic, other = loaded(), loaded()
    allow_unequal_sizes(dynamic)
    seen: list[bool] = []
    for pipe in (dynamic, other):
        build.set_call_defaults(pipe, {})
        pipe.unet.register_forward_pre_hook(lambda *_: seen.append(_config.use_duck_shape))
        thread = Thread(target=picture, args=(pipe,), kwargs={"num_inference_steps": 1})
        thread.start()
        thread.join()
    assert seen == [False, True]
    assert _config.use_duck_shape, "nothing is left behind"


def test_it_is_offered_where_there_are_several_sizes() -> None:
    target = make_target()
    assert KNOB.why_not("dynamic", target) == "is for several sizes (--workload), and this workload has one"
    several = target.workload.model_copy(update={"also": (Shape(width=96, height=64),)})
    assert KNOB.why_not("dynamic", target.model_copy(update={"workload": several})) is None


def test_tracing_has_no_dynamic_shapes() -> None:
    assert KNOB.clash(DYNAMIC.replace(compile="trace"), make_target()) == "torch.jit.trace has no dynamic shapes"
    assert KNOB.clash(DYNAMIC, make_target()) is None


def verified(monkeypatch: pytest.MonkeyPatch, *graphs: int) -> list[str]:
    """What is said after so many graphs: after the calls of the first size, and after those of three."""
    from torch._dynamo import utils

    pipe = SimpleNamespace()
    remember(pipe, workload=make_target(sizes=3).workload)
    monkeypatch.setattr(utils, "get_compilation_metrics", lambda: [SimpleNamespace(fail_reason=None)])
    said = []
    for number in graphs:
        monkeypatch.setitem(utils.counters["stats"], "unique_graphs", number)
        assert KNOB.verify is not None
        said.append(str(KNOB.verify(pipe, DYNAMIC, {})))
    return said


def test_the_graphs_that_other_sizes_need_not_make_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verified(monkeypatch, 4, 5) == [
        "4 graphs for the first size",
        "7 graphs spared, of 8 that 2 more sizes would have: they made 1",
    ]


def test_sizes_that_are_compiled_anew_each_are_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verified(monkeypatch, 4, 12)[1] == "0 graphs spared, of 8 that 2 more sizes would have: they made 8"


def test_a_plain_script_allows_sizes_that_differ_later() -> None:
    script = find_knob("compile").script
    assert script is not None
    dynamic = script(DYNAMIC, make_target())
    assert dynamic.imports == ("import torch.fx.experimental._config",)
    assert dynamic.lines[0] == "torch.fx.experimental._config.use_duck_shape = False"
    assert "dynamic=True" in dynamic.lines[1]
    assert script(DYNAMIC.replace(compile_shapes="static"), make_target()).imports == ()
