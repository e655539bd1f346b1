"""Contents: what a study is about is the content of files, not their path; and which files an index may name."""

import json
import os
from pathlib import Path

import pytest
import torch
from conftest import make_target
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError

from autotune.errors import UserError
from autotune.pipeline import Pipeline, same_files
from autotune.pipelines import contents, resolve
from autotune.pipelines.classes import pipeline_class
from autotune.pipelines.loading import load
from autotune.pipelines.locate import folder_of, part_folder, revision_of
from autotune.production.fingerprint import find_place
from autotune.worker.classify import classify

BIG = b"\1" * contents.WORTH_KEEPING_BYTES


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "autotune" / "digests.json"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(BIG)
    return folder


def overwrite(file: Path) -> None:
    """Other content of the same size, as a training run writes it."""
    file.write_bytes(file.read_bytes()[:-1] + b"\2")


def test_overwritten_weights_of_the_same_name_and_size_are_another_revision(checkpoint: Path, cache: Path) -> None:
    before = revision_of(checkpoint)
    assert revision_of(checkpoint) == before
    overwrite(checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
    assert not same_files(before, revision_of(checkpoint))
    assert len(json.loads(cache.read_text())) == 2


def test_a_file_that_was_not_touched_is_read_once(
    checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = revision_of(checkpoint)
    read: list[str] = []
    monkeypatch.setattr(contents.hashlib, "file_digest", lambda file, name: read.append(file.name) or _Digest())
    revision_of(checkpoint)
    assert [Path(name).name for name in read] == ["model_index.json"]  # too small to be kept
    monkeypatch.undo()
    cache.write_text("[cut")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    assert revision_of(checkpoint) == before


class _Digest:
    def hexdigest(self) -> str:
        return "0" * 64


def test_a_study_of_overwritten_weights_is_another_study_and_one_without_digests_still_continues(
    checkpoint: Path,
) -> None:
    target = make_target()
    now = target.model_copy(
        update={"pipeline": target.pipeline.model_copy(update={"revision": revision_of(checkpoint)})}
    )
    old = target.model_copy(
        update={"pipeline": now.pipeline.model_copy(update={"revision": revision_of(checkpoint).rpartition("-")[0]})}
    )
    assert old.difference(now) is None
    overwrite(checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
    later = now.model_copy(update={"pipeline": now.pipeline.model_copy(update={"revision": revision_of(checkpoint)})})
    assert "pipeline: revision" in (now.difference(later) or "")


def test_a_replaced_lora_is_a_difference_of_the_fingerprint(tmp_path: Path) -> None:
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(b"weights")
    target = make_target()
    pipeline = target.pipeline.model_copy(update={"lora": str(lora), "part_revisions": {"lora": revision_of(lora)}})
    target = target.model_copy(update={"pipeline": pipeline})
    config = {"dtype": "fp32"}

    def differences() -> list[str]:
        place = find_place(target, config, "cpu")  # type: ignore[arg-type]
        return [sentence for sentence in place.differences if "files of" in sentence]

    assert differences() == []
    overwrite(lora)
    assert differences() == [f"the files of {lora} are not those that were measured."]


@pytest.mark.parametrize(
    "shard", ["shard.bin", "../other.safetensors", "/etc/passwd", "a/b.safetensors", 7, "x.safetensors\n"]
)
def test_an_index_that_names_no_safetensors_file_of_its_folder_is_refused_before_anything_loads(
    checkpoint: Path, shard: object
) -> None:
    """diffusers loads a shard that does not end with .safetensors by torch.load."""
    index = checkpoint / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv.weight": shard}}))
    for find in (
        lambda: folder_of(resolve(str(checkpoint), "pretrained")),
        lambda: part_folder(str(checkpoint / "unet")),
    ):
        with pytest.raises(UserError, match=r"index\.json' names .*: only safetensors files of its own folder"):
            find()


def test_an_index_of_safetensors_is_taken_and_one_of_another_shape_is_not(checkpoint: Path) -> None:
    index = checkpoint / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    assert folder_of(resolve(str(checkpoint), "pretrained")) == checkpoint
    for bad in ("[]", "{}", "[" * 100_000):
        index.write_text(bad)
        with pytest.raises(UserError, match="index"):
            folder_of(resolve(str(checkpoint), "pretrained"))


def test_a_folder_of_two_loras_is_refused_with_their_names_and_a_file_of_it_is_taken(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a.safetensors"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"has several LoRAs: give one of its files, a\.safetensors, b\.safetensors"):
        resolve("demo", "pretrained", lora=str(tmp_path))
    assert resolve("demo", "pretrained", lora=str(tmp_path / "b.safetensors")).lora == str(tmp_path / "b.safetensors")


def test_a_lora_in_the_hub_s_cache_keeps_the_name_of_its_link(tmp_path: Path) -> None:
    """The link points to a blob, whose name has no suffix."""
    blob = tmp_path / "blobs" / "0123abcd"
    link = tmp_path / "snapshots" / "abc" / "my_lora.safetensors"
    blob.parent.mkdir(), link.parent.mkdir(parents=True)
    blob.write_bytes(b"weights")
    link.symlink_to(os.path.relpath(blob, link.parent))
    named = resolve("demo", "pretrained", lora=str(link)).lora
    assert named == str(link)
    assert part_folder(named).name == "my_lora.safetensors"


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ("[]", "it names no class of a pipeline"),
        ("{}", "it names no class of a pipeline"),
        ('{"_class_name": 7}', "_class_name is .*not a library and a class"),
        ("[" * 100_000, "nested too deep"),
        ('{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers"]}', "unet is .*not a library and a class"),
        ('{"_class_name": "StableDiffusionPipeline", "unet": ["os; x", "system"]}', "not a library and a class"),
        (
            '{"_class_name": ["my_pipeline", "MyPipeline"]}',
            r"brings its own code \(MyPipeline of my_pipeline.py for the pipeline\), which is never run",
        ),
        (
            '{"_class_name": "StableDiffusionPipeline", "unet": ["my_unet", "MyUNet"]}',
            r"brings its own code \(MyUNet of my_unet.py for its unet\), which is never run",
        ),
    ],
)
def test_an_index_of_another_shape_or_with_code_of_its_own_is_one_sentence(
    checkpoint: Path, index: str, says: str
) -> None:
    (checkpoint / "model_index.json").write_text(index)
    with pytest.raises(UserError, match=says) as caught:
        pipeline_class(Pipeline(name="x", source=str(checkpoint)), checkpoint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [KeyError("weight"), RuntimeError("size mismatch\nfor conv_in"), SafetensorError("cut")]
)
def test_whatever_a_library_says_of_a_checkpoint_is_one_sentence_that_names_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def from_pretrained(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", from_pretrained)
    with pytest.raises(UserError, match=r"'demo' can't be loaded: \w+Error: .") as caught:
        load(resolve("demo", "pretrained"), dtype=torch.float32, device="cpu")
    assert "\n" not in str(caught.value)
    assert classify(caught.value).cause == "bad_input"


def test_lack_of_memory_while_loading_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_pretrained(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", from_pretrained)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        load(resolve("demo", "pretrained"), dtype=torch.float32, device="cpu")
    assert classify(caught.value).cause == "out_of_memory"
