"""Nouns are frozen, strict, and say in one sentence what is wrong with the JSON that should be one."""

import importlib
import json
import os
import re
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from pydantic import ValidationError

import autotune
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel, absolute, read_text, read_toml, same_place, write_json
from autotune.production.tuned_config import TunedConfig
from autotune.research.ladder.recipe import read_recipe_file
from autotune.study.record import read_record
from autotune.study.space_file import read_space_file
from autotune.study_folder import StudyFolder
from autotune.workload import read_call, read_prompts


class Point(FrozenModel):
    x: int
    y: tuple[float, ...] = ()


def test_a_noun_survives_its_json() -> None:
    point = Point(x=1, y=(0.5, 2))
    assert Point.parse(point.to_json(), "a point") == point


def test_a_noun_can_not_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Point(x=1).x = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "x: field required"),
        ({"x": "many"}, "x: input should be a valid integer"),
        ({"x": 1, "z": 2}, "z: extra inputs are not permitted"),
        ({"x": 1, "y": [0.5, "a"]}, "y.1: input should be a valid number"),
        ([], "the whole: input should be a valid dictionary"),
        (None, "the whole: "),
    ],
)
def test_what_is_no_noun_is_one_sentence_with_the_field(data: object, says: str) -> None:
    with pytest.raises(UserError) as caught:
        Point.parse(data, "the file 'a.json'")
    assert str(caught.value).startswith(f"the file 'a.json' can't be used: {says}")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_every_noun_of_autotune_is_frozen_and_refuses_unknown_fields() -> None:
    for module in iter_modules(autotune.__path__):
        importlib.import_module(f"autotune.{module.name}")
    found = {cls for cls in FrozenModel.__subclasses__() if cls.__module__.startswith("autotune.")}
    assert len(found) > 15
    assert all(cls.model_config.get("frozen") and cls.model_config.get("extra") == "forbid" for cls in found)


def read_record_of(path: Path) -> object:
    return read_record(StudyFolder(path.parent))


def read_call_of(path: Path) -> object:
    return read_call([str(path)])


UTF_16 = "a red fox".encode("utf-16")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (UTF_16, "it is UTF-16: save it as UTF-8, such as by `iconv -f UTF-16 -t UTF-8 FILE`"),
        ("café".encode("cp1252"), "its byte 3 is not UTF-8: save it as UTF-8, such as by `iconv -f WINDOWS-1252"),
        (b"x" * 11, "it is larger than 10 bytes"),
    ],
)
def test_a_text_that_can_not_be_read_says_what_to_do(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    most = {"most_bytes": 10} if len(content) == 11 else {}
    with pytest.raises(OSError, match=re.escape(says)):
        read_text(tmp_path / "a.txt", **most)


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa fox")
    assert read_text(tmp_path / "a.txt") == "a fox"


@pytest.mark.parametrize(
    "read", [read_prompts, read_space_file, read_recipe_file, read_record_of, TunedConfig.load, read_call_of]
)
def test_a_device_is_never_read(read: Any, tmp_path: Path) -> None:
    """It has no end."""
    for name in ("a.toml", "study.json"):
        (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match="it is no file"):
        read(tmp_path / "a.toml")


DOTTED = ".".join("a" * 20_000) + " = 1"  # the parser takes ten seconds for this line
LARGE = "a = 1\n#" + "x" * 2**18


@pytest.mark.parametrize("content", ["a = " + "[" * 10_000, "a = " + "9" * 10_000, "a = {" * 3000, DOTTED, LARGE])
@pytest.mark.parametrize("read", [read_space_file, read_recipe_file, read_call_of])
def test_toml_that_breaks_parsers_is_one_sentence(read: Any, content: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(content)
    with pytest.raises(UserError, match="can't be read") as caught:
        read(tmp_path / "a.toml")
    assert "\n" not in str(caught.value)


def test_toml_is_bounded_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.toml").write_text("[call]\nsigmas = [" + "0.5, " * 1000 + "]\n")
    assert len(read_toml(tmp_path / "a.toml")["call"]["sigmas"]) == 1000, "a value for each of the most steps"
    monkeypatch.setattr("tomllib.loads", lambda text: pytest.fail("it was parsed"))
    (tmp_path / "a.toml").write_text(DOTTED)
    with pytest.raises(ValueError, match="its line 1 has more than 1000 dots"):
        read_toml(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text(LARGE)
    with pytest.raises(OSError, match="it is larger than 262144 bytes"):
        read_toml(tmp_path / "a.toml")


def test_a_path_is_made_absolute_without_following_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blobs" / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "blobs" / "inside")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for word in ("link/", "./link", "~/link", tmp_path / "link", "blobs/../link"):
        assert absolute(word) == tmp_path / "link"
    assert absolute("link/../inside/x") == tmp_path / "blobs" / "inside" / "x", "as the system reads it"
    assert same_place(str(tmp_path / "link"), str(tmp_path / "blobs" / "inside"))
    assert not same_place("link", "link"), "a hub id is no path"


def test_through_a_link_the_file_that_it_points_to_is_written(tmp_path: Path) -> None:
    """As a redirection of the shell does. A link that leads nowhere makes the file."""
    for there in (True, False):
        target, link = tmp_path / f"there-{there}.json", tmp_path / f"link-{there}.json"
        if there:
            target.write_text("old")
        link.symlink_to(target.name)
        write_json(link, {"a": 1})
        assert link.is_symlink()
        assert json.loads(target.read_text()) == {"a": 1}


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    """As `-o /dev/null` of a superuser, or a pipe that another program reads."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "null"):
        with pytest.raises(OSError, match="it is no file"):
            write_json(tmp_path / name, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null", "pipe"]
    assert not (tmp_path / "pipe").is_file()


@pytest.mark.parametrize("where", ["", ".", "/", "folder"])
def test_a_folder_is_never_taken_for_a_file_to_write(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        write_json(Path(where), {})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_in_place_of_a_config_is_said(tmp_path: Path) -> None:
    """A study's folder, where its best.json is meant."""
    with pytest.raises(UserError, match="is a folder: name the file in it"):
        TunedConfig.load(tmp_path)
