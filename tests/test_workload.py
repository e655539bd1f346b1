"""The workload: which calls it makes, and the prompts files and sizes that can't be used."""

from pathlib import Path

import pytest

from autotune.errors import UserError
from autotune.workload import PROMPTS, Workload, read_prompts, read_size


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
