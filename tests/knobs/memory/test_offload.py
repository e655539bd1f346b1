"""offload: weights wait in host memory. The hooks are accelerate's and diffusers'."""

import inspect

import pytest
import torch
from conftest import CPU, gpu, make_target
from diffusers import DiffusionPipeline
from diffusers.hooks.hooks import HookRegistry, ModelHook
from live import built, difference, loaded, picture

from autotune.footprint import Component
from autotune.knobs import complete, find_knob, footprint
from autotune.knobs.memory import _groups

KNOB = find_knob("offload")
CALL = {"num_inference_steps": 2, "width": 64, "height": 64}
OFFLOADS = ("model", "sequential", "group", "text_encoders")


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
        "text_encoders": None,
    }


def test_clash_of_streams_with_tiles() -> None:
    said = {v: KNOB.clash(complete({"vae_tiling": True, "offload": v}), make_target(gpu(8, 0))) for v in OFFLOADS}
    assert said == {
        "model": None,
        "sequential": None,
        "group": "group offloading prefetches layers in a fixed order, which VAE tiling breaks",
        "text_encoders": None,
    }


def test_text_encoders_alone_are_offloaded_and_all_else_is_moved_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer by layer, without the stream that needs a GPU: from the processor to the processor."""
    monkeypatch.setattr(_groups, "GROUPS", {"leaf": {"offload_type": "leaf_level"}})
    plain = picture(built()[0], **CALL)
    pipe = loaded()
    moved: list[str] = []
    for name in ("unet", "vae", "text_encoder"):
        part = getattr(pipe, name)
        monkeypatch.setattr(
            part, "to", lambda device, name=name, part=part: (moved.append(f"{name} {device}"), part)[1]
        )
    pipe, effects = built(pipe, offload="text_encoders")
    held = sum(p.numel() * p.element_size() for p in pipe.text_encoder.parameters())
    assert str(effects["offload"]) == f"1 text encoders offloaded to host memory, {held:,} bytes of weights"
    assert sorted(moved) == ["unet cpu", "vae cpu"]
    assert not [m for part in (pipe.unet, pipe.vae) for m in part.modules() if hasattr(m, "_diffusers_hook")]
    assert difference(picture(pipe, **CALL), plain) == 0


def test_text_encoders_in_8_bits_are_counted_as_they_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_groups, "GROUPS", {"leaf": {"offload_type": "leaf_level"}})
    whole, quantized = (
        {"offload": "text_encoders"} | more for more in ({}, {"quantize_text_encoder": "int8_weight_only"})
    )
    bytes_of = [built(**values)[1]["offload"].what.split(", ", 1)[1] for values in (whole, quantized)]
    numbers = [int(text.split()[0].replace(",", "")) for text in bytes_of]
    assert numbers[1] < numbers[0]


def test_the_script_offloads_the_same_models(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, asked = loaded(), {}
    monkeypatch.setattr(type(pipe), "enable_group_offload", lambda self, *_, **options: asked.update(options))
    assert KNOB.apply is not None
    assert KNOB.script is not None
    config = complete({"offload": "text_encoders"})
    assert KNOB.apply(pipe, config, "cuda:0").count == 0, "nothing was hooked"
    by_apply, asked = asked, {}
    exec("\n".join(KNOB.script(config, make_target(gpu(8, 0))).lines), {"pipe": pipe, "torch": torch})
    models = {name for name in asked["exclude_modules"] if isinstance(getattr(pipe, name), torch.nn.Module)}
    assert models == set(by_apply.pop("exclude_modules")) == {"unet", "vae"}
    assert by_apply.items() <= asked.items()


def test_compiled_denoisers_and_cuda_graphs_go_with_offloaded_text_encoders() -> None:
    target = make_target(gpu(8, 0))
    values = {"offload": "text_encoders", "compile": "denoiser+vae", "compile_mode": "reduce-overhead"}
    for name in ("offload", "compile", "compile_mode"):
        assert find_knob(name).clash(complete(values), target) is None
    for more in ({"compile": "everything"}, {"compile_encoders": "text_encoder+vae_encode"}):
        assert KNOB.clash(complete(values | more), target) == (
            "the hooks of offloading break the compiled graphs of the text encoders"
        )
    assert KNOB.clash(complete(values | {"compile_encoders": "vae_encode"}), target) is None
    assert KNOB.why_not("text_encoders", make_target(gpu(8, 0), text_encoders=())) == (
        "StableDiffusionPipeline has no text encoder"
    )


def test_the_footprint_without_the_text_encoders_holds_two_of_their_layers() -> None:
    encoder = Component(name="text_encoder", weights=5000, largest_layer=100)
    others = [Component(name=name, weights=1000, largest_layer=500) for name in ("unet", "vae")]
    target = make_target(gpu(8, 0), components=(encoder, *others))
    held = {v: footprint(complete({"offload": v}), target).resident_bytes for v in ("none", "text_encoders", "group")}
    assert held == {"none": 4 * 7000, "text_encoders": 4 * (2000 + 2 * 100), "group": 4 * 2 * 500}
