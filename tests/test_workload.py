"""The workload: which calls it makes, and the prompts files and sizes that can't be used."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autotune import demo
from autotune.demo.shapes import more_captions, scene_of
from autotune.errors import UserError
from autotune.workload import (
    PROMPTS,
    Prompts,
    Shape,
    Workload,
    WorkloadRequest,
    digest_of,
    open_picture,
    read_call,
    read_prompts,
    read_size,
    read_workload,
    request_workload,
)


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
    assert read_prompts(file) == Prompts(texts=("a red circle", "a blaü square"))


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


def lines(folder: Path, *found: str) -> Path:
    """A .jsonl file beside a picture a.png and a file that is none."""
    Image.new("RGB", (4, 2), "red").save(folder / "a.png")
    Image.new("RGBA", (4, 2), "red").save(folder / "same.webp", lossless=True)
    (folder / "text.png").write_text("no picture")
    (folder / "mine.jsonl").write_text("\n".join(found) + "\n", encoding="utf-8")
    return folder / "mine.jsonl"


def test_json_lines_give_prompts_seeds_and_references(tmp_path: Path) -> None:
    file = lines(
        tmp_path,
        "# mine",
        '{"prompt": "a fox", "seed": 7, "reference": "a.png"}',
        "",
        '{"prompt": "a hen"}',
        '{"prompt": "a cow", "reference": "same.webp"}',
    )
    found = read_prompts(file)
    digest = digest_of(Image.new("RGB", (4, 2), "red"))
    assert found.texts == ("a fox", "a hen", "a cow")
    assert found.seeds == (7, None, None)
    assert found.seeds_from(10) == (7, 11, 12), "what has no seed of its own has the one that it has always had"
    assert found.references == (digest, "", digest), "known by its pixels, not by its file"
    assert found.first(2).references == (digest, "")


def test_reference_pictures_are_copied_by_their_digest_once(tmp_path: Path) -> None:
    found = read_prompts(lines(tmp_path, *['{"prompt": "a fox", "reference": "a.png"}'] * 2))
    for _ in range(2):
        found.save_pictures(tmp_path / "study")
    (copy,) = (tmp_path / "study").iterdir()
    assert copy.name == f"{digest_of(Image.open(copy))}.png"


def test_a_reference_that_changes_between_reading_and_copying_is_refused(tmp_path: Path) -> None:
    found = read_prompts(lines(tmp_path, '{"prompt": "a fox", "reference": "a.png"}'))
    Image.new("RGB", (4, 2), "blue").save(tmp_path / "a.png")
    with pytest.raises(UserError, match="was changed"):
        found.save_pictures(tmp_path / "study")


def test_json_lines_without_seeds_and_references_are_as_text(tmp_path: Path) -> None:
    found = read_prompts(lines(tmp_path, '{"prompt": "a fox"}'))
    assert (found.texts, found.seeds_from(3), found.references) == (("a fox",), (), ())
    assert Prompts(texts=("a fox",)).seeds_from(3) == ()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a fox", "is not JSON"),
        ('["a fox"]', "is not a JSON object"),
        ('{"promt": "a fox"}', "prompt: field required"),
        ('{"prompt": "a fox", "sede": 1}', "sede: extra inputs"),
        ('{"prompt": " "}', "prompt: "),
        ('{"prompt": "a fox", "seed": -1}', "seed: "),
        ('{"prompt": "a fox", "seed": "x"}', "seed: "),
        ('{"prompt": "a fox", "reference": "gone.png"}', "reference picture 'gone.png' of .*can't be read"),
        ('{"prompt": "a fox", "reference": "text.png"}', "reference picture 'text.png' of .*is in no image format"),
    ],
)
def test_a_line_that_can_not_be_used_is_refused_by_its_number(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        read_prompts(lines(tmp_path, '{"prompt": "a hen"}', line))
    assert "mine.jsonl', line 2" in str(refused.value)


def test_prompts_with_seeds_of_their_own_are_drawn_with_them() -> None:
    mine = workload(3, 2, seed=5).model_copy(update={"seeds": (9, 9, 1)})
    assert [seeds for _, seeds in mine.calls()] == [[9, 9], [1, 9]]
    shouted = mine.model_copy(update={"prompts": ("prompt 0", "Prompt  0", "prompt 2")})
    assert shouted.normalized_prompts[0] == shouted.normalized_prompts[1] != shouted.normalized_prompts[2]
    assert str(mine).endswith("3 prompts, seeds of their own")


@pytest.mark.parametrize("name", ["general.txt", "demo.txt", "demo_256.txt"])
def test_every_shipped_prompt_is_there_once(name: str) -> None:
    texts = read_prompts(PROMPTS / name).texts
    assert len(texts) == {"general.txt": 64, "demo.txt": 32, "demo_256.txt": 256}[name]
    assert len(set(texts)) == len(texts)
    assert {path.name for path in PROMPTS.iterdir()} == {"general.txt", "demo.txt", "demo_256.txt"}


def kinds() -> list[str]:
    """What the head of general.txt says of its prompts: their kinds, in turn."""
    text = (PROMPTS / "general.txt").read_text(encoding="utf-8")
    return re.search(r"^# kinds: (.*)$", text, re.M)[1].split(", ")  # type: ignore[index]


def test_general_prompts_are_of_sixteen_kinds_in_turn_so_that_any_first_sixteen_have_them_all() -> None:
    texts, found = read_prompts(PROMPTS / "general.txt").texts, kinds()
    assert len(found) == len(set(found)) == 16
    assert {"people", "text", "counting", "textures", "low light", "composition", "style"} <= set(found)
    of_kind = {kind: texts[i::16] for i, kind in enumerate(found)}
    assert all(re.search(r'"[^"]+"', text) for text in of_kind["text"])
    number = r"\b(two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b"
    assert all(re.search(number, text) for text in of_kind["counting"])
    assert all(re.search(r"\b(night|dark|candle|moon|lit|milky|glow|dusk)", text) for text in of_kind["low light"])


def test_general_prompts_are_well_below_clips_context() -> None:
    """77 tokens; no word of these has more than two, a comma is one."""
    for text in read_prompts(PROMPTS / "general.txt").texts:
        assert 5 <= len(text.split()) <= 40
        assert len(text.split()) * 1.4 + text.count(",") < 60, text


def test_the_demos_256_captions_go_on_where_its_32_end_and_are_made_by_their_recipe() -> None:
    few, many = (read_prompts(PROMPTS / name).texts for name in ("demo.txt", "demo_256.txt"))
    assert many[:32] == few
    assert many == tuple(more_captions(few, 256))
    assert all(scene_of(text).caption == text for text in many)


def test_the_demos_captions_fit_its_tokenizer() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo.CLIP)
    longest = max(len(tokenizer(text).input_ids) for text in read_prompts(PROMPTS / "demo_256.txt").texts)
    assert longest <= 24


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


PROMPTS_OF_A_TEST = Prompts(texts=("a red circle",))


def requested(size: Any, batch: Any, workloads: Any) -> WorkloadRequest:
    return request_workload(PROMPTS_OF_A_TEST, steps=None, size=size, batch=batch, workloads=workloads)


def test_without_workloads_the_size_and_the_batch_are_the_workload() -> None:
    asked = request_workload(PROMPTS_OF_A_TEST, steps=3, size=(64, 96), batch=2, seed=7)
    assert asked == WorkloadRequest(prompts=PROMPTS_OF_A_TEST, steps=3, size=(64, 96), batch=2, seed=7)
    assert requested(None, None, []) == WorkloadRequest(prompts=PROMPTS_OF_A_TEST)


def test_the_first_workload_is_the_main_size() -> None:
    asked = requested(None, None, [(64, 64, 1), (96, 64, 4)])
    assert (asked.size, asked.batch, asked.also) == ((64, 64), 1, SEVERAL.also)


@pytest.mark.parametrize(
    ("size", "batch", "workloads", "says"),
    [
        ((64, 64), None, [(64, 64, 1)], "omit --size and --batch"),
        (None, 1, [(64, 64, 1)], "omit --size and --batch"),
        (None, None, [(64, 64, 1), (96, 64, 1), (64, 64, 1)], "64x64@1 is given twice"),
        (None, None, [(64, 0, 1)], "must be at least 1"),
    ],
)
def test_workloads_that_can_not_be_are_refused(size: Any, batch: Any, workloads: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        requested(size, batch, workloads)


def test_further_arguments_of_the_call_are_json_or_text_and_come_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "call.toml").write_text("clip_skip = 2\nsigmas = [1.0, 0.5]\n")
    words = [str(tmp_path / "call.toml"), "clip_skip=1", "cfg_normalization=true", "prompt_2=a cat"]
    assert read_call(words) == {"clip_skip": 1, "sigmas": [1.0, 0.5], "cfg_normalization": True, "prompt_2": "a cat"}


ODD = ["x=NaN", "x=-Infinity", "x=1e999", "x=[0.5, 1e999]"]


@pytest.mark.parametrize("word", ["clip_skip", "=3", "no-name=3", "missing.toml", 'x={"a": 1}', *ODD])
def test_a_further_argument_that_cant_be_read_is_refused_in_one_sentence(word: str) -> None:
    with pytest.raises(UserError, match="--call"):
        read_call([word])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"steps": 10_001}, "the steps 10001 of a call is above 10000"),
        ({"steps": 10**400}, "the steps 1000"),
        ({"batch": 10**400}, "the batch 1000"),
        ({"size": (64, 2**15 + 8)}, "the height 32776 of a call is above 32768"),
        ({"workloads": [(64, 64, 1), (10**400, 64, 1)]}, "the width 1000"),
    ],
)
def test_no_workload_is_larger_than_one_that_an_export_may_have(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        request_workload(PROMPTS_OF_A_TEST, **{"steps": None, "size": None, "batch": None, **asked})
    assert str(caught.value).startswith(says)
    assert len(str(caught.value)) < 200


def test_negative_prompt_and_further_arguments_are_part_of_the_workload() -> None:
    plain = Workload(prompts=("a",), width=8, height=8, steps=1, guidance_scale=0.0)
    other = plain.model_copy(update={"negative_prompt": "blurred", "call": {"clip_skip": 1}})
    assert plain != other
    assert Workload.parse(other.to_json(), "the workload") == other
    assert "negative prompt 'blurred', clip_skip=1" in str(other)


def test_a_byte_order_mark_makes_no_comment_a_prompt(tmp_path: Path) -> None:
    """As Windows' Notepad writes it."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf# foxes\r\na red fox\r\n")
    assert read_prompts(tmp_path / "a.txt").texts == ("a red fox",)


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"prompt": ' * 50_000, '{"prompt": "a", "seed": ' + "9" * 10_000 + "}"]
)
def test_json_lines_that_break_parsers_are_one_sentence(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(UserError, match="line 1") as caught:
        read_prompts(tmp_path / "a.jsonl")
    assert len(str(caught.value)) < 1000


def test_a_picture_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match="can't be read: it is no file"):
        open_picture(tmp_path / "a.png", "picture")


def test_a_picture_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """A PNG of 1 bit a pixel: 25 KB on the disk, hundreds of MB as RGB."""
    Image.new("1", (8192, 8200)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="has 8192x8200 pixels"):
        open_picture(tmp_path / "bomb.png", "picture")
