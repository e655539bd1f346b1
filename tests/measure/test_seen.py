"""On the demo, with real pictures: what spoils them is seen by the score, what only computes them otherwise is not."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from live import built
from PIL import Image

from autotune.config import Value
from autotune.measure.health import check_pictures
from autotune.measure.metrics import find_metric
from autotune.statistics.paired import Paired, paired
from autotune.workload import PROMPTS, read_prompts

PAIRS = 16
AT_ONCE = 8
CAPTIONS = read_prompts(PROMPTS / "demo.txt").first(PAIRS).texts


@cache
def pictures(*, steps: int = 20, count: int = PAIRS, **values: Value) -> list[Image.Image]:
    """One of each caption, picture i from seed i's noise, as the search draws them. Drawn once for the whole module."""
    pipe, _ = built(**values)
    made: list[Image.Image] = []
    for start in range(0, count, AT_ONCE):
        which = range(start, min(start + AT_ONCE, count))
        generators = [torch.Generator("cpu").manual_seed(i) for i in which]
        call: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": 4.0, "generator": generators}
        made += pipe([CAPTIONS[i] for i in which], **call).images
    return made


def drop(mine: list[Image.Image], captions: tuple[str, ...] = CAPTIONS) -> Paired:
    """What these pictures lose against 20 steps of the untouched pipeline, with their right captions."""
    clip = find_metric("clip_score").load("demo", "cpu")
    before = clip.scores(pictures()[: len(mine)], CAPTIONS[: len(mine)], ())
    after = clip.scores(mine, captions[: len(mine)], ())
    return paired([a - b for a, b in zip(before, after, strict=True) if a is not None and b is not None])


def test_three_steps_instead_of_twenty_are_seen() -> None:
    seen = drop(pictures(steps=3))
    assert seen.n == PAIRS
    assert seen.is_detectable
    assert seen.may_exceed(0.3)


def test_wrong_captions_are_seen() -> None:
    seen = drop(pictures(), CAPTIONS[1:] + CAPTIONS[:1])
    assert seen.is_detectable
    assert seen.lower is not None
    assert seen.lower > 50


KNOBS: list[dict[str, Value]] = [{"memory_format": "channels_last"}, {"qkv_fusion": True}, {"compile": "regional"}]


@pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")  # torch deprecates what it imports to compile
@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_what_only_computes_them_otherwise_is_not_seen_by_score_or_likeness(knob: dict[str, Value]) -> None:
    mine = pictures(count=PAIRS, **knob)
    seen = drop(mine)
    assert not seen.is_detectable
    assert not seen.may_exceed(0.01)
    theirs = pictures()
    ssim, psnr_db = (find_metric(name).load(None, "cpu").scores(mine, (), theirs) for name in ("ssim", "psnr"))
    assert min(s for s in ssim if s is not None) > 0.999
    assert min((p for p in psnr_db if p is not None), default=np.inf) > 50


def test_what_the_demo_draws_is_healthy_and_no_picture_repeats_another() -> None:
    check_pictures(pictures(), width=64, height=64, may_be_flat=False)
    check_pictures(pictures(steps=3), width=64, height=64, may_be_flat=False)
