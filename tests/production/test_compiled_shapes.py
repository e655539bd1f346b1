"""A compiled pipe takes any number of sizes: some compile, further ones run as they are, and it is logged once."""

import functools
from typing import Any

import pytest
import torch
from conftest import logged_warnings, make_target
from tiny import WIDTH, unet

from autotune.building import build
from autotune.knobs import complete
from autotune.knobs.compilation import _trace
from autotune.production import compiled_shapes, serving
from autotune.production.compiled_shapes import MORE


class Pipe:
    """A stand-in for a pipe: one compiled function of a picture, whose graph must be whole."""

    components: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, compiled: Any) -> None:
        self.compiled, self.captured = compiled, 0

    def __call__(self, prompt: str | list[str], *, width: int = 64, height: int = 64, guidance_scale: float = 1) -> Any:
        batch = len(prompt) if isinstance(prompt, list) else 1
        return self.compiled(torch.ones(batch * (2 if guidance_scale > 1 else 1), height, width))


@pytest.fixture
def pipe() -> Any:
    torch._dynamo.reset()
    pipe = Pipe(None)

    def backend(graph: Any, inputs: Any) -> Any:
        pipe.captured += 1
        return graph

    pipe.compiled = torch.compile(functools.partial(torch.mul, 2), backend=backend, fullgraph=True, dynamic=False)
    return pipe


def served(pipe: Any) -> Any:
    """The pipe as autotune.load() returns it."""
    target = make_target()
    build.set_call_defaults(pipe, {"width": 64, "height": 64})
    serving.serve(pipe, complete({}), target.workload, thread_safe=False)
    return pipe


def test_twenty_sizes_three_batches_with_and_without_guidance(pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    """120 calls. torch's own limit of 8 graphs would raise FailOnRecompileLimitHit."""
    tuned = served(pipe)
    for width in range(64, 64 + 20 * 8, 8):
        for batch in (1, 2, 3):
            for scale in (1.0, 4.0):
                picture = tuned(["a"] * batch, width=width, guidance_scale=scale)
                assert picture.shape == (batch * (2 if scale > 1 else 1), 64, width)
                assert bool((picture == 2).all())
    assert pipe.captured == MORE + 1, "one for each call that may compile"
    assert len([said for said in logged_warnings(caplog) if "further ones run uncompiled" in said]) == 1


def test_sizes_that_are_compiled_stay_compiled(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_shapes, "MORE", 0)
    ran: list[tuple[int, ...]] = []

    def backend(graph: Any, inputs: Any) -> Any:
        return lambda *args: ran.append(args[0].shape) or graph(*args)

    pipe.compiled = torch.compile(functools.partial(torch.mul, 2), backend=backend, fullgraph=True, dynamic=False)
    tuned = served(pipe)
    for width in (64, 72, 64):
        tuned("a", width=width)
    assert [shape[-1] for shape in ran] == [64, 64]


def test_other_code_of_the_process_compiles_as_before(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits and the stance hold during the pipe's own calls only, also where a call fails."""
    monkeypatch.setattr(compiled_shapes, "MORE", -1)
    before = torch._dynamo.config.recompile_limit
    tuned = served(pipe)
    with pytest.raises(RuntimeError, match="negative dimension"):
        tuned("a", width=-8)
    tuned("a")
    assert pipe.captured == 0
    assert torch._dynamo.config.recompile_limit == before
    pipe.compiled(torch.ones(1))
    assert pipe.captured == 1


def test_a_traced_denoiser_keeps_a_bounded_number_of_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trace, "MOST_GRAPHS", 1)
    model = unet(4).eval()
    arguments = [(torch.ones(1, 4, side, side), 10, torch.ones(1, 5, WIDTH)) for side in (8, 16)]
    with torch.no_grad():
        expected = [model(*given).sample for given in arguments]
        _trace.trace_on_first_call(model)
        found = [model(*given).sample for given in arguments]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    assert _trace.traced_graphs(model) == 1
