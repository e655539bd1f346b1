"""A LoRA is fused into the weights while loading: knobs that change weights keep it. A live one stops them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tiny_pipes import draw, tiny_pipe, tiny_pipeline, tiny_workload

from autotune.building import build
from autotune.config import Value
from autotune.errors import UserError
from autotune.knobs import complete
from autotune.pipeline import Preset
from autotune.pipelines import presets, resolve
from autotune.pipelines.loading import set_scheduler
from autotune.pipelines.locate import revisions
from autotune.production.plain_script import _more
from autotune.report.words import options

FAMILY = "StableDiffusionPipeline"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def lora(root: Path) -> Path:
    """A LoRA of random numbers for the UNet's attention, as diffusers saves one."""
    pipe, _ = tiny_pipe(FAMILY, root)
    torch.manual_seed(1)
    attention = ["to_q", "to_k", "to_v", "to_out.0"]
    pipe.unet.add_adapter(LoraConfig(r=4, init_lora_weights=False, target_modules=attention))
    StableDiffusionPipeline.save_lora_weights(root / "lora", unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    return root / "lora"


@pytest.fixture(scope="module")
def live(lora: Path, root: Path) -> Any:
    """A user's own pipe with the LoRA on it."""
    pipe, _ = tiny_pipe(FAMILY, root)
    pipe.load_lora_weights(lora)
    return pipe


def with_lora(lora: Path, root: Path, **values: Value) -> np.ndarray:
    config = complete(values)
    pipe = build.load(tiny_pipeline(FAMILY, root).model_copy(update={"lora": str(lora)}), config, "cpu")
    pipe.set_progress_bar_config(disable=True)
    build.apply(pipe, config, tiny_workload(FAMILY), "cpu")
    return draw(pipe, FAMILY)


def test_a_fused_lora_draws_what_the_live_one_draws(lora: Path, live: Any, root: Path) -> None:
    fused, reference = with_lora(lora, root), draw(live, FAMILY)
    assert np.abs(fused - reference).max() <= 1 / 255
    assert np.abs(fused - draw(tiny_pipe(FAMILY, root)[0], FAMILY)).max() > 0.03


def test_a_file_is_taken_as_its_folder_is(lora: Path, root: Path) -> None:
    [file] = lora.glob("*.safetensors")
    assert np.array_equal(with_lora(file, root), with_lora(lora, root))


@pytest.mark.parametrize(
    "values",
    [
        {"qkv_fusion": True},
        {"quantization": "int8_weight_only"},
        {"qkv_fusion": True, "conv1x1_as_linear": True, "quantization": "int8_weight_only"},
    ],
    ids=str,
)
def test_knobs_that_change_weights_keep_a_fused_lora(values: dict[str, Value], lora: Path, root: Path) -> None:
    assert np.abs(with_lora(lora, root, **values) - with_lora(lora, root)).max() < 0.01


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("qkv_fusion", True),
        ("conv1x1_as_linear", True),
        ("quantization", "int8_weight_only"),
        ("layerwise_casting", "float8_e4m3fn"),
    ],
)
def test_knobs_that_change_weights_refuse_a_live_lora(name: str, value: Value, live: Any) -> None:
    before = draw(live, FAMILY)
    with pytest.raises(UserError) as caught:
        build.apply(live, complete({name: value}), tiny_workload(FAMILY), "cpu")
    assert str(caught.value) == (
        f"{name}={value} would lose the LoRA that is on this pipe: fuse the LoRA first: "
        "pipe.fuse_lora(); pipe.unload_lora_weights()."
    )
    assert np.array_equal(draw(live, FAMILY), before)


def test_after_doing_what_it_says_they_accept_it(lora: Path, root: Path) -> None:
    pipe, _ = tiny_pipe(FAMILY, root)
    pipe.load_lora_weights(lora)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    effects = build.apply(pipe, complete({"qkv_fusion": True}), tiny_workload(FAMILY), "cpu")
    assert effects["qkv_fusion"].count > 0
    assert np.abs(draw(pipe, FAMILY) - with_lora(lora, root)).max() <= 1 / 255


def test_other_knobs_go_with_a_live_lora(live: Any) -> None:
    before = draw(live, FAMILY)
    build.apply(live, complete({"memory_format": "channels_last"}), tiny_workload(FAMILY), "cpu")
    assert np.abs(draw(live, FAMILY) - before).max() <= 1 / 255


