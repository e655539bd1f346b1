"""compile=trace: torch.jit.trace draws the eager picture, once recorded for each size, and warns nobody."""

from pathlib import Path

import numpy as np
import pytest
from conftest import make_target
from tiny_pipes import draw, tiny_pipe, tiny_traits

from autotune.building import build
from autotune.building.build import NoEffect
from autotune.knobs import complete, find_knob
from autotune.knobs.compilation._trace import traced_graphs

KNOB = find_knob("compile")
TRACED = complete({"compile": "trace"})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.mark.parametrize(
    "family",
    [
        "StableDiffusionPipeline",
        "StableDiffusionXLPipeline",  # more arguments come in a dict
        "StableDiffusionControlNetPipeline",  # and in lists
        "StableDiffusionUpscalePipeline",
        "IFPipeline",
    ],
)
def test_a_traced_unet_draws_the_eager_picture(family: str, root: Path) -> None:
    pipe, effects = tiny_pipe(family, root, compile="trace")
    assert str(effects["compile"]) == "1 models to trace"
    with pytest.raises(NoEffect, match="compile=trace had no effect here: 0 graphs traced"):
        build.verify(pipe, TRACED, {})
    eager = draw(tiny_pipe(family, root)[0], family)
    assert np.abs(draw(pipe, family) - eager).max() <= 1 / 255
    assert str(build.verify(pipe, TRACED, {})["compile"]) == "1 graphs traced (deprecated in torch)"


def test_steps_share_a_recording_and_another_size_has_its_own(root: Path) -> None:
    family = "StableDiffusionPipeline"
    pipe, _ = tiny_pipe(family, root, compile="trace")
    plain, _ = tiny_pipe(family, root)
    for call, graphs in (({"num_inference_steps": 6}, 1), ({"width": 48}, 2), ({"width": 32}, 2)):
        assert np.abs(draw(pipe, family, **call) - draw(plain, family, **call)).max() <= 1 / 255
        assert traced_graphs(pipe.unet) == graphs


def test_it_is_offered_by_name_only() -> None:
    assert KNOB.accepts("trace")
    assert "trace" not in KNOB.values


@pytest.mark.parametrize("family", ["FluxPipeline", "PixArtSigmaPipeline"])
def test_transformers_refuse_it(family: str, root: Path) -> None:
    traits = tiny_traits(family, root)
    said = KNOB.why_not("trace", make_target(**traits.model_dump()))
    assert said == f"torch.jit.trace is supported for UNets, not for {traits.denoiser_class}"
    assert KNOB.why_not("trace", make_target()) is None


@pytest.mark.parametrize("values", [{"offload": "model"}, {"quantization": "int8_weight_only"}], ids=str)
def test_clash_with_hooks_and_with_quantized_weights(values: dict[str, str]) -> None:
    said = KNOB.clash(complete({"compile": "trace", **values}), make_target())
    assert said == "torch.jit.trace does not support the hooks of offloading or quantized weights"
    assert KNOB.clash(TRACED, make_target()) is None
