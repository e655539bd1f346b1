"""encoding: known prompts are drawn without text encoders, all others are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import gpu, make_target
from tiny_pipes import draw, tiny_pipe, tiny_workload

from autotune.building import build
from autotune.errors import UserError
from autotune.footprint import Component
from autotune.knobs import all_knobs, complete, find_knob, footprint
from autotune.pipelines import parts
from autotune.pipelines.adapters.encoding import words_of
from autotune.pipelines.rehearsal.rehearse import rehearse

KNOB = find_knob("encoding")
FAMILIES = ("StableDiffusionXLPipeline", "FluxPipeline", "StableDiffusionImg2ImgPipeline")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def weights(pipe: Any) -> int:
    return sum(p.numel() * p.element_size() for part in parts.text_encoders(pipe).values() for p in part.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_known_prompts_are_drawn_without_text_encoders(family: str, root: Path) -> None:
    plain, _ = tiny_pipe(family, root)
    pipe, effects = tiny_pipe(family, root, encoding="once")
    assert str(effects["encoding"]) == f"{weights(plain)} bytes of text encoders freed, after 3 calls of encode_prompt"
    assert weights(pipe) == 0
    assert np.array_equal(draw(pipe, family), draw(plain, family))


def test_the_probe_sees_that_words_alone_are_encoded_in_one_place(root: Path) -> None:
    pipe, _ = tiny_pipe("FluxPipeline", root)
    assert rehearse(pipe, tiny_workload("FluxPipeline"), until="given").encodes == {True}
    assert words_of({"prompt": ["a", "b"], "device": torch.device("cpu"), "scale": 1.5, "more": None})
    with pytest.raises(TypeError, match="a Tensor is no word"):
        words_of([torch.zeros(1)])


def test_batches_of_the_workload_and_single_prompts_are_known_and_no_others(root: Path) -> None:
    family = "StableDiffusionPipeline"
    plain, pipe = (tiny_pipe(family, root)[0] for _ in range(2))
    workload = tiny_workload(family, batch=2).model_copy(update={"negative_prompt": "blurred"})
    for one, how in ((plain, "each_call"), (pipe, "once")):
        build.apply(one, complete({"encoding": how}), workload, "cpu")
    for prompt in (["a red circle", "a blue star"], ["a green tree", "a red circle"], ["a blue star"], "a blue star"):
        seeds = [torch.Generator().manual_seed(0) for _ in (prompt if isinstance(prompt, list) else [prompt])]
        drawn = [
            one(prompt, generator=[g.clone_state() for g in seeds], output_type="np").images for one in (plain, pipe)
        ]
        assert np.array_equal(*drawn), prompt
    with pytest.raises(
        UserError, match=r"no text encoders any more \(encoding=once\), and 'a cat' is not among the 5 calls"
    ):
        pipe("a cat")


def test_a_pipe_with_offloaded_models_goes_without_text_encoders(root: Path) -> None:
    """It acts before `offload`, whose hooks find no weights in the text encoders."""
    assert list(all_knobs()).index("encoding") < list(all_knobs()).index("offload")
    plain, _ = tiny_pipe("StableDiffusionXLPipeline", root)
    pipe, effects = tiny_pipe("StableDiffusionXLPipeline", root, encoding="once", offload="model")
    assert effects["offload"].count >= 2
    assert np.array_equal(draw(pipe, "StableDiffusionXLPipeline"), draw(plain, "StableDiffusionXLPipeline"))


def test_where_it_is_not_possible() -> None:
    target = make_target(encodes_apart=True)
    assert KNOB.accepts("once")
    assert "once" not in KNOB.values
    assert KNOB.why_not("once", target) is None
    assert KNOB.why_not("once", make_target(text_encoders=())) == "StableDiffusionPipeline has no text encoder"
    assert "outside of encode_prompt" in str(KNOB.why_not("once", make_target(encodes_apart=False)))
    for setting, value in (("offload", "text_encoders"), ("compile", "everything")):
        said = KNOB.clash(complete({"encoding": "once", setting: value}), target)
        assert said == f"encoding=once drops the text encoders, and leaves none to {setting}"
    assert KNOB.clash(complete({"encoding": "once", "offload": "group"}), target) is None
    assert KNOB.undone_by("once", "save") == "has dropped the text encoders"


def test_the_text_encoders_weigh_nothing() -> None:
    models = [Component(name=name, weights=1000, largest_layer=10) for name in ("text_encoder", "unet", "vae")]
    target = make_target(gpu(8, 0), components=tuple(models))
    held = footprint(complete({"encoding": "once"}), target)
    assert held.resident_bytes == held.weights_bytes == 2 * 4000
