"""autotune score: saved pictures scored again, all or none, without mixing identities or running a trial."""

import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_target
from made_up import measured, record
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from autotune.cli import app, main
from autotune.demo.shapes import render, scene_of
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.frozen_model import write_json
from autotune.job import RescoreJob
from autotune.measure.metrics import all_metrics
from autotune.report.terminal.score import scores_table, verdict
from autotune.research import score as scoring
from autotune.research.score import Scores, read_scores, score
from autotune.statistics.paired import paired
from autotune.study.record import write_trial
from autotune.study_folder import StudyFolder, picture_name
from autotune.trial import Failure, Trial
from autotune.workload import PROMPTS, digest_of, read_prompts

TEXTS = read_prompts(PROMPTS / "demo.txt").first(6).texts


def drawn(prompt: str, seed: int) -> Image.Image:
    return Image.fromarray(np.asarray(render(scene_of(prompt), random.Random(seed))))


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """A study of six prompts: the baseline, one trial of the right pictures, one of wrong ones, one that failed."""
    reference = drawn(TEXTS[0], 99)
    digests = (digest_of(reference), *[""] * 5)
    target = make_target()
    workload = target.workload.model_copy(update={"prompts": TEXTS, "references": digests})
    folder = StudyFolder(tmp_path / "study")
    folder.references.mkdir(parents=True)
    reference.save(folder.reference(digests[0]))
    write_json(folder.study, record(target.model_copy(update={"workload": workload})).to_json())
    for number, shift in ((0, 0), (1, 0), (2, 1)):
        write_trial(folder, with_scorer(measured(number, {"qkv_fusion": number == 1})))
        (folder.trial(number) / "images").mkdir()
        for i in range(6):
            path = folder.trial(number) / "images" / picture_name(i)
            drawn(TEXTS[(i + shift) % 6], 10 * number + i).save(path)
    failure = Failure(cause="error", reason="made up")
    write_trial(folder, measured(3).model_copy(update={"outcome": failure}))
    return folder


def with_scorer(trial: Trial) -> Trial:
    """The trial with a quality by another scorer than today's."""
    assert trial.measured is not None
    assert trial.measured.quality is not None
    judged = trial.measured.quality.model_copy(update={"scorer": "demo@000000000000"})
    return trial.model_copy(update={"outcome": trial.measured.model_copy(update={"quality": judged})})


