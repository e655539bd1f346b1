"""How a trial and a study are worded, above all where the workload has several sizes."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from made_up import failed, measured, quality
from rich.console import Console

from autotune.knobs import all_knobs, complete
from autotune.pipelines import resolve
from autotune.report import words
from autotune.report.terminal.search import front_table, header
from autotune.study.space import make_space
from autotune.study.space_file import SpaceFile, shipped_space_file
from autotune.target import Target
from autotune.trial import Trial
from autotune.tuning.events import Probed
from autotune.tuning.request import default_folder

ONE, TWO = measured(0), measured(0, latency_s=1.0, also=(2.0,))


def compiled_anew(trial: Trial, graphs: int) -> Trial:
    assert trial.measured is not None
    costs = tuple(cost.model_copy(update={"graphs_added": graphs}) for cost in trial.measured.also)
    return trial.model_copy(update={"outcome": trial.measured.model_copy(update={"also": costs})})


def test_a_trial_of_one_size_has_one_latency() -> None:
    assert words.outcome(measured(1, latency_s=0.5), ONE).startswith("500 ms +-0.0% (2.00x), 105 MB, CLIP")


def test_a_trial_of_several_sizes_has_their_sum_and_each() -> None:
    trial = measured(1, latency_s=0.5, also=(1.0,))
    assert words.outcome(trial, TWO).startswith("1.5 s (2.00x; 500 ms +-0.0%, 96x96@2 1 s +-0.0%), 105 MB, CLIP")


def test_what_was_compiled_anew_for_a_size_is_said() -> None:
    trial = measured(1, latency_s=0.5, also=(1.0,))
    assert "96x96@2 1 s +-0.0% with 1 more graph)" in words.outcome(compiled_anew(trial, 1), TWO)
    assert "96x96@2 1 s +-0.0% with 3 more graphs)" in words.outcome(compiled_anew(trial, 3), TWO)


def test_a_failure_is_its_reason_whatever_the_sizes() -> None:
    assert words.outcome(failed(1, cause="timeout"), TWO) == "timeout: made up"


def scored(number: int, *scores: float) -> Trial:
    """A trial of these CLIP scores."""
    judged = quality().model_copy(
        update={"clip_scores": scores, "ssim": (0.995,) * len(scores), "psnr_db": (None,) * len(scores)}
    )
    return measured(number, judged=judged)


def test_no_loss_is_never_told_without_the_smallest_that_could_have_been_seen() -> None:
    baseline = scored(0, *[30.0] * 16)
    trial = scored(1, *[30.09 + 0.23 * (-1) ** i for i in range(16)])
    told = words.quality(trial, baseline)
    assert re.fullmatch(r"CLIP \+0\.09 \+-0\.1\d \(16 pairs see drops from 0\.15\), SSIM 0\.995", told), told
    assert words.quality_lines(trial, baseline)[1] == "(16 pairs see drops from 0.15)"


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([30.0], "CLIP +0.00 +-? (1 pair shows no interval), SSIM 0.995"),
        ([30.0, 30.0], "CLIP +0.00 +-0.00, SSIM 0.995"),
        ([29.0, 30.0], "CLIP -0.50 +-? (2 pairs see drops from 1.24), SSIM 0.995"),
    ],
)
def test_few_pairs_claim_no_interval(scores: list[float], told: str) -> None:
    assert words.quality(scored(1, *scores), scored(0, *[30.0] * len(scores))) == told


def shown(trials: list[Trial], **how: Any) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(front_table(trials, **how))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_table_shows_the_latency_of_all_sizes_together_above_that_of_each() -> None:
    lines = [line.split() for line in shown([TWO]).splitlines()]
    row = next(i for i, line in enumerate(lines) if line[:1] == ["0"])
    assert [lines[row][1:3], lines[row + 1][:2], lines[row + 2][:2]] == [["3", "s"], ["1", "s"], ["2", "s"]]


def test_the_table_shows_the_front_of_what_was_minimised() -> None:
    trials = [TWO, measured(1, latency_s=0.8, also=(0.8,)), measured(2, latency_s=0.3, also=(1.6,))]
    each, together = (shown(trials, minimise=minimise) for minimise in ("each", "sum"))
    assert [line[0] for line in each.splitlines() if line[:1].isdigit()] == ["1", "2", "0"]
    assert [line[0] for line in together.splitlines() if line[:1].isdigit()] == ["1", "0"]


def lines_of(target: Target) -> list[str]:
    space = make_space(target, SpaceFile(), fix={}, exclude=all_knobs(), baseline=complete({}))
    return header(Probed(target, space, Path("here"), ())).splitlines()


def test_the_header_names_every_size() -> None:
    assert "64x64@1 and 96x96@2, 20 steps" in lines_of(make_target(sizes=2))[0]


def test_the_header_tells_what_is_not_possible_from_what_is_not_worth_trying() -> None:
    def said(bfloat16_fault: str | None) -> str:
        target = make_target()
        device = target.device.model_copy(update={"bfloat16_fault": bfloat16_fault})
        target = target.model_copy(update={"device": device})
        space = make_space(target, shipped_space_file("default.toml"), fix={}, exclude=(), baseline=complete({}))
        return header(Probed(target, space, Path("here"), ())).splitlines()[1]

    whole, slow = said(None), said("it takes long here")
    possible = r"(\d+) values are not possible here"
    assert re.search(possible + r", 1 not worth trying \(", slow)
    assert re.search(possible + r" \(", whole)
    assert re.findall(possible, slow) == re.findall(possible, whole)


def test_the_header_says_nothing_of_what_is_fed_where_it_is_the_prompts_alone() -> None:
    assert len(lines_of(make_target())) == 3


@pytest.mark.parametrize(
    ("traits", "says"),
    [
        (
            {"inputs": {"image": "photo", "mask_image": "mask"}},
            "starts from pictures made by autotune (photo, mask)",
        ),
        ({"random_prompt_embeds": True}, "prompts replaced by random embeddings"),
        (
            {"random_prompt_embeds": True, "inputs": {"image": "small"}},
            "starts from pictures made by autotune (small); prompts replaced by random embeddings",
        ),
    ],
)
def test_the_header_says_what_is_fed_instead_of_or_beside_the_prompts(traits: dict[str, object], says: str) -> None:
    assert lines_of(make_target(**traits))[1] == says  # type: ignore[arg-type]


def test_what_was_asked_for_on_top_of_a_pipeline_is_in_the_command_and_in_the_folders_name() -> None:
    target = make_target()
    asked = resolve("sd15", task="image2image", lora="some/fine-lora").model_copy(
        update={"traits": target.pipeline.traits}
    )
    lines = lines_of(target.model_copy(update={"pipeline": asked}))
    assert "(autotune knobs --pipeline sd15 --task image2image --lora some/fine-lora)" in lines[1]
    assert "-sd15-image2image-fine-lora-" in default_folder(asked, target.device).name
    assert default_folder(resolve("sd15-img2img"), target.device).name.endswith("-sd15-img2img-cpu")
