"""Paths as people write them: `~` after an equals sign, Windows' paths, a file where a folder was meant."""

from pathlib import Path

import pytest

from autotune.cli.paths import with_paths
from autotune.errors import UserError
from autotune.pipelines import resolve


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
