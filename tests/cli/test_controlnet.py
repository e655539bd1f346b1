"""A ControlNet on top of a checkpoint, from the command line to production; and pictures that a user starts from."""

from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image
from searches import command_here
from tiny import tiny_checkpoint, unet

import autotune
from autotune.devices import find_device
from autotune.execution import fork_client
from autotune.execution.probe import probe
from autotune.knobs import all_knobs
from autotune.pipelines import resolve
from autotune.production.tuned_config import TunedConfig
from autotune.workload import Prompts, WorkloadRequest

ONLY_DTYPE = [word for name in all_knobs() if name != "dtype" for word in ("--exclude", name)]
CANARY = "hf_canary0123456789"
SHORT = ["--steps", "2", "--size", "32x32", "--budget", "2", "--confirm-rounds", "0", "--scorer", "none"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a ControlNet for it, and what a search needs."""
    folder = tmp_path_factory.mktemp("controlnet")
    tiny_checkpoint("StableDiffusionPipeline", folder / "checkpoint")
    torch.manual_seed(0)
    control = ControlNetModel.from_unet(unet(4), conditioning_embedding_out_channels=(8, 16))
    control.save_pretrained(folder / "control")
    (folder / "prompts.txt").write_text("a red circle\na blue star\n")
    Image.new("RGBA", (48, 40), "red").save(folder / "mine.png")
    return folder


@pytest.fixture(scope="module")
def searched(here: Path) -> str:
    """What a search of the checkpoint with its ControlNet printed."""
    files = ["--prompts", here / "prompts.txt", "--study", here / "study", "--max-quality-drop", "999"]
    pipeline = ["--pipeline", here / "checkpoint", "--controlnet", here / "control", "--device", "cpu"]
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


def test_its_export_is_loaded_with_the_controlnet_from_anywhere(here: Path, searched: str) -> None:
    assert TunedConfig.load(here / "study" / "best.json").inputs == {"image": "edges"}
    pipe = autotune.load(here / "study" / "best.json")
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe).__name__ == "StableDiffusionControlNetPipeline"
    assert pipe("a red circle", image=Image.new("RGB", (32, 32))).images[0].size == (32, 32)


def test_run_starts_from_the_users_picture_and_says_that_it_was_resized(here: Path, searched: str) -> None:
    words = ["--prompt", "a red circle", "--image", here / "mine.png", "-o", here / "mine-out.png"]
    done = command_here("run", here / "study" / "best.json", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("; image resized from 48x40 to 32x32")
    with Image.open(here / "mine-out.png") as picture:
        assert picture.size == (32, 32)


def test_run_says_where_it_starts_from_a_picture_of_ours(here: Path, searched: str) -> None:
    done = command_here("run", here / "study/best.json", "--prompt", "a red circle", "-o", here / "ours-out.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("; started from pictures made by autotune (edges)")
    assert done.stdout.count("\n") == 1
