"""compile_encoders: the encoders are whole graphs, and offered where a call has something for them to encode."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import gpu, make_target
from tiny_pipes import draw, tiny_pipe, tiny_traits

from autotune.knobs import complete, find_knob
from autotune.knobs.compilation._encoders import _install_hooks, compile_them
from autotune.knobs.compilation._encoders import lines as encoder_lines

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
    text = BOTH.replace(compile_encoders="text_encoder")

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.append(type(graph).__name__)
        return graph.forward

    assert compile_them(pipe, BOTH, {"fullgraph": True, "dynamic": False, "backend": backend}, "cpu") == 2
    assert str(KNOB.verify(pipe, BOTH, {})) == "0 graphs made by calls of text_encoder and vae_encode", "before a call"
    pipe.text_encoder(torch.zeros((1, 4), dtype=torch.long))
    assert str(KNOB.verify(pipe, BOTH, {})) == "0 graphs made by calls of vae_encode", "which is a part of the value"
    assert str(KNOB.verify(pipe, text, {})) == "1 encoders compiled, in 1 graphs"
    assert np.abs(draw(pipe, FAMILY) - before).max() <= 1 / 255
    assert len(seen) == 3
    assert str(KNOB.verify(pipe, BOTH, {})) == "2 encoders compiled, in 3 graphs"


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


def test_an_encoder_that_is_quantized_on_the_device_follows_its_layers_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its linear layers lie there until the pipe is placed, and the compiled encoder is called before that."""
    encoder = torch.nn.Sequential(torch.nn.Embedding(4, 8), torch.nn.Linear(8, 8, device="meta"))
    moved: list[str] = []
    monkeypatch.setattr(encoder, "to", lambda device: moved.append(device))
    monkeypatch.setattr(encoder, "forward", lambda tokens, output_hidden_states: tokens)
    encoder.device = torch.device("cpu")
    _install_hooks(encoder, "cuda:0")
    assert moved == ["cuda:0"]
    encoder[1].to_empty(device="cpu")
    _install_hooks(encoder, "cuda:0")
    assert moved == ["cuda:0"], "one that lies in one place stays there"


def test_in_a_plain_script_too_the_rest_of_the_encoder_follows() -> None:
    config, traits = BOTH.replace(quantize_text_encoder="int4_weight_only"), {"text_encoders": ("text_encoder",)}
    lines = encoder_lines(config, make_target(gpu(8, 0), **traits), "")
    assert lines[0].startswith('pipe.text_encoder.to("cuda")')
    assert not any(".to(" in line for line in encoder_lines(config, make_target(**traits), ""))
