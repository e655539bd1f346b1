"""offload: weights wait in host memory. The hooks are accelerate's and diffusers'."""

import inspect

import pytest
import torch
from conftest import CPU, gpu, make_target
from diffusers import DiffusionPipeline
from diffusers.hooks.hooks import HookRegistry, ModelHook
from live import built, difference, loaded, picture

from autotune.knobs import complete, find_knob

KNOB = find_knob("offload")
OFFLOADS = ("model", "sequential", "group")


def test_model_offload_hooks_every_model_and_the_picture_stays() -> None:
    pipe, effects = built(offload="model")
    assert effects["offload"].count == 3
    assert {name for name, m in pipe.components.items() if hasattr(m, "_hf_hook")} == {"unet", "vae", "text_encoder"}
    assert difference(picture(pipe), picture(built()[0])) == 0


def test_sequential_offload_hooks_every_layer_and_takes_its_weights_away() -> None:
    """Called it can't be here: accelerate takes weights that come from the processor to the processor for tied ones."""
    pipe, effects = built(offload="sequential")
    assert effects["offload"].count == 3
    assert all(hasattr(m, "_hf_hook") for m in pipe.unet.modules() if isinstance(m, torch.nn.Linear))
    assert {p.device.type for p in pipe.unet.parameters()} == {"meta"}


def test_group_offload_asks_for_leaves_on_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream needs a GPU, so here the call is all that can be seen."""
    pipe, asked = loaded(), {}

    def hooked(self: DiffusionPipeline, *_: object, **options: object) -> None:
        asked.update(options)
        for part in (self.unet, self.vae, self.text_encoder):
            HookRegistry.check_if_exists_or_initialize(part).register_hook(ModelHook(), "group_offloading")

    monkeypatch.setattr(type(pipe), "enable_group_offload", hooked)
    assert KNOB.apply is not None
    assert KNOB.apply(pipe, complete({"offload": "group"}), "cuda:0").count == 3
    assert asked == {"offload_type": "leaf_level", "use_stream": True}
    assert {*asked} <= {*inspect.signature(DiffusionPipeline.enable_group_offload).parameters}


def test_offload_that_hooks_nothing_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = loaded()
    monkeypatch.setattr(type(pipe), "enable_model_cpu_offload", lambda self, **_: None)
    assert KNOB.apply is not None
    assert KNOB.apply(pipe, complete({"offload": "model"}), "cuda:0").count == 0


def test_an_offloaded_pipe_is_not_moved_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pipe.to` would undo model offload, and fail under sequential offload."""
    pipe = loaded()
    monkeypatch.setattr(type(pipe), "enable_model_cpu_offload", lambda self, **_: setattr(self.unet, "_hf_hook", 1))
    moves: list[object] = []
    monkeypatch.setattr(type(pipe), "to", lambda self, *args, **_: moves.append(args))
    built(pipe, offload="model")
    assert moves == []
    built(loaded())
    assert moves == [("cpu",)]


@pytest.mark.parametrize("value", OFFLOADS)
def test_it_is_refused_without_an_accelerator(value: str) -> None:
    assert KNOB.why_not(value, make_target(CPU)) == "needs a GPU to offload from"
    assert KNOB.why_not(value, make_target(gpu(7, 0))) is None


@pytest.mark.parametrize("compile", ["regional", "denoiser", "denoiser+vae"])
def test_clash_of_hooks_in_every_layer_with_compiled_graphs(compile: str) -> None:
    said = {v: KNOB.clash(complete({"compile": compile, "offload": v}), make_target(gpu(8, 0))) for v in OFFLOADS}
    assert said == {
        "model": None,
        "sequential": "the hooks of sequential offloading break compiled graphs",
        "group": "the hooks of group offloading break compiled graphs",
    }


def test_clash_of_streams_with_tiles() -> None:
    said = {v: KNOB.clash(complete({"vae_tiling": True, "offload": v}), make_target(gpu(8, 0))) for v in OFFLOADS}
    assert said == {
        "model": None,
        "sequential": None,
        "group": "group offloading prefetches layers in a fixed order, which VAE tiling breaks",
    }
