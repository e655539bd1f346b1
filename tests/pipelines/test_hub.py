"""What comes from the hub: one file of a repository, and sentences for what the hub does not give."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from diffusers import DiffusionPipeline
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from autotune.errors import UserError
from autotune.pipelines import locate, resolve
from autotune.pipelines.loading import _load_lora
from autotune.pipelines.locate import part_folder
from autotune.production import untrusted_input
from autotune.tuning.request import default_folder
from autotune.workload import Workload

ONE = "owner/loras:styles/ink.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The hub's cache has one repository. Returns what is asked of it."""
    snapshot, asked = tmp_path / "models--owner--loras" / "snapshots" / "0123abcd", list[dict[str, Any]]()
    (snapshot / "styles").mkdir(parents=True)
    for name in ("ink", "oil"):
        (snapshot / "styles" / f"{name}.safetensors").touch()

    def snapshot_download(repository: str, **how: Any) -> str:
        assert repository == "owner/loras"
        asked.append(how)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def refused(monkeypatch: pytest.MonkeyPatch, error: Exception, cause: Exception | None = None) -> None:
    """The hub answers so."""

    def download(*_: object, **__: object) -> None:
        raise error from cause

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(DiffusionPipeline, "download", download)


def answer(kind: type[Any], status: int) -> Any:
    return kind("told by the hub", response=SimpleNamespace(headers={}, request=None, status_code=status))


@pytest.mark.parametrize(("word", "weight"), [(ONE, 1.0), (f"{ONE}:0.7", 0.7)])
def test_a_lora_is_one_file_of_a_repository(word: str, weight: float, hub: list[dict[str, Any]]) -> None:
    pipeline = resolve("demo", lora=word)
    assert pipeline.loras == {"lora": (ONE, weight)}
    where = part_folder(ONE)
    assert where.name == "ink.safetensors"
    assert hub[-1]["allow_patterns"] == ["styles/ink.safetensors"]
    assert locate._part_revision(pipeline, "lora", where) == "0123abcd", "it is loaded at this commit"
    untrusted_input.check(pipeline, Workload(prompts=("a",), width=8, height=8, steps=1, guidance_scale=1.0), {})
    assert ":" not in default_folder(pipeline, _device()).name


def _device() -> Any:
    from autotune.devices import find_device

    return find_device("cpu")


@pytest.mark.parametrize("word", ["owner/loras:../x.safetensors", "owner/loras:x.bin", "owner:x.safetensors"])
def test_other_words_are_no_file_of_a_repository(word: str) -> None:
    with pytest.raises(UserError, match=r"--lora"):
        resolve("demo", lora=word)


def test_a_file_that_the_repository_lacks_is_one_sentence(hub: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"the repository owner/loras has no file 'pen.safetensors'"):
        part_folder("owner/loras:pen.safetensors")
    assert len(hub) == 1


def test_a_repository_of_several_files_asks_for_one_of_them(hub: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError) as caught:
        _load_lora(None, "owner/loras", part_folder("owner/loras") / "styles", "lora")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "the LoRA 'owner/loras' is not one .safetensors file (ink.safetensors, oil.safetensors): name one, --lora "
        "owner/loras:ink.safetensors."
    )
    assert len(hub) == 1


@pytest.mark.parametrize("hidden", [False, True], ids=["told", "as the cause"])
def test_a_gated_repository_says_what_to_do_whatever_is_loaded(hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    gated = answer(GatedRepoError, 403)
    refused(monkeypatch, *((LocalEntryNotFoundError("not cached"), gated) if hidden else (gated,)))
    says = "owner/name is gated: accept its licence at https://huggingface.co/owner/name and run `hf auth login`."
    for load in (lambda: part_folder("owner/name"), lambda: locate._from_hub(resolve("owner/name"), False)):
        with pytest.raises(UserError) as caught:
            load()
        assert str(caught.value) == says


def test_a_repository_that_is_not_there_or_private_is_told_apart_from_a_missing_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused(monkeypatch, answer(RepositoryNotFoundError, 401))
    with pytest.raises(UserError, match=r"the hub has no repository owner/name, or it is a private one"):
        part_folder("owner/name")
    refused(monkeypatch, OSError("no route"))
    with pytest.raises(UserError, match=r"run `hf download owner/name x\.safetensors` where there is a network"):
        part_folder("owner/name:x.safetensors")


def test_without_a_network_the_question_for_a_variant_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the library below is none of the system's."""

    def no_network(*_: object, **__: object) -> None:
        raise HfHubHTTPError.__mro__[1]("Name or service not known")

    assert not issubclass(HfHubHTTPError.__mro__[1], OSError)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", no_network)
    assert locate._variant_on_hub(resolve("owner/name")) is None