def test_a_folder_that_is_no_lora_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        with_lora(tmp_path, root)
    assert str(caught.value).startswith(f"the LoRA {str(tmp_path)!r} is not one .safetensors file (none)")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def second(root: Path) -> Path:
    """Another LoRA of random numbers."""
    pipe, _ = tiny_pipe(FAMILY, root)
    torch.manual_seed(2)
    pipe.unet.add_adapter(LoraConfig(r=4, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    StableDiffusionPipeline.save_lora_weights(root / "second", unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    return root / "second"


@pytest.mark.filterwarnings("ignore:Already found a .peft_config.")  # of the live pipe's second LoRA
def test_several_loras_with_weights_draw_what_the_live_ones_draw(lora: Path, second: Path, root: Path) -> None:
    named = resolve(tiny_pipeline(FAMILY, root).name, lora=[f"{lora}:0.5", str(second)])
    assert named.loras == {"lora": (str(lora), 0.5), "lora_2": (str(second), 1.0)}
    assert revisions(named)["part_revisions"].keys() == {"lora", "lora_2"}
    fused = build.load(named, complete({}), "cpu")
    live, _ = tiny_pipe(FAMILY, root)
    for name, folder in (("one", lora), ("two", second)):
        live.load_lora_weights(folder, adapter_name=name)
    live.set_adapters(["one", "two"], [0.5, 1.0])
    fused.set_progress_bar_config(disable=True)
    build.apply(fused, complete({}), tiny_workload(FAMILY), "cpu")
    reference = draw(live, FAMILY)
    assert np.abs(draw(fused, FAMILY) - reference).max() <= 1 / 255
    assert np.abs(with_lora(lora, root) - reference).max() > 0.01


def test_a_lora_s_weight_is_a_number_and_no_lora_is_given_twice(lora: Path, root: Path) -> None:
    for words, message in (([f"{lora}:much"], "is a number such as 0.8"), ([str(lora)] * 2, "is given twice")):
        with pytest.raises(UserError, match=message):
            resolve(tiny_pipeline(FAMILY, root).name, lora=words)


ACCELERATED = [preset for preset in presets().values() if preset.lora is not None]


@pytest.mark.parametrize("preset", ACCELERATED, ids=lambda preset: preset.name)
def test_a_lora_for_few_steps_has_the_scheduler_and_the_guidance_that_it_needs(
    preset: Preset, lora: Path, root: Path
) -> None:
    """As a preset, and as a user's own LoRA with the same scheduler."""
    named, told = resolve(preset.name), [f"{name}={value}" for name, value in preset.scheduler_settings.items()]
    word = f"{preset.scheduler}:{','.join(told)}" if told else str(preset.scheduler)
    own = resolve(str(root / FAMILY), lora=str(lora), scheduler=word)
    assert (own.scheduler, own.scheduler_settings) == (named.scheduler, named.scheduler_settings)
    assert options(own) == ["--scheduler", word, "--lora", str(lora)]
    assert options(named) == []
    assert preset.guidance_scale <= 1.0
    pipe = build.load(own, complete({}), "cpu")
    assert type(pipe.scheduler).__name__ == preset.scheduler
    assert preset.scheduler_settings.items() <= dict(pipe.scheduler.config).items()
    pipe.set_progress_bar_config(disable=True)
    seen: list[int] = []
    pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(int(args[1])))
    work = tiny_workload(FAMILY, steps=preset.steps, guidance_scale=preset.guidance_scale)
    build.apply(pipe, complete({}), work, "cpu")
    pipe("a red circle", output_type="np")
    assert len(seen) == preset.steps <= 8
    assert seen[0] == 999 or not told, "from pure noise"
    made = f"{preset.scheduler}.from_config(pipe.scheduler.config"
    assert _more(named)[0].startswith(f"pipe.scheduler = {made}")
    assert all(f"{name}={value!r}" in _more(named)[0] for name, value in preset.scheduler_settings.items())


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a/b", "DPMSolverSinglestepScheduler:use_flow_sigmas=true,euler_at_final=false,flow_shift=3.0"),
        ("sdxl-lightning", "EulerDiscreteScheduler:timestep_spacing=leading"),
    ],
)
def test_a_printed_command_gives_the_same_scheduler_again(name: str, word: str) -> None:
    own = resolve(name, scheduler=word)
    assert options(own) == ["--scheduler", word]
    assert resolve(name, scheduler=options(own)[1]).scheduler_settings == own.scheduler_settings


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("tcd", "--scheduler takes the name of a diffusers class, such as TCDScheduler"),
        ("TCDScheduler:eta", "and settings after a colon"),
        ("TCDScheduler:eta=1e400", "and settings after a colon"),
        ("TCDScheduler:timestep_spacing=trail ing", "and settings after a colon"),
        ("TDCScheduler", "diffusers has no scheduler 'TDCScheduler': did you mean 'TCDScheduler'?"),
        ("TCDScheduler:timestep_spacin=trailing", "TCDScheduler has no setting 'timestep_spacin': did you mean"),
    ],
)
def test_a_scheduler_that_is_none_is_answered_with_the_nearest(word: str, says: str, root: Path) -> None:
    pipe, _ = tiny_pipe(FAMILY, root)
    with pytest.raises(UserError) as caught:
        set_scheduler(pipe, resolve(str(root / FAMILY), scheduler=word))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "word",
    [
        "FlowMatchHeunDiscreteScheduler",
        "DPMSolverSinglestepScheduler:use_flow_sigmas=true,prediction_type=flow_prediction,flow_shift=3.0",
    ],
)
def test_any_scheduler_of_flow_models_can_be_named(word: str, root: Path) -> None:
    family = "StableDiffusion3Pipeline"
    plain, pipe = (tiny_pipe(family, root)[0] for _ in range(2))
    set_scheduler(pipe, resolve(str(root / family), scheduler=word))
    difference = np.abs(draw(pipe, family, num_inference_steps=20) - draw(plain, family, num_inference_steps=20))
    assert 0 < difference.mean() < 0.02
