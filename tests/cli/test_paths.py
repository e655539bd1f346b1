"""Paths as people write them: `~` after an equals sign, Windows' paths, a file where a folder was meant."""

from pathlib import Path
from typing import Any

import pytest

from autotune.cli.options import by_name
from autotune.cli.paths import with_paths
from autotune.errors import UserError
from autotune.pipelines import resolve
from autotune.research.score import _request


def test_the_home_folder_is_meant_in_every_option_and_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    words = ["run", "~/best.json", "--prompts=~/p.txt", "--out", "~", "--lora", "~/a.safetensors:0.5"]
    made = ["run", "/home/ada/best.json", "--prompts=/home/ada/p.txt", "--out", "/home/ada"]
    assert with_paths(words) == [*made, "--lora", "/home/ada/a.safetensors:0.5"]
    untouched = ["search", "--prompt", "~/ is my home", "--negative-prompt=~", "--call", "a=C:\\x", "--fix", "dtype=~x"]
    assert with_paths(untouched) == untouched


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("C:\\models\\sdxl", "(under WSL, /mnt/c/models/sdxl)"),
        ("--pipeline=d:/sdxl", "(under WSL, /mnt/d/sdxl)"),
        ("models\\sdxl", "such as models/sdxl"),
        (".\\out", "such as out"),
    ],
)
def test_a_path_of_windows_is_one_sentence_that_has_it_in_this_systems_form(word: str, says: str) -> None:
    with pytest.raises(UserError, match="is a path of Windows") as caught:
        with_paths(["search", word])
    assert says in str(caught.value)


@pytest.mark.parametrize("words", [["--vram="], ["--vram", ""], ["-o", ""], ["--task="]])
def test_an_option_with_nothing_as_its_value_is_not_taken_for_one_that_was_left_out(words: list[str]) -> None:
    """As `--vram=$LIMIT` is in a shell where LIMIT is not set."""
    with pytest.raises(UserError, match=rf"^{words[0].rstrip('=')} is given nothing: name a value, or leave it out"):
        with_paths(["search", *words])
    fine = ["search", "--negative-prompt=", "--json", "--quick", "--no-reuse"]
    assert with_paths(fine) == fine


def test_a_text_that_is_not_utf_8_reaches_no_model() -> None:
    with pytest.raises(UserError, match=r"the text of --negative-prompt is not UTF-8: 'caf\\udce9'"):
        with_paths(["search", "--negative-prompt=caf\udce9"])
    with pytest.raises(UserError, match="the text of --prompt is not UTF-8"):
        with_paths(["run", "--prompt", "caf\udce9"])
    assert with_paths(["search", "--study", "caf\udce9"]) == ["search", "--study", "caf\udce9"], "names may be so"


def test_a_name_that_is_there_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a\\b").touch()
    monkeypatch.chdir(tmp_path)
    assert with_paths(["report", "a\\b"]) == ["report", "a\\b"]


def test_a_file_where_a_folder_is_meant_is_named_and_not_looked_up_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net").mkdir()
    for name in ("net/config.json", "model_index.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--controlnet net/config\.json is a file: give its folder"):
        resolve("demo", controlnet="net/config.json")
    with pytest.raises(UserError, match=r"Or give the folder '\.'"):
        resolve("model_index.json")
    assert resolve("./").source == resolve(".").source == str(tmp_path.resolve())
    for option in ("controlnet", "lora"):
        with pytest.raises(UserError, match=f"--{option} takes a hub id"):
            resolve("demo", **{option: "net/gone"})


def test_a_link_is_a_name_that_is_kept_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the hub's cache, where a link points to a file without a suffix."""
    blobs, links = tmp_path / "blobs", tmp_path / "links"
    (blobs / "0123").mkdir(parents=True)
    links.mkdir()
    for name in ("model_index.json", "config.json"):
        (blobs / "0123" / name).write_text("{}")
    for name in ("4567", "89ab"):
        (blobs / name).write_text("def score(images, prompts, references): ...")
    (links / "checkpoint").symlink_to(blobs / "0123")
    for name in ("a.safetensors", "a.py"):
        (links / name).symlink_to(blobs / "4567")
    monkeypatch.chdir(tmp_path)
    assert resolve("links/checkpoint").source == str(links / "checkpoint")
    assert resolve("links/a.safetensors").source == str(links / "a.safetensors")
    assert resolve("links/a.safetensors", config="links/checkpoint").config == str(links / "checkpoint")
    assert resolve("sd15", controlnet="links/checkpoint").controlnet == str(links / "checkpoint")
    assert resolve("sd15", lora="links/a.safetensors").lora == str(links / "a.safetensors")
    assert resolve("sd15", ip_adapter="links/a.safetensors:0.5").ip_adapter == str(links / "a.safetensors")
    inversion = resolve("sd15", textual_inversion="links/a.safetensors:<it>").textual_inversions
    assert inversion == {str(links / "a.safetensors"): "<it>"}
    factory = resolve("demo", factory="links/a.py:score", run_code=True)
    assert factory.source == str(links / "a.py")
    nothing: Any = None
    assert _request("links/a.py:score", nothing, run_code=True).name == f"{links / 'a.py'}:score"
    assert by_name(["--study", "links/checkpoint"], [Path("links/checkpoint")]) == ["--study", "checkpoint"]
    with pytest.raises(UserError, match=r"'links/nothing'"):
        resolve("links/nothing")
