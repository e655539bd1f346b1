"""A real search of the demo whose trials reuse the work of earlier ones, with a knob that wrongly claims to keep the
picture; then everything that reads a study reads this one. It is run once for all tests here.
"""

import json
import subprocess
import sys
from collections.abc import Iterator

import plugin
import pytest

from autotune.errors import UserError
from autotune.knobs import all_knobs, complete
from autotune.measure.latency import LEAST_CALLS
from autotune.measurement import Measurement
from autotune.recordings.from_study import recording_of
from autotune.report.summary import StudySummary, read_summary
from autotune.report.table import trials_rows
from autotune.research.score import score
from autotune.study.record import read_trials
from autotune.study_folder import StudyFolder, picture_name
from autotune.trial import Failure, Trial
from autotune.tuning.export import export_from

PROMPTS = (
    "a large red circle at the top on a white background\na small blue star at the left on a yellow background\n"
    "a small green square at the bottom on a black background\n"
)
RECIPES: dict[str, dict[str, object]] = {
    "layout": {"memory_format": "channels_last"},
    "shift": {"liar": "shift"},
    "shift in another layout": {"liar": "shift", "memory_format": "channels_last"},
    "black": {"liar": "black"},
    "merging": {"tome_ratio": 0.5},
    "merging in another layout": {"tome_ratio": 0.5, "memory_format": "channels_last"},
    "waste": {"tome_ratio": 0.5, "liar": "waste"},
    "compiled": {"compile": "regional"},
    "compiled, of more steps": {"compile": "regional", "steps": 3},
}
BASELINE, LAYOUT, SHIFT, SHIFT_LAYOUT, BLACK, MERGING, MERGING_LAYOUT, WASTE, COMPILED, OF_MORE_STEPS = range(10)


@pytest.fixture(scope="module", autouse=True)
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which the knob is there, for children; here it is, too, while these tests run."""
    site = tmp_path_factory.mktemp("site")
    found = plugin.install(site, "lying_knob", "liar")
    sys.path.insert(0, str(site))
    all_knobs.cache_clear()
    yield found
    sys.path.remove(str(site))
    all_knobs.cache_clear()


@pytest.fixture(scope="module")
def searched(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, str]:
    """The study, and what the search has said."""
    folder = tmp_path_factory.mktemp("reuse")
    (folder / "prompts.txt").write_text(PROMPTS)
    knobs = {name: json.dumps(value) for name, value in complete({}).items() if name != "liar"}
    free = {"memory_format": '["contiguous", "channels_last"]', "tome_ratio": "[0.0, 0.5]"}
    free |= {"compile": '["off", "regional"]', "steps": '["workload", 3]'}
    free["liar"] = '["no", "shift", "black", "waste"]'
    tables = {name: ", ".join(f"{k} = {json.dumps(v)}" for k, v in values.items()) for name, values in RECIPES.items()}
    recipes = "".join(f'[[recipes]]\nname = "{name}"\nvalues = {{ {table} }}\n' for name, table in tables.items())
    lines = "".join(f"{name} = {value}\n" for name, value in (knobs | free).items())
    (folder / "space.toml").write_text(f"[knobs]\n{lines}{recipes}")
    words = ["--pipeline", "demo", "--steps", "2", "--device", "cpu", "--prompts", folder / "prompts.txt"]
    words += ["--space", folder / "space.toml", "--study", folder / "study", "--budget", "10", "--confirm-rounds", "0"]
    command = [sys.executable, "-m", "autotune.cli", "search", *map(str, words), "--isolation", "fork"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return StudyFolder(folder / "study"), done.stdout


@pytest.fixture(scope="module")
def study(searched: tuple[StudyFolder, str]) -> StudyFolder:
    return searched[0]


@pytest.fixture(scope="module")
def trials(study: StudyFolder) -> list[Trial]:
    return read_trials(study)


@pytest.fixture(scope="module")
def summary(study: StudyFolder) -> StudySummary:
    return read_summary(study.path)


def measured(trial: Trial) -> Measurement:
    assert isinstance(trial.outcome, Measurement), trial.outcome
    return trial.outcome


def pictures(study: StudyFolder, number: int) -> list[str]:
    return sorted(path.name for path in (study.trial(number) / "images").glob("*.png"))


@pytest.mark.parametrize(("number", "source"), [(LAYOUT, BASELINE), (MERGING_LAYOUT, MERGING)])
def test_an_equivalent_config_draws_one_picture_and_gets_the_scores_of_its_source(
    study: StudyFolder, trials: list[Trial], number: int, source: int
) -> None:
    mine = measured(trials[number])
    assert mine.quality_of == source
    assert mine.quality == measured(trials[source]).quality
    assert pictures(study, number) == [picture_name(number % 3)]
    assert mine.spot_check is not None
    assert (mine.spot_check.prompt, mine.spot_check.trial, mine.spot_check.same, mine.spot_check.mismatch) == (
        number % 3,
        source,
        True,
        None,
    )
    assert not (study.trial(number) / "score").exists()
    assert mine.score_s is None


def test_a_knob_that_lies_is_found_out_and_all_is_drawn_and_judged(study: StudyFolder, trials: list[Trial]) -> None:
    mine = measured(trials[SHIFT])
    assert mine.quality_of is None
    assert pictures(study, SHIFT) == [picture_name(i) for i in range(3)]
    assert mine.spot_check is not None
    assert mine.spot_check.mismatch is not None
    assert mine.spot_check.mismatch.startswith("liar=shift changed the picture here: SSIM 0.")
    assert mine.quality is not None
    assert mine.quality.ssim_worst < 0.99
    assert mine.score_s is not None


def test_a_knob_that_was_found_out_is_not_trusted_any_more(trials: list[Trial]) -> None:
    """Its config gets the pictures of the other one that has it, and not the baseline's."""
    assert measured(trials[SHIFT_LAYOUT]).quality_of == SHIFT


