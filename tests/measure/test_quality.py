"""What the search judges pictures by: the metrics put together, paired with the baseline's."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autotune.demo.shapes import render, scene_of
from autotune.errors import UserError
from autotune.measure import quality as judging
from autotune.measure.metrics import Judge
from autotune.measure.quality import judge
from autotune.measurement import Quality
from autotune.statistics.paired import paired_drop
from autotune.study_folder import picture_name

PROMPTS = (
    "a large red circle at the top on a white background",
    "a small blue star at the left on a yellow background",
    "a large green square at the center on a black background",
)


def drawn(prompt: str) -> Image.Image:
    return Image.fromarray(np.asarray(render(scene_of(prompt), random.Random(0))))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Pictures of other prompts, and the baseline's."""
    for folder, shift in (("baseline", 0), ("mine", 1)):
        (tmp_path / folder).mkdir()
        for index in range(3):
            drawn(PROMPTS[(index + shift) % 3]).save(tmp_path / folder / picture_name(index))
    return tmp_path / "mine", tmp_path / "baseline"


@pytest.mark.parametrize("name", ["demo", None])
def test_a_folder_of_pictures_is_judged_against_the_baselines(folders: tuple[Path, Path], name: str | None) -> None:
    baseline = judge(folders[1], folders[1], PROMPTS, name)
    mine = judge(*folders, PROMPTS, name)
    assert baseline.loss(baseline) == 0
    assert mine.loss(baseline) > 20
    assert baseline.worst_place_levels == 0
    assert mine.worst_place_levels == max((*mine.worst_cell_levels, *mine.worst_row_levels, *mine.worst_column_levels))
    assert mine.worst_place_levels > 20
    assert mine.metric == ("clip" if name else "likeness")
    assert (mine.scorer or "").split("@")[0] == (name or "")


def test_lpips_is_judged_too_where_its_weights_are(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(*folders, PROMPTS, None).lpips == () or judging.lpips.why_not() is None
    fake = Judge("fake", lambda images, prompts, references: [0.1, 0.2, 0.3])
    metric = judging.lpips.METRIC
    monkeypatch.setattr(judging.lpips, "why_not", lambda: None)
    real = judging.find_metric
    monkeypatch.setattr(
        judging,
        "find_metric",
        lambda name: type(metric)(**{**metric.__dict__, "load": lambda *a: fake}) if name == "lpips" else real(name),
    )
    found = judge(*folders, PROMPTS, None)
    assert (found.lpips, found.lpips_worst) == ((0.1, 0.2, 0.3), 0.3)


def test_a_prompt_that_the_scorer_can_not_read_whole_has_no_score(folders: tuple[Path, Path]) -> None:
    """T5 reads what CLIP would cut: such a picture has likeness alone. Where CLIP can read none, that is refused."""
    found = judge(*folders, [PROMPTS[0], " ".join(PROMPTS), PROMPTS[2]], "demo")
    assert [score is None for score in found.clip_scores] == [False, True, False]
    assert len(found.drops(found)) == 2
    with pytest.raises(UserError, match="the scorer reads 24: shorten it"):
        judge(*folders, [" ".join(PROMPTS)] * 3, "demo")


def test_a_config_can_not_win_by_drifting_above_the_baseline() -> None:
    def quality(*scores: float) -> Quality:
        ones = (1.0,) * len(scores)
        return Quality(metric="clip", scorer="x", clip_scores=scores, ssim=ones, psnr_db=(None,) * len(scores))

    assert quality(31.0, 32.0).loss(quality(30.0, 30.0)) == 0
    assert quality(29.0, 30.0).loss(quality(30.0, 30.0)) == 0.5
    assert paired_drop(quality(29.0, 32.0), quality(30.0, 30.0)).mean == -0.5
