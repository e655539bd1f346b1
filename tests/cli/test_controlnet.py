"""ControlNets on top of a checkpoint, from the command line to production; and pictures that a user starts from."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image
from searches import command_here
from tiny import tiny_checkpoint, unet

import autotune
from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution import fork_client
from autotune.execution.probe import probe
from autotune.knobs import all_knobs
from autotune.pipelines import resolve
from autotune.pipelines.pictures import edges
from autotune.production.tuned_config import TunedConfig
from autotune.workload import Prompts, WorkloadRequest

ONLY_DTYPE = [word for name in all_knobs() if name != "dtype" for word in ("--exclude", name)]
CANARY = "hf_canary0123456789"
SHORT = ["--steps", "2", "--size", "32x32", "--budget", "2", "--confirm-rounds", "0", "--scorer", "none"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, two ControlNets for it, and what a search needs."""
    folder = tmp_path_factory.mktemp("controlnet")
    tiny_checkpoint("StableDiffusionPipeline", folder / "checkpoint")
    for seed, name in enumerate(("control", "other")):
        torch.manual_seed(seed)
        control = ControlNetModel.from_unet(unet(4), conditioning_embedding_out_channels=(8, 16))
        for weight in control.controlnet_mid_block.parameters():  # zero, so that an untrained one changes nothing
            torch.nn.init.normal_(weight)
        control.save_pretrained(folder / name)
    (folder / "prompts.txt").write_text("a red circle\na blue star\n")
    Image.new("RGBA", (48, 40), "red").save(folder / "mine.png")
    return folder


@pytest.fixture(scope="module")
def searched(here: Path) -> str:
    """What a search of the checkpoint with both ControlNets printed."""
    files = ["--prompts", here / "prompts.txt", "--study", here / "study", "--max-quality-drop", "999"]
    pipeline = ["--pipeline", here / "checkpoint", "--device", "cpu"]
    pipeline += ["--controlnet", f"{here / 'control'}:0.7", "--controlnet", here / "other"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fork_client, "READ_LATE", fork_client.READ_LATE | {"HF_TOKEN"})  # the hub's library reads it late
        patch.setenv("HF_TOKEN", CANARY)
        done = command_here("search", *pipeline, *SHORT, *ONLY_DTYPE, *files)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("children_are_forked")
def test_a_task_makes_its_sister_pipeline_of_a_checkpoint(here: Path, tmp_path: Path) -> None:
    asked = resolve(str(here / "checkpoint"), task="image2image").model_copy(update={"scorer": None})
    known = probe(
        tmp_path / "probe", asked, find_device("cpu"), WorkloadRequest(prompts=Prompts(texts=("a red circle",)))
    ).pipeline.known
    assert known.class_name == "StableDiffusionImg2ImgPipeline"
    assert known.inputs == {"image": "photo"}


def test_nothing_that_a_search_writes_or_prints_has_the_users_token(here: Path, searched: str) -> None:
    """Logs, JSON, the report, the database, pictures."""
    files = [path for path in (here / "study").rglob("*") if path.is_file()]
    assert {".txt", ".json", ".html", ".md", ".db", ".png"} <= {path.suffix for path in files}
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in searched


def test_a_search_with_a_controlnet_says_what_it_starts_from(searched: str) -> None:
    assert "(StableDiffusionControlNetPipeline)" in searched.splitlines()[0]
    assert searched.splitlines()[1] == "starts from pictures made by autotune (edges)"


def test_its_export_has_every_controlnet_with_its_files_and_its_weight(here: Path, searched: str) -> None:
    tuned = TunedConfig.load(here / "study" / "best.json")
    sources = {"controlnet": (str(here / "control"), 0.7), "controlnet_2": (str(here / "other"), 1.0)}
    assert tuned.pipeline.controlnets == sources
    digests = {tuned.pipeline.part_revisions[name] for name in sources}
    assert len([digest for digest in digests if digest.startswith("files-")]) == 2
    assert tuned.workload.call == {"controlnet_conditioning_scale": [0.7, 1.0]}
    assert tuned.inputs == {"image": "edges"}
    [part] = [part for part in tuned.pipeline.known.components if part.name == "controlnet"]
    assert part.stored["F32"] == part.weights, "of both, in the files and in the model"


