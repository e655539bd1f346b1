"""group_offload: diffusers is asked for what the value says, on fakes of the moving: no GPU was seen."""

import gc
import inspect
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from conftest import CPU, gpu, make_target
from diffusers import DiffusionPipeline
from diffusers.hooks import HookRegistry, ModelHook
from live import loaded
from tiny import FAMILIES
from tiny_pipes import draw

from autotune.knobs import complete, find_knob, footprint
from autotune.knobs.memory import _groups
from autotune.knobs.memory._groups import GROUPS

KNOB, OFFLOAD = find_knob("group_offload"), find_knob("offload")


@pytest.mark.parametrize("value", KNOB.values)
def test_diffusers_is_asked_for_these_groups_by_the_pipe_and_by_the_script(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, asked = loaded(), {}

    def hooked(self: Any, onload_device: Any, **arguments: Any) -> None:
        asked.update(arguments)
        registry = HookRegistry.check_if_exists_or_initialize(self.unet)
        if registry.get_hook("group_offloading") is None:
            registry.register_hook(ModelHook(), "group_offloading")

    monkeypatch.setattr(type(pipe), "enable_group_offload", hooked)
    assert OFFLOAD.apply is not None
    assert OFFLOAD.script is not None
    config = complete({"offload": "group", "group_offload": value})
    assert OFFLOAD.apply(pipe, config, "cuda:0").count == 1
    assert asked == dict(GROUPS[value])
    assert set(asked) <= set(inspect.signature(DiffusionPipeline.enable_group_offload).parameters)
    asked.clear()
    [line] = OFFLOAD.script(config, make_target(gpu(8, 0))).lines
    exec(line, {"pipe": pipe, "torch": __import__("torch")})
    assert asked == dict(GROUPS[value])


def test_blocks_are_prefetched_whole_where_diffusers_needs_one_at_a_time() -> None:
    """diffusers' rule: with a stream, one block is a group."""
    blocks = [how for how in GROUPS.values() if how["offload_type"] == "block_level"]
    assert [how["num_blocks_per_group"] for how in blocks] == [1]


def test_it_is_offered_with_group_offloading_on_a_card_with_streams() -> None:
    assert KNOB.why_not("blocks", make_target(CPU)) == "prefetches on a CUDA stream, which needs an NVIDIA GPU"
    assert KNOB.why_not("blocks", make_target(gpu(8, 0))) is None
    said = KNOB.clash(complete({"offload": "model", "group_offload": "blocks"}), make_target(gpu(8, 0)))
    assert said == "group_offload says how offload=group moves weights, and offload=model reads none of it"
    assert KNOB.clash(complete({"offload": "group", "group_offload": "blocks"}), make_target(gpu(8, 0))) is None


def test_a_block_is_predicted_as_no_larger_than_its_model() -> None:
    target = make_target(gpu(8, 0))
    both = [footprint(complete({"offload": "group", "group_offload": v}), target) for v in ("leaf", "blocks")]
    model = footprint(complete({"offload": "model"}), target)
    assert both[0].resident_bytes <= both[1].resident_bytes == model.resident_bytes


def test_each_model_has_files_of_its_own_and_they_are_removed_with_the_pipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """diffusers takes a file that is there for its own: two text encoders with layers of equal names would be one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(_groups, "LEAF", {"offload_type": "leaf_level"})
    plain = FAMILIES["StableDiffusionXLPipeline"]()
    pipe = diffusers.StableDiffusionXLPipeline(**plain)
    pipe.set_progress_bar_config(disable=True)
    drawn = []
    for how in (None, "leaf_disk"):
        if how is not None:
            config = complete({"offload": "text_encoders", "group_offload": how})
            assert OFFLOAD.apply is not None
            assert OFFLOAD.apply(pipe, config, "cpu").count == 2
        drawn.append(draw(pipe, "StableDiffusionXLPipeline", num_inference_steps=1))
    [folder] = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["text_encoder", "text_encoder_2"]
    assert np.array_equal(drawn[0], drawn[1])
    del pipe, plain
    gc.collect()
    assert not folder.exists()


def test_files_are_for_weights_that_can_be_written_and_only_where_they_are_asked_for() -> None:
    assert KNOB.accepts("leaf_disk")
    assert "leaf_disk" not in KNOB.values
    values = {"offload": "text_encoders", "group_offload": "leaf_disk", "quantize_text_encoder": "int8_weight_only"}
    assert KNOB.clash(complete(values), make_target(gpu(8, 0))) == (
        "weights of quantize_text_encoder=int8_weight_only can't be written to the files of group_offload=leaf_disk"
    )
    others = values | {"quantize_text_encoder": "none", "quantization": "int8_weight_only"}
    assert KNOB.clash(complete(others), make_target(gpu(8, 0))) is None
    assert KNOB.clash(complete(others | {"offload": "group"}), make_target(gpu(8, 0))) is not None
    assert OFFLOAD.script is not None
    assert "folder of its own" in str(OFFLOAD.script(complete(others), make_target(gpu(8, 0))).why_not)