def test_a_black_picture_is_caught_though_only_one_is_drawn(trials: list[Trial]) -> None:
    outcome = trials[BLACK].outcome
    assert isinstance(outcome, Failure)
    assert outcome.cause == "broken_output"


def test_a_trial_that_can_not_reach_the_front_is_stopped_and_says_why(study: StudyFolder, trials: list[Trial]) -> None:
    mine = measured(trials[WASTE])
    assert mine.stopped is not None
    assert mine.stopped.startswith("can't reach the front: trial ")
    assert mine.quality is None
    assert mine.stopped_by == "race"
    assert len(mine.latency_samples_s) >= LEAST_CALLS  # short calls are taken several at a time, so it may be more
    assert pictures(study, WASTE) == []


def test_graphs_are_compiled_once_and_cost_what_they_have_cost(trials: list[Trial]) -> None:
    theirs, mine = measured(trials[COMPILED]), measured(trials[OF_MORE_STEPS])
    assert theirs.compilation is not None
    assert mine.compilation is not None
    assert theirs.compilation.uncached == theirs.compilation.graphs == mine.compilation.graphs > 0
    assert (mine.compilation.uncached, theirs.compiled_as) == (0, None)
    assert mine.compiled_as is not None
    assert mine.compiled_as.trial == COMPILED
    assert mine.compile_s == theirs.compile_s
    assert mine.first_calls_s[0] > theirs.compilation.seconds
    assert mine.peak_memory_bytes >= theirs.peaks["first"].device_bytes


def test_the_front_and_the_table_of_trials_have_it_right(
    summary: StudySummary, searched: tuple[StudyFolder, str]
) -> None:
    assert WASTE not in {trial.number for trial in summary.front}
    kinds = {row.number: row.kind for row in summary.rows}
    assert (kinds[WASTE], kinds[BLACK]) == ("stopped", "failed")
    said = {row.number: row.reason for row in summary.rows}
    assert said[LAYOUT].startswith("pictures as trial 0's (one compared, SSIM ")
    assert "liar=shift changed the picture here" in said[SHIFT]
    assert said[WASTE].startswith("stopped: can't reach the front")
    assert "liar=shift changed the picture here" in searched[1]


def test_the_report_shows_it(study: StudyFolder) -> None:
    page = study.report.read_text(encoding="utf-8")
    assert "can&#39;t reach the front: trial" in page
    assert "1 trial ran what an earlier one had compiled" in page
    assert " drew none" in page
    assert "liar=shift changed the picture here" in study.report_markdown.read_text(encoding="utf-8")


def test_pictures_are_scored_anew_for_each_trial_that_they_stand_for(study: StudyFolder) -> None:
    [found] = score(study.path, ["ssim"])
    trials = found.scores.trials
    assert set(trials) - {COMPILED, OF_MORE_STEPS} == {BASELINE, LAYOUT, SHIFT, SHIFT_LAYOUT, MERGING, MERGING_LAYOUT}
    assert trials[SHIFT_LAYOUT] == trials[SHIFT] != trials[BASELINE] == trials[LAYOUT]


def test_a_trial_with_reused_pictures_is_exported_with_those_of_its_source_and_says_so(study: StudyFolder) -> None:
    mine, base = (export_from(study.path, str(number)) for number in (LAYOUT, BASELINE))
    assert len(mine.pictures) == 3
    assert mine.pictures == base.pictures
    assert "(by the pictures of trial 0: SSIM " in mine.about
    with pytest.raises(UserError, match="trial 7 was stopped, no pictures drawn"):
        export_from(study.path, str(WASTE))


def test_the_table_says_of_every_trial_what_it_has_reused(study: StudyFolder) -> None:
    rows = trials_rows(study.path)
    assert [row["outcome"] for row in rows[:8]] == [*["measured"] * 4, "broken_output", *["measured"] * 2, "stopped"]
    assert [row["quality_of"] for row in rows[:8]] == [None, BASELINE, None, SHIFT, None, None, MERGING, None]
    assert [row["compiled_as"] for row in rows] == [*[None] * 9, COMPILED]
    assert rows[OF_MORE_STEPS]["first_call_s"] > rows[OF_MORE_STEPS]["latency_s"] + 1
    assert rows[WASTE]["latency_s"] > 0
    assert not rows[WASTE]["on_front"]
    assert rows[SHIFT]["finding"].startswith("liar=shift")


def test_what_was_not_drawn_or_not_compiled_is_in_no_recording(study: StudyFolder) -> None:
    table = recording_of(study.path)
    assert [row.trial for row in table.rows] == [BASELINE, SHIFT, BLACK, MERGING]
    assert not table.header.is_whole
    assert all(row.score_s for row in table.rows if row.outcome == "measured")
