"""A checkpoint is found in the form in which it lies on the disk, or refused with a sentence that says why."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from single_file import original_names
from tiny import tiny_checkpoint

from autotune.errors import UserError
from autotune.pipelines import resolve
from autotune.pipelines.checkpoint import quantized_components, snapshot_of, variant_of
from autotune.pipelines.inspect import traits_of
from autotune.pipelines.loading import load
from autotune.pipelines.locate import folder_of, revisions

UNET = "unet/diffusion_pytorch_model"


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint("StableDiffusionPipeline", tmp_path_factory.mktemp("tiny") / "sd")


@pytest.mark.parametrize(
    ("names", "variant"),
    [
        ([f"{UNET}.safetensors", "vae/diffusion_pytorch_model.safetensors"], None),
        ([f"{UNET}.fp16.safetensors", "text_encoder/model.fp16.safetensors"], "fp16"),
        ([f"{UNET}.safetensors", f"{UNET}.fp16.safetensors"], None),
        ([f"{UNET}.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors"], "fp16"),
        ([f"{UNET}.bf16-00001-of-00002.safetensors", f"{UNET}.bf16-00002-of-00002.safetensors"], "bf16"),
        ([f"{UNET}-00001-of-00002.safetensors"], None),
        ([f"{UNET}.fp16.safetensors", "vae/diffusion_pytorch_model.bf16.safetensors"], None),
        ([], None),
    ],
)
def test_a_variant_is_loaded_where_there_are_no_plain_weights(names: list[str], variant: str | None) -> None:
    assert variant_of(names) == variant


def test_a_folder_of_fp16_variants_is_loaded_and_its_variant_recorded(sd: Path, tmp_path: Path) -> None:
    pipe = load(resolve(str(sd)), dtype=torch.float16, device="cpu")
    pipe.save_pretrained(tmp_path / "half", variant="fp16")
    pipeline = resolve(str(tmp_path / "half"))
    assert revisions(pipeline)["variant"] == "fp16"
    again = load(pipeline, dtype=torch.float32, device="cpu")
    assert all(torch.equal(a.float(), b) for a, b in zip(pipe.unet.parameters(), again.unet.parameters(), strict=True))


def test_a_folder_of_the_hub_s_cache_is_its_snapshot(sd: Path, tmp_path: Path) -> None:
    cached = tmp_path / "models--owner--name"
    (cached / "snapshots").mkdir(parents=True)
    for commit in ("a1", "b2"):
        (cached / "snapshots" / commit).symlink_to(sd, target_is_directory=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("a1")
    found = snapshot_of(cached)
    assert found is not None
    assert found.name == "a1"
    assert resolve(str(cached)).source == str(cached / "snapshots" / "a1"), "links are kept"
    assert snapshot_of(sd) is None


@pytest.mark.parametrize("word", ["./owner/name", "../name", "a/b/c", "missing/model.safetensors", "name/"])
def test_a_path_that_is_wrong_is_not_looked_up_on_the_hub(word: str) -> None:
    with pytest.raises(UserError, match="there is no folder or file"):
        resolve(word)


def test_a_relative_path_into_a_folder_that_exists_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("models/sdxl").source == "models/sdxl"
    (tmp_path / "models").mkdir()
    with pytest.raises(UserError, match="there is no folder or file 'models/sdxl'"):
        resolve("models/sdxl")


def test_the_files_options_are_refused_where_they_mean_nothing(sd: Path) -> None:
    with pytest.raises(UserError, match=r"only a single \.safetensors file needs one"):
        resolve(str(sd), config=str(sd))
    with pytest.raises(UserError, match="does not come from the hub"):
        resolve(str(sd), revision="main")
    (sd.parent / "weights.ckpt").touch()
    with pytest.raises(UserError, match="loaded from safetensors only"):
        resolve(str(sd.parent / "weights.ckpt"))


def test_a_single_file_draws_what_the_folder_draws_that_it_was_made_of(sd: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(original_names(sd), file)
    pipeline = resolve(str(file), config=str(sd))
    assert pipeline.source == str(file)
    assert folder_of(pipeline) == sd.resolve()
    assert revisions(pipeline)["revision"].startswith("files-")
    assert traits_of(pipeline).class_name == "StableDiffusionPipeline"
    one, other = (load(p, dtype=torch.float32, device="cpu") for p in (pipeline, resolve(str(sd))))
    for part in ("unet", "vae", "text_encoder"):
        theirs = getattr(other, part).state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in getattr(one, part).state_dict().items()), part


def test_the_revision_of_a_single_file_is_of_its_content(sd: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    found = []
    for value in (0.0, 1.0):
        save_file({"x": torch.full((4,), value)}, file)
        found.append(revisions(resolve(str(file), config=str(sd)))["revision"])
    assert found[0] != found[1]


def test_a_file_of_unknown_content_asks_for_a_configuration(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(4)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="name a pipeline like it by --config"):
        folder_of(resolve(str(tmp_path / "x.safetensors")))
    (tmp_path / "y.safetensors").write_text("no safetensors")
    with pytest.raises(UserError, match="is not a safetensors file"):
        folder_of(resolve(str(tmp_path / "y.safetensors")))


def test_a_quantized_component_is_a_fact_of_the_checkpoint(tmp_path: Path) -> None:
    for part, config in {"unet": {"quantization_config": {"quant_method": "bitsandbytes"}}, "vae": {}}.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    assert quantized_components(tmp_path) == {"unet": "bitsandbytes"}
