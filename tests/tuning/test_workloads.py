"""A search for several sizes, and the config that comes of it: the command line, real children, the demo."""

import json
from pathlib import Path

import pytest
from PIL import Image
from searches import command_here

from autotune.knobs import all_knobs
from autotune.production.tuned_config import TunedConfig
from autotune.study.record import read_record, read_trials
from autotune.study_folder import StudyFolder

PROMPTS = "a large red circle at the top on a white background\na small blue star at the left on a yellow background\n"
ONLY_MERGING = [word for name in all_knobs() if name != "tome_ratio" for word in ("--exclude", name)]
SIZES = ["--workload", "64x64", "--workload", "96x64@2"]
SHORT = ["--pipeline", "demo", "--device", "cpu", "--steps", "2", "--budget", "2", "--confirm-rounds", "0"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished search for two sizes, and what it printed."""
    folder = tmp_path_factory.mktemp("sizes")
    (folder / "prompts.txt").write_text(PROMPTS)
    (folder / "space.toml").write_text("[knobs]\ntome_ratio = [0.0, 0.5]\n")
    files = [
        "--prompts",
        folder / "prompts.txt",
        "--space",
        folder / "space.toml",
        "--study",
        folder / "study",
        "--max-quality-drop",
        "99",
    ]
    done = command_here("search", *SHORT, *ONLY_MERGING, *SIZES, "--minimise", "each", *files)
    assert done.returncode == 0, done.stderr
    return folder / "study", done.stdout


def test_every_config_is_timed_at_each_size_in_one_process(searched: tuple[Path, str]) -> None:
    trials = read_trials(StudyFolder(searched[0]))
    assert len(trials) == 2
    for trial in trials:
        assert trial.measured is not None
        assert [str(cost.shape) for cost in trial.measured.also] == ["96x64@2"]
        assert len(trial.measured.also[0].latency_samples_s) >= 5
        assert trial.measured.latency_s == sum(trial.measured.latencies_s)


def test_the_pictures_are_those_of_the_first_size(searched: tuple[Path, str]) -> None:
    for path in (StudyFolder(searched[0]).trial(1) / "images" / name for name in ("000.png", "001.png")):
        with Image.open(path) as picture:
            assert picture.size == (64, 64)


def test_the_record_says_what_was_minimised(searched: tuple[Path, str]) -> None:
    record = read_record(StudyFolder(searched[0]))
    assert record.goal.minimise == "each"
    assert [str(shape) for shape in record.target.workload.shapes] == ["64x64@1", "96x64@2"]


def test_the_export_has_the_latency_of_each_size(searched: tuple[Path, str]) -> None:
    tuned = TunedConfig.load(searched[0] / "best.json")
    assert list(tuned.tuned.latency_at_s) == ["64x64@1", "96x64@2"]
    assert tuned.tuned.latency_s == pytest.approx(sum(tuned.tuned.latency_at_s.values()))
    data = json.loads((searched[0] / "best.json").read_text())
    assert data["workload"]["also"] == [{"width": 96, "height": 64, "batch": 2}]


def test_the_lines_name_the_sizes(searched: tuple[Path, str]) -> None:
    assert "64x64@1 and 96x64@2, 2 steps" in searched[1]
    assert "96x64@2 " in next(line for line in searched[1].splitlines() if line.startswith("trial 1"))
