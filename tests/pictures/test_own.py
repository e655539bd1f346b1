"""The user's own pictures: kept and known by their pixels, given to the arguments that take them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import make_target
from PIL import Image

from autotune.errors import UserError
from autotune.execution.probe import _own_pictures
from autotune.pictures import own
from autotune.pipelines import inputs
from autotune.production.plain_script import _own_pictures as _own_words
from autotune.workload import MOST_PX, Prompts, Workload, WorkloadRequest

SIDE = 32
INPAINTING = {"image": "photo", "mask_image": "mask", "control_image": "edges"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own._opened.cache_clear()
    return tmp_path / "cache" / "autotune" / "pictures"


def saved(folder: Path, name: str, colour: str = "red", side: int = SIDE, **how: Any) -> Path:
    Image.new("RGB", (side, side // 2), colour).save(folder / name, **how)
    return folder / name


def workload(**pictures: tuple[str, ...]) -> Workload:
    more: dict[str, Any] = {"prompts": ("a", "b", "a"), "pictures": pictures, "seeds": (7, 8, 9)}
    return Workload(width=SIDE, height=SIDE, steps=2, guidance_scale=5.0, **more)


def test_pictures_are_known_by_their_pixels_not_by_their_files(tmp_path: Path, cache: Path) -> None:
    first = own.keep("image", saved(tmp_path, "a.png"), prompts=3)
    assert own.keep("image", [str(saved(tmp_path, "b.bmp"))], prompts=3) == first
    assert own.keep("image", saved(tmp_path, "a.png", "blue"), prompts=3) != first
    assert {path.stem for path in cache.iterdir()} > set(first)
    assert own.keep("image", None, prompts=3) == own.keep("image", [], prompts=3) == ()


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    [turned] = own.keep("image", saved(tmp_path, "a.png", exif=exif), prompts=1)
    with Image.open(own._file(turned)) as kept:
        assert kept.size == (SIDE // 2, SIDE)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no picture", "picture .*a.png' of --control-image is in no image format"),
        (b"\x89PNG\r\n\x1a\n", "of --control-image"),
        (None, "of --control-image can't be read: .*No such file"),
    ],
)
def test_what_is_no_picture_is_refused_and_nothing_is_kept(
    content: bytes | None, says: str, tmp_path: Path, cache: Path
) -> None:
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=says):
        own.keep("control_image", tmp_path / "a.png", prompts=1)
    assert not cache.exists()


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    width = 2**15
    Image.new("1", (width, MOST_PX // width + 1)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="of --image can't be read: it has 32768x2049 pixels"):
        own.keep("image", tmp_path / "a.png", prompts=1)


def test_pictures_are_one_for_all_prompts_or_one_for_each(tmp_path: Path) -> None:
    files = [saved(tmp_path, f"{colour}.png", colour) for colour in ("red", "lime", "blue")]
    with pytest.raises(UserError, match="--mask is given 2 times, and there are 3 prompts"):
        own.keep("mask", files[:2], prompts=3)
    each, one = own.keep("image", files, prompts=3), own.keep("image", files[0], prompts=3)

    def colours(digests: tuple[str, ...], prompts: list[str], seeds: list[int]) -> list[Any]:
        found = own.pictures_of(workload(image=digests), "image", prompts, seeds, "RGB", (8, 8))
        assert found is not None
        return [picture.getpixel((0, 0)) for picture in found]

    red, lime, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    assert colours(each, ["a", "b", "a"], [7, 8, 9]) == [red, lime, blue]  # two prompts are alike, their seeds differ
    assert colours(each, ["b", "another"], [8, 0]) == [lime, red]
    assert colours(one, ["a", "b", "a"], [7, 8, 9]) == [red] * 3


def test_a_call_gets_them_in_its_size_and_the_rest_from_autotune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "picture_arguments", lambda pipe: INPAINTING)
    pipe: Any = SimpleNamespace()
    image = own.keep("image", saved(tmp_path, "a.png"), prompts=3)
    mask = own.keep("mask", saved(tmp_path, "m.png", "white"), prompts=3)
    mine = workload(image=image, mask_image=mask)
    found = inputs._own_pictures(pipe, mine, ["a", "b"], [7, 8], {})
    assert found.keys() == {"image", "mask_image"}
    assert [(each.size, each.mode) for each in found["image"]] == [((SIDE, SIDE), "RGB")] * 2
    assert [(each.mode, each.getpixel((0, 0))) for each in found["mask_image"]] == [("L", 255)] * 2
    assert inputs._own_pictures(pipe, mine, ["a"], [7], {"image": "given"}).keys() == {"mask_image"}
    assert inputs._own_pictures(pipe, mine, ["a"], [7], {})["image"].size == (SIDE, SIDE)  # one: no list
    assert inputs._own_pictures(pipe, workload(), ["a"], [7], {}) == {}


def test_a_picture_that_is_gone_ends_a_measurement_in_a_sentence_and_a_server_draws_without(
    tmp_path: Path, cache: Path
) -> None:
    file = saved(tmp_path, "a.png")
    mine = workload(image=own.keep("image", file, prompts=1))
    assert own.at_hand(mine) == mine
    for kept in cache.iterdir():
        kept.unlink()
    assert own.at_hand(mine).pictures == {}
    with pytest.raises(UserError, match=r"start from a picture \(image, [0-9a-f]{12}\) that is not on this machine"):
        own.pictures_of(mine, "image", ["a"], [7], "RGB", (8, 8))
    with pytest.raises(UserError, match="none of those that the search started from"):
        own.give_again(mine, [saved(tmp_path, "b.png", "blue")])
    own.give_again(mine, [file])
    assert own.at_hand(mine) == mine


def test_a_kept_picture_that_was_changed_is_refused(tmp_path: Path) -> None:
    [digest] = own.keep("image", saved(tmp_path, "a.png"), prompts=1)
    saved(own._file(digest).parent, f"{digest}.png", "blue")
    with pytest.raises(UserError, match="was changed"):
        own.pictures_of(workload(image=(digest,)), "image", ["a"], [7], "RGB", (8, 8))


DIGEST, OTHER = "0" * 64, "1" * 64


@pytest.mark.parametrize(
    ("kinds", "given", "found"),
    [
        (INPAINTING, ("image", "mask"), {"image": (DIGEST,), "mask_image": (DIGEST,)}),
        (INPAINTING, ("control_image",), {"control_image": (DIGEST,)}),
        ({"image": "edges"}, ("control_image",), {"image": (DIGEST,)}),
        ({"ip_adapter_image": "reference"}, ("image",), {"ip_adapter_image": (DIGEST,)}),
        ({}, ("image",), "takes no picture of --image: leave it out, or give --task image2image"),
        ({"image": "photo"}, ("mask",), "takes no picture of --mask: leave it out, or give --task inpainting"),
        ({"image": "photo"}, ("control_image",), "takes no picture of --control-image: leave it out"),
        ({"image": "edges"}, ("image", "control_image"), "--control-image and --image are the same"),
    ],
)
def test_each_option_belongs_to_an_argument_of_the_call_or_is_refused(
    kinds: dict[str, str], given: tuple[str, ...], found: Any
) -> None:
    traits = make_target().pipeline.known.model_copy(update={"inputs": kinds})
    request = WorkloadRequest(prompts=Prompts(texts=("a",)), pictures=dict.fromkeys(given, (DIGEST,)))
    if isinstance(found, str):
        with pytest.raises(UserError, match=found):
            _own_pictures(traits, request)
    else:
        assert _own_pictures(traits, request) == found


def test_with_several_controlnets_an_own_picture_is_refused() -> None:
    traits = make_target().pipeline.known.model_copy(update={"inputs": {"image": "edges"}, "control_pictures": 2})
    request = WorkloadRequest(prompts=Prompts(texts=("a",)), pictures={"control_image": (DIGEST,)})
    with pytest.raises(UserError, match="--control-image is one picture a call: with 2 ControlNets, leave it out"):
        _own_pictures(traits, request)


def test_other_pictures_are_another_study_and_are_in_words() -> None:
    target = make_target()
    mine, other = (
        target.model_copy(update={"workload": target.workload.model_copy(update={"pictures": {"image": (digest,)}})})
        for digest in (DIGEST, OTHER)
    )
    assert mine.difference(mine) is None
    assert mine.difference(other) is not None
    assert mine.difference(target) is not None
    assert "own image 00000000" in str(mine.workload)


def test_a_plain_script_says_which_pictures_it_was_measured_with() -> None:
    tuned: Any = SimpleNamespace(workload=workload(image=(DIGEST, OTHER)))
    assert "image 000000000000 111111111111" in _own_words(tuned)
    assert _own_words(SimpleNamespace(workload=workload())) == ""
