"""Loading: pretrained weights as safetensors only, random ones in the format asked for, a sentence where none are."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from live import configurations, configured, difference, picture
from safetensors.torch import load_file

from autotune import demo
from autotune.errors import UserError
from autotune.pipeline import Pipeline
from autotune.pipelines import resolve
from autotune.pipelines.classes import pipeline_class
from autotune.pipelines.loading import load
from autotune.pipelines.locate import ARCHITECTURES, folder_of, revision_of, scorer_folder
from autotune.pipelines.random_weights import assemble

CALL = {"num_inference_steps": 2, "width": 64, "height": 64}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return configurations(tmp_path / "tiny")


def models(pipe: Any) -> dict[str, torch.nn.Module]:
    return {name: m for name, m in pipe.components.items() if isinstance(m, torch.nn.Module)}


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_weights_have_the_format_asked_for_and_draw_a_finite_picture(tiny: Path, dtype: torch.dtype) -> None:
    pipe = quiet(assemble(configured(tiny), dtype=dtype, device="cpu"))
    assert {p.dtype for m in models(pipe).values() for p in m.parameters()} == {dtype}
    assert not any(m.training for m in models(pipe).values())
    assert not any(p.requires_grad for m in models(pipe).values() for p in m.parameters())
    pixels = picture(pipe, **CALL)
    assert pixels.shape == (1, 64, 64, 3)
    assert difference(pixels, pixels.mean()) > 0.01  # finite, and not flat


def test_random_weights_are_the_same_in_every_process(tiny: Path) -> None:
    one, other = (assemble(configured(tiny), dtype=torch.float32, device="cpu") for _ in range(2))
    for name, model in models(one).items():
        theirs = models(other)[name].state_dict()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in model.state_dict().items())
    assert difference(picture(quiet(one), **CALL), picture(quiet(other), **CALL)) == 0


def test_random_weights_do_not_touch_the_random_numbers_of_the_process(tiny: Path) -> None:
    before = torch.get_rng_state()
    assemble(configured(tiny), dtype=torch.float32, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_random_weights_have_the_architecture_of_the_real_ones(tiny: Path) -> None:
    made = models(assemble(configured(tiny), dtype=torch.float32, device="cpu"))
    for name, model in made.items():
        [weights] = (demo.PIPELINE / name).glob("*.safetensors")
        shapes = {key: tensor.shape for key, tensor in load_file(weights).items()}
        assert {key: tensor.shape for key, tensor in model.state_dict().items()} == shapes


def test_a_missing_vocabulary_is_the_demos_cut_to_the_text_encoders_context(tiny: Path) -> None:
    assert not (tiny / "tokenizer").exists()
    config = json.loads((tiny / "text_encoder" / "config.json").read_text())
    (tiny / "text_encoder" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 33}))
    assert assemble(configured(tiny), dtype=torch.float32, device="meta").tokenizer.model_max_length == 33


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_the_shipped_architectures_can_be_assembled_whole(name: str) -> None:
    folder = ARCHITECTURES / name
    index = json.loads((folder / "model_index.json").read_text())
    pipe = assemble(configured(folder), dtype=torch.float32, device="meta")
    assert type(pipe).__name__ == index["_class_name"]
    wanted = {key for key, spec in index.items() if isinstance(spec, list) and spec[0] is not None}
    assert {key for key, part in pipe.components.items() if part is not None} == wanted


def test_random_weights_of_a_preset_need_no_download() -> None:
    assert folder_of(resolve("sdxl", "random")) == ARCHITECTURES / "sdxl"
    pipe = load(resolve("sd15", "random"), dtype=torch.float32, device="meta")
    assert {p.device.type for p in pipe.unet.parameters()} == {"meta"}


def test_a_local_folder_is_loaded_as_the_demo_is(tmp_path: Path) -> None:
    shutil.copytree(demo.PIPELINE, tmp_path / "copy")
    here, there = (
        quiet(load(resolve(word), dtype=torch.float32, device="cpu")) for word in ("demo", str(tmp_path / "copy"))
    )
    assert difference(picture(here, **CALL), picture(there, **CALL)) == 0
    assert {p.dtype for m in models(there).values() for p in m.parameters()} == {torch.float32}


@pytest.mark.parametrize("parts", [("unet",), ("text_encoder",), ("unet", "vae", "text_encoder")])
def test_weights_that_are_pickles_are_refused_and_never_opened(tmp_path: Path, parts: tuple[str, ...]) -> None:
    folder, opened = tmp_path / "pickled", tmp_path / "opened"
    shutil.copytree(demo.PIPELINE, folder)
    names = {"text_encoder": "pytorch_model.bin"}
    for part in parts:
        [weights] = (folder / part).glob("*.safetensors")
        pickled = folder / part / names.get(part, "diffusion_pytorch_model.bin")
        torch.save({**load_file(weights), "trap": Trap(str(opened))}, pickled)
        weights.unlink()
    with pytest.raises(UserError) as caught:
        load(resolve(str(folder)), dtype=torch.float32, device="cpu")
    assert str(caught.value).startswith(f"{str(folder.resolve())!r} can't be loaded: ")
    assert "\n" not in str(caught.value)
    assert not opened.exists()


class Trap:
    """Whoever unpickles this leaves a file behind."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


