"""group_offload: diffusers is asked for what the value says, on fakes of the moving: no GPU was seen."""

import inspect
from typing import Any

import pytest
from conftest import CPU, gpu, make_target
from diffusers import DiffusionPipeline
from diffusers.hooks import HookRegistry, ModelHook
from live import loaded

from autotune.knobs import complete, find_knob, footprint
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
