"""Damaged and missing files of a study: each costs what it holds, and no finished trial is overwritten."""

import json
from pathlib import Path

import pytest
from conftest import make_target
from made_up import measured, record
from PIL import Image

from autotune.errors import UserError
from autotune.frozen_model import write_json
from autotune.knobs import complete
from autotune.report.page.contact_sheet import contact_sheet
from autotune.report.page.gallery import reels
from autotune.report.summary import read_summary
from autotune.report.table import trials_rows
from autotune.report.terminal.watch import Watch
from autotune.research.score import _earlier_scores
from autotune.study.record import read_anchors, read_trial, read_trials, warn_once, write_anchor, write_trial
from autotune.study.space import make_space
from autotune.study.space_file import shipped_space_file
from autotune.study.study import Study
from autotune.study_folder import StudyFolder, picture_name
from autotune.trial import Anchor
from autotune.tuning.export import read_thumbnails

SPACE = make_space(make_target(), shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({}))
VALUES = [{}, {"dtype": "bf16"}, {"qkv_fusion": True}, {"vae_slicing": True}]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study of four trials and an anchor."""
    warn_once.cache_clear()
    made = StudyFolder(tmp_path)
    write_json(made.study, record(space=SPACE.values).to_json())
    for number, values in enumerate(VALUES):
        write_trial(made, measured(number, values))
    again = measured(0).measured
    assert again is not None
    write_anchor(made, Anchor(before=2, outcome=again, seconds=1.0))
    return made


def search(folder: StudyFolder) -> Study:
    return Study(folder, record(space=SPACE.values), SPACE, sampler="random")


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:200])


def test_the_next_trial_never_takes_the_folder_of_a_finished_one(folder: StudyFolder) -> None:
    (folder.trial(1) / "trial.json").unlink()
    folder.trial(1).rmdir()
    study = search(folder)
    asked = study.ask()
    assert asked is not None
    assert asked[0] == 4
    study.tell(measured(4, asked[1]))
    assert [trial.number for trial in read_trials(folder)] == [0, 2, 3, 4]


def test_without_a_baseline_no_other_trial_takes_its_place(folder: StudyFolder) -> None:
    (folder.trial(0) / "trial.json").unlink()
    for use in (read_trials, search, lambda f: read_summary(f.path), lambda f: Watch(f.path).look()):
        with pytest.raises(UserError, match=r"has no measured baseline: .*trials/0000/trial.json' is missing"):
            use(folder)


@pytest.mark.parametrize("content", ["", '{"number": 2', '{"number": 3}', "[" * 100_000, "null"])
def test_a_damaged_trial_costs_that_trial_and_one_warning(
    folder: StudyFolder, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.trial(2) / "trial.json").write_text(content)
    with caplog.at_level("WARNING", "autotune"):
        assert [row["trial"] for row in trials_rows(folder.path)] == [0, 1, 3]
        assert [trial.number for trial in read_summary(folder.path).trials] == [0, 1, 3]
        assert Watch(folder.path).look().done == 3
    assert len([line for line in caplog.messages if "trials/0002/trial.json" in line]) == 1


def test_a_search_sets_a_damaged_trial_aside_and_may_try_its_config_again(folder: StudyFolder) -> None:
    cut(folder.trial(3) / "trial.json")
    study = search(folder)
    assert (folder.trial(3) / "trial.json.damaged").exists()
    assert complete(VALUES[3]) not in study.tried()
    asked = study.ask()
    assert asked is not None
    assert asked[0] == 4  # the damaged one keeps its number and folder
    assert [trial.number for trial in search(folder).trials] == [0, 1, 2]


def test_a_trial_in_the_folder_of_another_is_damaged(folder: StudyFolder) -> None:
    (folder.trial(2) / "trial.json").write_text((folder.trial(3) / "trial.json").read_text())
    assert [trial.number for trial in read_trials(folder)] == [0, 1, 3]


def test_a_damaged_baseline_is_named_and_is_measured_again_only_where_nothing_was_compared_with_it(
    folder: StudyFolder,
) -> None:
    cut(folder.trial(0) / "trial.json")
    with pytest.raises(UserError, match=r"trials/0000/trial.json.*It is the baseline"):
        search(folder)
    for number in (1, 2, 3):
        (folder.trial(number) / "trial.json").unlink()
    asked = search(folder).ask()
    assert asked is not None
    assert asked[2] == "baseline"


def test_a_damaged_anchor_costs_that_anchor(folder: StudyFolder) -> None:
    cut(folder.anchor(2) / "anchor.json")
    assert read_anchors(folder) == []
    assert len(search(folder).trials) == 4
    assert (folder.anchor(2) / "anchor.json.damaged").exists()


@pytest.mark.parametrize("junk", ["0001.bak", "-1", "0x1", "notes", "0009"])
def test_what_else_lies_among_the_trials_is_left_alone(folder: StudyFolder, junk: str) -> None:
    (folder.path / "trials" / junk).mkdir()
    (folder.path / "anchors" / junk).mkdir()
    (folder.path / "trials" / "0007").write_text("a file")
    assert len(read_trials(folder)) == 4
    assert Watch(folder.path).look().done == 4
    assert read_summary(folder.path).baseline is not None


def test_a_job_that_was_cut_short_is_no_obstacle(folder: StudyFolder) -> None:
    folder.trial(4).mkdir()
    (folder.trial(4) / "job.json").write_text('{"values": {"dty')
    assert search(folder).ask() is not None
    assert Watch(folder.path).look().now == "between two trials"


@pytest.mark.parametrize("damage", ["cut", "no picture", "bomb", "empty"])
def test_a_damaged_picture_costs_that_picture(
    folder: StudyFolder, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (0, 1):
        for index in (0, 1):
            place = folder.trial(number) / "images" / picture_name(index)
            place.parent.mkdir(exist_ok=True)
            Image.effect_noise((64, 64), 50).convert("RGB").save(place)
    place = folder.trial(1) / "images" / picture_name(0)
    if damage == "bomb":
        Image.new("1", (8192, 8200)).save(place)
    else:
        place.write_bytes({"cut": place.read_bytes()[:900], "no picture": b"GIF?", "empty": b""}[damage])
    with caplog.at_level("WARNING", "autotune"):
        assert [len(reel.shots) for reel in reels(folder, [1], ("a", "b"))] in ([1, 1], [2])
        assert contact_sheet(folder, 1) is not None
        assert read_thumbnails(folder.trial(1), make_target().workload) == ()  # of its only prompt
    assert len([line for line in caplog.messages if "trials/0001/images/000.png" in line]) == 1


@pytest.mark.parametrize(
    ("field", "figure"),
    [
        ("latency_samples_s", []),
        ("latency_samples_s", [1.0]),
        ("latency_samples_s", [-1.0] * 5),
        ("latency_samples_s", [0.0] * 5),
        ("latency_samples_s", [1e308] * 5),
        ("peak_memory_bytes", -1),
        ("first_call_s", -0.5),
        ("run_peak_memory_bytes", 10**30),
        ("ssim", []),
        ("ssim", [7.0, 7.0]),
        ("clip_scores", [1e308, 1e308]),
    ],
)
def test_figures_that_no_run_can_have_cost_their_trial(folder: StudyFolder, field: str, figure: object) -> None:
    path = folder.trial(2) / "trial.json"
    data = json.loads(path.read_text())
    outcome = data["outcome"]
    (outcome["quality"] if field in outcome["quality"] else outcome)[field] = figure
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=f"trials/0002/trial.json' can't be used: outcome.*{field}"):
        read_trial(path.parent)
    assert [trial.number for trial in read_trials(folder)] == [0, 1, 3]


def test_damaged_scores_are_set_aside(folder: StudyFolder, caplog: pytest.LogCaptureFixture) -> None:
    path = folder.scores("ssim")
    path.parent.mkdir()
    path.write_text('{"metric": "ss')
    assert _earlier_scores(path) is None
    assert path.with_name("ssim.json.damaged").exists()
    assert "It is kept as 'ssim.json.damaged', and the pictures are scored again" in caplog.text
    assert _earlier_scores(path) is None