def test_a_folder_whose_weights_are_gone_is_refused(tiny: Path) -> None:
    shutil.copytree(demo.PIPELINE / "tokenizer", tiny / "tokenizer")
    with pytest.raises(UserError, match="can't be loaded"):
        load(resolve(str(tiny)), dtype=torch.float32, device="cpu")


def test_a_folder_that_is_gone_is_refused(tmp_path: Path) -> None:
    gone = Pipeline(name="gone", source=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"the pipeline's folder '.*gone' does not exist\."):
        load(gone, dtype=torch.float32, device="cpu")


OFFLINE = """
import sys, torch
from autotune.errors import UserError
from autotune.pipelines import resolve
from autotune.pipelines.loading import load
from autotune.pipelines.locate import scorer_folder
for word in ("nobody/nothing", "sdxl"):
    try:
        load(resolve(word), dtype=torch.float32, device="cpu")
    except UserError as error:
        print(error)
try:
    scorer_folder("nobody/clip")
except UserError as error:
    print(error)
"""


def test_without_a_network_the_way_to_download_is_named(tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    hub, preset, scorer = done.stdout.splitlines()
    assert hub.startswith("the weights of nobody/nothing are not on this disk and can't be downloaded (")
    assert "run `hf download nobody/nothing` where there is a network, or give a local folder." in hub
    assert "run `hf download stabilityai/stable-diffusion-xl-base-1.0` where there is a network" in preset
    assert preset.endswith("or give a local folder or --weights random.")
    assert "run `hf download nobody/clip` where there is a network" in scorer


def test_the_demos_scorer_is_on_this_disk() -> None:
    assert scorer_folder("demo") == demo.CLIP


def test_a_folders_revision_follows_its_files(tmp_path: Path) -> None:
    one, copy = configurations(tmp_path / "one"), configurations(tmp_path / "copy")
    assert revision_of(one) == revision_of(copy)
    assert revision_of(one).startswith("files-")
    (copy / "unet" / "more.txt").write_text("x")
    assert revision_of(one) != revision_of(copy)


def test_a_snapshots_revision_is_the_hubs_commit(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b" / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    assert revision_of(folder) == "0123abcd"


def class_for(folder: Path, name: str, **asked: Any) -> str:
    """The class that is built of a checkpoint of the class `name`."""
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
    cls: str = pipeline_class(Pipeline(name="x", source=str(folder), **asked), folder).__name__
    return cls


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("StableDiffusionPipeline", {}, "StableDiffusionPipeline"),
        ("StableDiffusionPipeline", {"task": "image2image"}, "StableDiffusionImg2ImgPipeline"),
        ("StableDiffusionPipeline", {"task": "inpainting"}, "StableDiffusionInpaintPipeline"),
        ("StableDiffusionPipeline", {"controlnet": "a/b"}, "StableDiffusionControlNetPipeline"),
        ("StableDiffusionInpaintPipeline", {"controlnet": "a/b"}, "StableDiffusionControlNetInpaintPipeline"),
        (
            "StableDiffusionXLPipeline",
            {"controlnet": "a/b", "task": "image2image"},
            "StableDiffusionXLControlNetImg2ImgPipeline",
        ),
        ("FluxPipeline", {"task": "image2image"}, "FluxImg2ImgPipeline"),
    ],
)
def test_a_task_and_a_controlnet_choose_the_sister_of_the_checkpoints_class(
    tmp_path: Path, name: str, asked: dict[str, Any], expected: str
) -> None:
    assert class_for(tmp_path, name, **asked) == expected


@pytest.mark.parametrize(
    ("name", "asked", "says"),
    [
        ("PixArtSigmaPipeline", {"task": "image2image"}, "diffusers has no image2image pipeline for PixArtSigma"),
        ("IFPipeline", {"controlnet": "a/b"}, "diffusers has no text2image pipeline with a ControlNet for IFPipeline"),
        ("FluxPipeline", {"controlnet": "a/b"}, "FluxControlNetPipeline takes a ControlNet of another kind"),
    ],
)
def test_a_sister_that_diffusers_lacks_or_that_can_not_be_fed_is_refused(
    tmp_path: Path, name: str, asked: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        class_for(tmp_path, name, **asked)