@pytest.fixture(scope="module")
def pictures(here: Path) -> list[Image.Image]:
    """The control pictures of a call, which lie where the script looks for them."""
    made = [edges(number, 32, 32) for number in (1, 2)]
    for name, picture in zip(("image", "image_2"), made, strict=True):
        picture.save(here / f"{name}.png")
    return made


def test_load_the_plain_script_and_diffusers_draw_the_same(
    here: Path, searched: str, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline, so that all is in float32."""
    for kind, name in (("json", "baseline.json"), ("python", "baseline.py")):
        done = command_here("export", here / "study", "--pick", "0", "--as", kind, "-o", here / name)
        assert done.returncode == 0, done.stderr
    how = {"num_inference_steps": 2, "width": 32, "height": 32, "output_type": "np"}

    def draw(pipe: Any, **more: Any) -> Any:
        pipe.set_progress_bar_config(disable=True)
        generator = [torch.Generator().manual_seed(7)]
        return pipe(["a red circle"], image=list(pictures), generator=generator, **how, **more).images[0]

    nets = [ControlNetModel.from_pretrained(here / name) for name in ("control", "other")]
    plain = StableDiffusionControlNetPipeline.from_pretrained(here / "checkpoint", controlnet=nets)
    expected = draw(plain, controlnet_conditioning_scale=[0.7, 1.0])
    assert abs(draw(plain, controlnet_conditioning_scale=[0.7, 0.0]) - expected).max() > 0.01, "the second one acts"
    loaded = autotune.load(here / "baseline.json")
    assert abs(draw(loaded) - expected).max() == 0
    monkeypatch.chdir(here)
    script = runpy.run_path(str(here / "baseline.py"))
    script["pipe"].set_progress_bar_config(disable=True)
    assert abs(np.asarray(script["draw"](["a red circle"], [7])[0]) / 255 - expected).max() < 0.01


def test_run_takes_a_picture_for_each_controlnet_and_says_that_it_was_resized(here: Path, searched: str) -> None:
    words = ["run", here / "study" / "best.json", "--prompt", "a red circle", "-o", here / "mine-out.png"]
    done = command_here(*words, "--image", here / "mine.png", "--image", here / "mine.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("; image resized from 48x40 to 32x32")
    with Image.open(here / "mine-out.png") as picture:
        assert picture.size == (32, 32)
    done = command_here(*words, "--image", here / "mine.png")
    assert done.returncode == 2
    assert done.stderr == (
        "autotune: --image is given once: StableDiffusionControlNetPipeline starts from 2 pictures, one for each "
        "ControlNet in their order.\n"
    )


def test_run_says_where_it_starts_from_a_picture_of_ours(here: Path, searched: str) -> None:
    done = command_here("run", here / "study/best.json", "--prompt", "a red circle", "-o", here / "ours-out.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("; started from pictures made by autotune (edges)")
    assert done.stdout.count("\n") == 1


def test_a_study_knows_when_the_files_of_any_of_its_controlnets_were_replaced(here: Path, searched: str) -> None:
    words = ["search", "--pipeline", here / "checkpoint", *SHORT, *ONLY_DTYPE, "--prompts", here / "prompts.txt"]
    words += ["--controlnet", f"{here / 'control'}:0.7", "--controlnet", here / "other", "--device", "cpu"]
    words += ["--study", here / "study", "--max-quality-drop", "999"]
    configuration = here / "other" / "config.json"
    before = configuration.read_text()
    configuration.write_text(f"{before} ")
    try:
        done = command_here(*words)
        with pytest.raises(UserError, match=f"the files of {here / 'other'} are not those that were measured"):
            autotune.load(here / "study" / "best.json", strict=True)
    finally:
        configuration.write_text(before)
    assert done.returncode == 2
    assert "part_revisions" in done.stderr
    words[words.index(f"{here / 'control'}:0.7")] = f"{here / 'control'}:0.5"
    done = command_here(*words)
    assert (done.returncode, "controlnet_weight 0.7, not 0.5" in done.stderr) == (2, True), done.stderr
