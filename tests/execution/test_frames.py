"""--frames: what the pipeline can't make is one sentence; by default it is the preset's number, or that of the call."""

from typing import Any

import pytest
from conftest import TRAITS

from autotune.errors import UserError
from autotune.execution.probe import _frames
from autotune.pipeline import Pipeline
from autotune.workload import Prompts, WorkloadRequest, request_workload

VIDEOS = {"frames_argument": "num_frames", "default_frames": 81, "frames_multiple": 4}


def frames(asked: int | None, *, name: str = "mine", **traits: Any) -> int | None:
    request = WorkloadRequest(prompts=Prompts(texts=("a",)), frames=asked)
    return _frames(Pipeline(name=name, source="somewhere"), TRAITS.model_copy(update=VIDEOS | traits), request)


def test_the_number_is_the_users_the_presets_or_that_of_the_call() -> None:
    assert frames(9) == 9
    assert frames(None) == 81
    assert frames(None, name="wan2.2-5b") == 121
    assert frames(17, name="wan2.2-5b") == 17
    assert frames(None, frames_argument=None, default_frames=None) is None


@pytest.mark.parametrize(
    ("asked", "traits", "said"),
    [
        (10, {}, "--frames 10: mine makes 1 frame and a multiple of 4, such as 9"),
        (9, {"frames_argument": None}, "--frames 9: mine makes pictures, not videos"),
        (None, {"default_frames": None}, "the number of frames that mine makes is unknown: give it by --frames"),
    ],
)
def test_what_can_not_be_made_is_one_sentence(asked: int | None, traits: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        frames(asked, **traits)


def test_the_workload_says_how_long_its_clips_are() -> None:
    request = request_workload(Prompts(texts=("a",)), steps=None, size=None, batch=None, frames=17)
    assert request.frames == 17
