"""The workload: which calls it makes, and the prompts files and sizes that can't be used."""

from pathlib import Path
from typing import Any

import pytest

from autotune.errors import UserError
from autotune.workload import PROMPTS, Shape, Workload, asked_sizes, read_prompts, read_size, read_workload


def workload(prompts: int, batch: int, seed: int = 0) -> Workload:
    texts = tuple(f"prompt {i}" for i in range(prompts))
    return Workload(prompts=texts, width=64, height=64, batch=batch, steps=2, guidance_scale=4.0, seed=seed)


@pytest.mark.parametrize("prompts", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_every_call_is_a_full_batch_and_every_prompt_is_drawn_with_its_own_seed(prompts: int, batch: int) -> None:
    calls = list(workload(prompts, batch, seed=5).calls())
    drawn = [pair for texts, seeds in calls for pair in zip(texts, seeds, strict=True)]
    assert all(len(texts) == batch for texts, _ in calls)
    assert len(calls) == -(-prompts // batch)
    assert drawn[:prompts] == [(f"prompt {i}", 5 + i) for i in range(prompts)]
    assert set(drawn) == set(drawn[:prompts])


def test_prompts_skip_empty_lines_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# mine\n\n  a red circle \n\t\na blaü square\n", encoding="utf-8")
    assert read_prompts(file) == ("a red circle", "a blaü square")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "no prompt"), (b"\n# only a comment\n \n", "no prompt"), (b"\xff\xfe\x00a", "can't be read")],
)
def test_a_prompts_file_without_prompts_is_refused_by_its_name(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"mine\.txt.*{says}"):
        read_prompts(file)


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_prompts_file_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="can't be read"):
        read_prompts(tmp_path / name)


def test_every_shipped_prompts_file_can_be_read() -> None:
    found = {path.name: len(read_prompts(path)) for path in PROMPTS.glob("*.txt")}
    assert set(found) == {"demo.txt", "general.txt"}
    assert min(found.values()) >= 16


@pytest.mark.parametrize(("text", "size"), [("512x768", (512, 768)), ("8X8", (8, 8)), ("1024x64", (1024, 64))])
def test_a_size_is_width_then_height(text: str, size: tuple[int, int]) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["60x64", "64x60", "4x4", "0x64", "512x513"])
def test_a_size_that_is_no_multiple_of_8_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"{text}.*multiples of 8"):
        read_size(text)


@pytest.mark.parametrize("text", ["", "512", "x", "512x", "x512", "-8x8", "8x8x8", "8.0x8", "²x8", "big"])
def test_a_size_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="512x512"):
        read_size(text)


SEVERAL = workload(3, 1).model_copy(update={"also": (Shape(width=96, height=64, batch=4),)})


def test_a_workload_of_several_sizes_names_them_all_the_main_one_first() -> None:
    assert [str(shape) for shape in SEVERAL.shapes] == ["64x64@1", "96x64@4"]
    assert str(SEVERAL).startswith("64x64@1 and 96x64@4, 2 steps")
    assert str(workload(3, 1)).startswith("64x64, batch 1, 2 steps")


def test_each_size_is_a_workload_of_its_own() -> None:
    main, other = (SEVERAL.at(shape) for shape in SEVERAL.shapes)
    assert main == workload(3, 1)
    assert (other.width, other.height, other.batch, other.also, other.prompts) == (96, 64, 4, (), main.prompts)


@pytest.mark.parametrize(
    ("text", "expected"), [("512x768@4", (512, 768, 4)), ("512x768", (512, 768, 1)), ("8X8@12", (8, 8, 12))]
)
def test_a_workload_is_a_size_and_a_batch(text: str, expected: tuple[int, int, int]) -> None:
    assert read_workload(text) == expected


@pytest.mark.parametrize("text", ["", "@", "512", "512@4", "512x512@", "512x512@-1", "512x512@1.5", "8x8@2@2", "x@1"])
def test_a_workload_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="512x512@4"):
        read_workload(text)


@pytest.mark.parametrize(("text", "says"), [("60x64@1", "multiples of 8"), ("64x64@0", "at least 1")])
def test_a_workload_of_an_impossible_size_or_batch_is_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match=f"--workload {text}.*{says}"):
        read_workload(text)


def test_without_workloads_the_size_and_the_batch_are_the_workload() -> None:
    assert asked_sizes((64, 96), 2, ()) == ((64, 96), 2, ())
    assert asked_sizes(None, None, ()) == (None, 1, ())


def test_the_first_workload_is_the_main_size() -> None:
    assert asked_sizes(None, None, [(64, 64, 1), (96, 64, 4)]) == ((64, 64), 1, SEVERAL.also)


@pytest.mark.parametrize(
    ("size", "batch", "workloads", "says"),
    [
        ((64, 64), None, [(64, 64, 1)], "leave --size and --batch away"),
        (None, 1, [(64, 64, 1)], "leave --size and --batch away"),
        (None, None, [(64, 64, 1), (96, 64, 1), (64, 64, 1)], "64x64@1 is there twice"),
        (None, None, [(64, 0, 1)], "must be at least 1"),
    ],
)
def test_workloads_that_can_not_be_are_refused(size: Any, batch: Any, workloads: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        asked_sizes(size, batch, workloads)