def test_pictures_are_scored_again_without_running_a_trial(study: StudyFolder, tmp_path: Path) -> None:
    """A real child, all trials and metrics in one."""
    (tmp_path / "mine.py").write_text(
        "def red(images, prompts, references):\n    return [float(len(p)) for p in prompts]\n"
    )
    before = {path: path.read_bytes() for path in study.path.rglob("*") if path.is_file()}
    taken = score(study.path, ["clip_score", "ssim", f"{tmp_path / 'mine.py'}:red"], run_code=True)
    assert [s.scores.metric for s in taken] == ["clip_score", "ssim", "user_red"]
    after = {path: path.read_bytes() for path in study.path.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before, "scoring changes nothing that a search has written"
    clip, ssim, red = (s.scores for s in taken)
    assert set(clip.trials) == {0, 1, 2}, "what failed has no pictures"
    assert [read_scores(study.scores(s.metric)) for s in (clip, ssim, red)] == [clip, ssim, red]
    wrong = clip.drop(2)
    assert wrong is not None
    assert wrong.is_detectable
    assert wrong.mean > 20
    assert clip.identity.startswith("demo@")
    assert clip.references == (), "compared with no picture"
    assert ssim.references[1:] == ("baseline",) * 5
    assert ssim.references[0] == digest_of(drawn(TEXTS[0], 99))
    assert ssim.trials[0][0] != 1, "the baseline's picture is compared with the user's own"
    assert ssim.trials[0][1:] == (1.0,) * 5
    assert red.trials[1] == tuple(float(len(text)) for text in TEXTS)
    assert "the search scored with demo@000000000000" in taken[0].notes[0]
    assert "5 of 6 pictures are compared with the baseline's own" in taken[1].notes[0]


Child = Callable[..., None]


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Child:
    """A child that makes scores up; `child(identity=...)` or `child(failure=...)` sets its answer."""
    answers: dict[str, Any] = {"identity": "model@1", "better": "higher", "failure": None, "spread": 0.0}

    def run(folder: Path, job: RescoreJob, **how: Any) -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        if answers["failure"]:
            return answers["failure"]
        rng = np.random.default_rng(0)
        trials = {n: [30.0 - n + answers["spread"] * x for x in rng.normal(size=6)] for n in job.images}
        each = {"unit": "points", "needs_reference": False, "trials": trials}
        each |= {"identity": answers["identity"], "better": answers["better"]}
        return {"scores": [{"metric": metric.name, **each} for metric in job.metrics]}

    monkeypatch.setattr(isolate, "run", run)
    return answers.update


def test_scores_of_another_identity_replace_the_earlier_ones_and_say_so(study: StudyFolder, child: Child) -> None:
    """Promise 17: no file holds scores of two identities."""
    (first,) = score(study.path, ["pickscore"])
    assert first.notes == ()
    (again,) = score(study.path, ["pickscore"])
    assert again.notes == ()
    child(identity="model@2")
    (other,) = score(study.path, ["pickscore"])
    assert other.notes == ("replaces scores of model@1, which can't be compared with these",)
    assert read_scores(study.scores("pickscore")).identity == "model@2"
    assert set(read_scores(study.scores("pickscore")).trials) == {0, 1, 2}


def test_a_child_that_fails_leaves_the_earlier_scores(study: StudyFolder, child: Child) -> None:
    score(study.path, ["pickscore"])
    before = study.scores("pickscore").read_bytes()
    child(failure=Failure(cause="error", reason="ValueError: no"))
    with pytest.raises(UserError, match=r"ValueError: no; see .*log\.txt\.$"):
        score(study.path, ["pickscore"])
    child(failure=Failure(cause="bad_input", reason="the prompt is too long."))
    with pytest.raises(UserError, match=r"^the prompt is too long\.$"):
        score(study.path, ["pickscore"])
    assert study.scores("pickscore").read_bytes() == before


def test_the_device_and_the_model_are_handed_on(study: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RescoreJob] = []

    def run(folder: Path, job: RescoreJob, **how: Any) -> Failure:
        seen.append(job)
        return Failure(cause="bad_input", reason="enough.")

    monkeypatch.setattr(isolate, "run", run)
    for words in (["clip_score", "ssim"], ["clip_score=owner/model"], [f"pickscore={study.path}"]):
        with pytest.raises(UserError, match="enough"):
            score(study.path, words, device="cpu")
    first, hub, local = ([(metric.name, metric.source) for metric in job.metrics] for job in seen)
    assert first == [("clip_score", "demo"), ("ssim", None)], "the study's own scorer where none is named"
    assert hub == [("clip_score", "owner/model")]
    assert local == [("pickscore", str(study.path.resolve()))]
    assert seen[0].device == "cpu"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["clip_scor"], "unknown metric 'clip_scor': did you mean 'clip_score'?"),
        (["ssim="], "NAME or NAME=SOURCE"),
        (["ssim=owner/model"], "ssim has no model to choose"),
        (["ssim", "ssim"], "given twice"),
        (["clip_score=a/b", "clip_score=c/d"], "given twice"),
        ([], "no metric is named"),
        (["gone.py:f"], "there is no file 'gone.py'"),
        (["mine.py"], "FILE.py:FUNCTION"),
        (["mine.py:f"], "add --run-code"),
    ],
)
def test_words_that_name_no_metric_are_refused_before_a_child_starts(
    study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.setattr(isolate, "run", lambda *a, **k: pytest.fail("a child was started"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("raise SystemExit('the code ran')\n")
    with pytest.raises(UserError) as refused:
        score(study.path, words)
    assert says in str(refused.value)
    assert not (study.path / "scores").exists()


def lose(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda study: lose(study.trial(2) / "images" / "003.png"), r"trial 2 has no picture .*003\.png"),
        (lambda study: lose(next(study.references.iterdir())), "no reference picture"),
        (lambda study: lose(study.study), "is not a study folder"),
        (lambda study: lose(study.trial(0) / "trial.json"), "no measured baseline"),
        (
            lambda study: (study.path / "scores").mkdir() or study.scores("ssim").write_text('{"schema_version": 9}'),
            "newer",
        ),
    ],
)
def test_a_study_that_can_not_be_scored_is_one_sentence(
    study: StudyFolder, child: Child, spoil: Callable[[StudyFolder], object], says: str
) -> None:
    spoil(study)
    with pytest.raises(UserError, match=says):
        score(study.path, ["ssim"])


def test_a_search_that_runs_in_the_folder_is_not_disturbed(study: StudyFolder, child: Child) -> None:
    with study.lock(), pytest.raises(UserError, match="another search is running"):
        score(study.path, ["ssim"])


def scores(*trials: tuple[float | None, ...], better: str = "higher", references: tuple[str, ...] = ()) -> Scores:
    about = {"created": "now", "metric": "m", "identity": "i", "unit": "", "device": "cpu", "references": references}
    return Scores.model_validate({**about, "better": better, "trials": dict(enumerate(trials))})


def test_a_drop_is_positive_where_the_trial_is_worse_whatever_is_better() -> None:
    up = scores((3.0, 3.0), (1.0, 1.0))
    down = scores((1.0, 1.0), (3.0, 3.0), better="lower")
    for found in (up, down):
        drop = found.drop(1)
        assert drop is not None
        assert drop.mean == 2
    assert (up.worst(1), down.worst(1), up.mean(1)) == (1.0, 3.0, 1.0)


def test_pictures_without_a_number_are_left_out_in_pairs() -> None:
    found = scores((None, 30.0, 30.0), (40.0, None, 25.0))
    drop = found.drop(1)
    assert drop is not None
    assert (drop.n, drop.mean) == (1, 5.0)
    assert scores((None, None), (1.0, 2.0)).drop(1) is None
    assert scores((None, None), (1.0, 2.0)).mean(0) is None


@pytest.mark.parametrize(
    ("drops", "says"),
    [
        ([1.0], "one pair"),
        ([0.0] * 4, "the same"),
        ([1.0] * 4, "worse"),
        ([-1.0] * 4, "better"),
        ([1, -1] * 8, "not seen"),
    ],
)
def test_a_verdict_says_no_more_than_the_pairs_show(drops: list[float], says: str) -> None:
    assert verdict(paired(drops)) == says


def shown(study: StudyFolder, *words: str) -> Any:
    return CliRunner().invoke(app, ["score", str(study.path), *words])


def test_the_table_has_every_trial_with_its_difference_and_what_it_could_have_shown(
    study: StudyFolder, child: Child
) -> None:
    child(spread=0.3)
    text = shown(study, "--metric", "pickscore").stdout
    assert "pickscore by model@1, in points, 6 pictures a trial; higher is better" in " ".join(text.split())
    assert "sees from" in text
    assert "worse" in text
    found = re.search(r"(-\d\.\d+) \((-\d\.\d+) to (-\d\.\d+)\)", text)
    assert found is not None, "the interval of the worse one lies below zero"
    assert float(found[2]) < float(found[1]) < float(found[3])
    assert "qkv_fusion=True" in text
    assert [line.split()[0] for line in text.splitlines() if line[:1].isdigit()] == ["0", "1", "2"]


def test_json_has_one_line_a_metric_with_all_that_the_table_says(study: StudyFolder, child: Child) -> None:
    lines = shown(study, "--metric", "pickscore", "--metric", "ssim", "--json").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [data["metric"] for data in found] == ["pickscore", "ssim"]
    row = found[0]["trials"][2]
    assert (row["trial"], row["mean"], row["drop"]["n"]) == (2, 28.0, 6)
    assert row["config"]["dtype"] == "fp32"


def test_likeness_is_never_called_a_loss() -> None:
    same = scores((1.0,) * 6, (0.9, 0.8, 0.85, 0.9, 0.8, 0.85), references=("baseline",) * 6)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(scores_table(scoring.Scored(path="p", scores=same, notes=()), {1: measured(1).config}))
    assert "worse" not in console.export_text()


def test_the_commands_help_names_every_metric() -> None:
    text = CliRunner().invoke(app, ["score", "--help"]).stdout
    assert all(name in text for name in all_metrics())


def test_bad_input_is_exit_code_2_and_one_sentence(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["autotune", "score", str(study.path), "--metric", "clip_scor"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "autotune: unknown metric 'clip_scor': did you mean 'clip_score'?\n"
