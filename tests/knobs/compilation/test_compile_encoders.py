"""compile_encoders: the encoders are whole graphs, and offered where a call has something for them to encode."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import gpu, make_target
from tiny_pipes import draw, tiny_pipe, tiny_traits

from autotune.knobs import complete, find_knob
from autotune.knobs.compilation._encoders import compile_them

KNOB, MODE = find_knob("compile_encoders"), find_knob("compile_mode")
FAMILY = "StableDiffusionImg2ImgPipeline"
BOTH = complete({"compile": "regional", "compile_encoders": "text_encoder+vae_encode"})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def test_both_are_whole_graphs_that_draw_the_same_picture(root: Path) -> None:
    pipe, _ = tiny_pipe(FAMILY, root)
    before = draw(pipe, FAMILY)
    assert KNOB.verify is not None
    assert KNOB.verify(pipe, BOTH, {}).count == 0
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.append(type(graph).__name__)
        return graph.forward

    assert compile_them(pipe, BOTH, {"fullgraph": True, "dynamic": False, "backend": backend}) == 2
    assert np.abs(draw(pipe, FAMILY) - before).max() <= 1 / 255
    assert len(seen) == 2
    assert str(KNOB.verify(pipe, BOTH, {})) == "2 encoders compiled"


def test_a_call_shows_whether_the_vae_encodes(root: Path) -> None:
    edits, draws = tiny_traits(FAMILY, root), tiny_traits("StableDiffusionPipeline", root)
    assert (edits.vae_encodes, draws.vae_encodes) == (True, False)
    said = "the VAE of StableDiffusionPipeline encodes no picture in a call"
    for value in ("vae_encode", "text_encoder+vae_encode"):
        assert KNOB.why_not(value, make_target(**draws.model_dump())) == said
        assert KNOB.why_not(value, make_target(**edits.model_dump())) is None
    assert KNOB.why_not("text_encoder", make_target(text_encoders=())) == "StableDiffusionPipeline has no text encoder"


def test_what_everything_compiles_is_not_compiled_twice() -> None:
    config = BOTH.replace(compile="everything")
    assert KNOB.clash(config, make_target()) == "compile=everything compiles the text encoders already"
    assert KNOB.clash(config.replace(compile_encoders="vae_encode"), make_target()) is None
    assert KNOB.clash(config.replace(compile="trace"), make_target()) == "torch.jit.trace is for the denoiser alone"
    assert KNOB.clash(BOTH, make_target()) is None


def test_no_cuda_graph_holds_a_vae_that_is_cast_at_every_call() -> None:
    target = make_target(gpu(8, 0), vae_upcasts_fp16=True, vae_encodes=True)
    config = BOTH.replace(compile="denoiser", compile_mode="reduce-overhead", dtype="fp16")
    assert "its CUDA graph would be recorded at every call" in str(MODE.clash(config, target))
    assert MODE.clash(config.replace(compile_encoders="text_encoder"), target) is None


def test_a_plain_script_compiles_them() -> None:
    script = find_knob("compile").script
    assert script is not None
    lines = script(BOTH, make_target(text_encoders=("text_encoder",), vae_encodes=True)).lines
    assert lines[-2:] == (
        "pipe.text_encoder.compile(fullgraph=True, dynamic=False)",
        "pipe.vae.encode = torch.compile(pipe.vae.encode, fullgraph=True, dynamic=False)",
    )
