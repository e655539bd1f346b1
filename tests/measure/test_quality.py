"""CLIP score by the standard formula, likeness that is exact for equal pictures, and words for prompts too long."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from autotune import demo
from autotune.demo.shapes import render, scene_of
from autotune.errors import UserError
from autotune.measure.quality import Scorer, judge, likeness, picture_name
from autotune.trial import Quality

PROMPTS = (
    "a large red circle at the top on a white background",
    "a small blue star at the left on a yellow background",
    "a large green square at the center on a black background",
)


def drawn(prompt: str) -> Image.Image:
    return Image.fromarray(np.asarray(render(scene_of(prompt), random.Random(0))))


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer("demo")


def test_right_captions_score_far_above_wrong_ones_and_black(scorer: Scorer) -> None:
    pictures = [drawn(prompt) for prompt in PROMPTS]
    right = scorer.scores(pictures, PROMPTS)
    wrong = scorer.scores(pictures, PROMPTS[1:] + PROMPTS[:1])
    black = scorer.scores([Image.new("RGB", (64, 64))] * 3, PROMPTS)
    assert min(right) > 80
    assert max(wrong) < 60
    assert max(black) < 60


def test_the_score_is_the_standard_formula_of_clips_own_features(scorer: Scorer) -> None:
    """100 x cosine, each picture and caption alone and unpadded, as torchmetrics does it (whose own code can't read the
    outputs of transformers 5)."""
    model = CLIPModel.from_pretrained(demo.CLIP, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(demo.CLIP)
    processor = CLIPImageProcessorPil.from_pretrained(demo.CLIP)
    for prompt in PROMPTS:
        with torch.no_grad():
            picture = model.get_image_features(**processor(images=[drawn(prompt)], return_tensors="pt")).pooler_output
            caption = model.get_text_features(**tokenizer([prompt], return_tensors="pt")).pooler_output
        cosine = float((picture * caption).sum() / picture.norm() / caption.norm())
        assert scorer.scores([drawn(prompt)], [prompt])[0] == pytest.approx(100 * cosine, abs=1e-3)


def test_a_prompt_longer_than_the_scorer_reads_is_refused(scorer: Scorer) -> None:
    with pytest.raises(UserError, match=r"has \d+ tokens, the scorer reads 24: shorten it"):
        scorer.check_prompts([PROMPTS[0], " ".join(PROMPTS)])


def test_equal_pictures_are_exactly_alike_and_others_are_not() -> None:
    a, b = drawn(PROMPTS[0]), drawn(PROMPTS[1])
    assert likeness([a, a], [a, b])[0][0] == 1.0
    ssim, psnr_db = likeness([a, a], [a, b])
    assert psnr_db[0] is None
    assert ssim[1] < 0.9
    assert psnr_db[1] is not None
    assert psnr_db[1] < 20


@pytest.mark.parametrize("name", ["demo", None])
def test_a_folder_of_pictures_is_judged_against_the_baselines(tmp_path: Path, name: str | None) -> None:
    for folder, shift in (("baseline", 0), ("mine", 1)):
        (tmp_path / folder).mkdir()
        for index in range(3):
            drawn(PROMPTS[(index + shift) % 3]).save(tmp_path / folder / picture_name(index))
    baseline = judge(tmp_path / "baseline", tmp_path / "baseline", PROMPTS, name)
    mine = judge(tmp_path / "mine", tmp_path / "baseline", PROMPTS, name)
    assert baseline.loss(baseline) == 0
    assert mine.loss(baseline) > 20
    assert mine.metric == ("clip" if name else "likeness")


def test_a_config_can_not_win_by_drifting_above_the_baseline() -> None:
    def quality(*scores: float) -> Quality:
        ones = (1.0,) * len(scores)
        return Quality(metric="clip", scorer="x", clip_scores=scores, ssim=ones, psnr_db=(None,) * len(scores))

    assert quality(31.0, 32.0).loss(quality(30.0, 30.0)) == 0
    assert quality(29.0, 30.0).loss(quality(30.0, 30.0)) == 0.5
    assert quality(29.0, 32.0).paired_drop(quality(30.0, 30.0)).mean == -0.5
