"""From a study to a config: its sentence has no number that was not measured, and picks are what they say."""

import json
import subprocess
from pathlib import Path

import pytest
from command_line import run
from conftest import OTHER_SHAPES, make_target
from made_up import changed, failed, likeness, measured, record

from autotune.errors import UserError
from autotune.frozen_model import write_json
from autotune.goal import Goal
from autotune.measurement import CompiledAs
from autotune.production.tuned_config import Confirmation, ConfirmedQuality, TunedConfig
from autotune.statistics.paired import paired
from autotune.study.record import write_trial
from autotune.study_folder import StudyFolder
from autotune.tuning.export import about, export, export_from

MIB = 2**20
BASELINE = measured(0, origin="baseline")
FAST = measured(1, {"dtype": "bf16"}, latency_s=0.5, memory_bytes=150 * MIB, loss=0.1)
SMALL = measured(2, {"quantization": "int8_weight_only"}, latency_s=1.5, memory_bytes=50 * MIB)
BALANCED = measured(3, {"qkv_fusion": True}, latency_s=0.6, memory_bytes=70 * MIB)
LOSSY = measured(4, {"steps": 8}, latency_s=0.1, memory_bytes=40 * MIB, loss=5.0)
BROKEN = failed(5, {"dtype": "bf16", "qkv_fusion": True}, cause="out_of_memory")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A finished study; the pick was confirmed."""
    folder = StudyFolder(tmp_path / "study")
    folder.create()
    write_json(folder.study, record().to_json())
    for trial in (BASELINE, FAST, SMALL, BALANCED, LOSSY, BROKEN):
        write_trial(folder, trial)
    return folder.path


def test_the_baseline_says_that_it_is_the_baseline() -> None:
    assert about(BASELINE, BASELINE, None) == "The baseline itself, no setting changed."


def test_an_unconfirmed_trial_says_so() -> None:
    assert about(FAST, BASELINE, None) == (
        "2.00x the baseline's speed in one process each (not confirmed), 50% more memory, "
        "CLIP score -0.10 +- 0.00, SSIM 0.850 (worst 0.800)."
    )


def test_a_confirmed_trial_says_its_interval_and_how_far_off_the_first_figure_was() -> None:
    rounds = Confirmation(baseline_latency_s=(1.0, 1.05, 0.95), tuned_latency_s=(0.55, 0.55, 0.55))
    assert about(FAST, BASELINE, rounds).startswith(
        "1.82x the baseline's speed (95 % interval 1.60 to 2.06, 3 interleaved rounds; 2.00x at first), "
        "50% more memory, CLIP score"
    )


def test_a_speedup_that_its_interval_does_not_hold_up_is_not_printed() -> None:
    rounds = Confirmation(baseline_latency_s=(1.0, 1.2, 0.9), tuned_latency_s=(0.9, 1.0, 0.95))
    assert about(FAST, BASELINE, rounds).startswith(
        "the baseline's speed, no difference beyond the noise (95 % interval 0.80 to 1.46, 3 interleaved rounds; "
    )


def test_pictures_that_were_compared_over_more_pairs_are_spoken_of_with_them() -> None:
    drop = paired([0.1, 0.2, 0.3, 0.2] * 10)
    seen = ConfirmedQuality(metric="clip", drop=drop, prompts=10, ssim_mean=0.9, ssim_worst=0.8, shortened_from=128)
    rounds = Confirmation(baseline_latency_s=(1.0,) * 3, tuned_latency_s=(0.5,) * 3, quality=seen)
    assert about(FAST, BASELINE, rounds).endswith(
        "CLIP score -0.20 (-0.22 to -0.18) over 40 pairs instead of 128, which would have taken longer than the "
        "search, SSIM 0.900 (worst 0.800)."
    )


def test_the_sentence_of_several_sizes_is_about_all_of_them() -> None:
    trial, reference = measured(1, latency_s=0.5, also=(1.0,)), measured(0, latency_s=1.0, also=(2.0,))
    assert about(trial, reference, None).startswith("2.00x the baseline's speed over 2 sizes in one process each")


def test_the_evidence_of_several_sizes_names_the_latency_of_each() -> None:
    several = record(make_target(sizes=2))
    exported = export(several, measured(1, latency_s=0.5, also=(1.5,)), measured(0, latency_s=1.0, also=(2.0,)), None)
    assert exported.workload.also == OTHER_SHAPES[:1]
    assert exported.tuned.latency_s == 2.0
    assert exported.tuned.latency_at_s == {"64x64@1": 0.5, "96x96@2": 1.5}
    assert exported.tuned.graphs_added_at == {"96x96@2": 0}
    assert exported.baseline.latency_at_s == {"64x64@1": 1.0, "96x96@2": 2.0}


def test_an_export_from_before_there_were_several_sizes_can_be_read(tmp_path: Path) -> None:
    data = export(record(), FAST, BASELINE, None).to_json()
    for new in ("latency_at_s", "graphs_added_at"):
        assert data["tuned"].pop(new) == data["baseline"].pop(new) == {}
    assert data.pop("inputs") == {}
    assert data["workload"].pop("also") == []
    write_json(tmp_path / "old.json", data)
    assert TunedConfig.load(tmp_path / "old.json").tuned.latency_s == 0.5


def test_less_memory_is_called_less() -> None:
    assert "50% less memory" in about(SMALL, BASELINE, None)


def test_a_baseline_that_took_no_memory_that_could_be_measured_is_exported() -> None:
    """As a tiny pipeline's on a CPU that fits into what the process had."""
    free = measured(0, origin="baseline", memory_bytes=0)
    assert "210 MB more memory" in about(changed(SMALL, peak_memory_bytes=200 * MIB), free, None)
    assert "the same memory" in about(changed(SMALL, peak_memory_bytes=12 * MIB), free, None)


def test_whose_compiling_the_memory_counts_is_said() -> None:
    theirs = CompiledAs(trial=7, first_calls_s=(30.0,), compile_s=20.0)
    made = export(record(), changed(SMALL, compiled_as=theirs), BASELINE, None)
    assert "50% less memory (with what compiling took in trial 7), CLIP score" in made.about
    assert made.tuned.first_call_s == 30.0


def test_a_better_score_has_a_plus() -> None:
    assert "CLIP score +0.20 +- 0.00" in about(measured(1, loss=-0.2), BASELINE, None)


def test_where_only_likeness_is_judged_no_clip_score_is_claimed() -> None:
    reference, trial = measured(0, judged=likeness(1.0)), measured(1, judged=likeness(0.9), latency_s=0.5)
    assert about(trial, reference, None).endswith("SSIM 0.900 (worst 0.900) to the baseline's pictures.")
    assert "CLIP" not in about(trial, reference, None)


@pytest.mark.parametrize(
    ("tuned_s", "faster"), [((0.9, 0.9, 0.9), True), ((0.9, 0.9, 1.0), False), ((0.995, 0.5, 0.5), False)]
)
def test_faster_is_faster_beyond_the_interval_of_its_rounds(tuned_s: tuple[float, ...], faster: bool) -> None:
    assert Confirmation(baseline_latency_s=(1.0, 1.0, 1.0), tuned_latency_s=tuned_s).is_faster is faster


@pytest.mark.parametrize(
    ("word", "number"), [("fastest", 1), ("smallest", 2), ("balanced", 3), ("4", 4), ("0", 0), ("0002", 2)]
)
def test_a_trial_is_exported_by_its_pick_or_its_number(study: Path, word: str, number: int) -> None:
    expected = [BASELINE, FAST, SMALL, BALANCED, LOSSY][number]
    exported = export_from(study, word)
    assert exported.knobs == expected.values
    assert expected.measured is not None
    assert exported.tuned.latency_s == expected.measured.latency_s
    assert exported.baseline.latency_s == 1.0
    assert exported.command == "autotune search --pipeline demo"
    assert exported.pipeline.traits is not None, "what the fallbacks decide by, where it is loaded"
    assert exported.is_measured


def test_a_confirmation_on_disk_goes_with_its_trial(study: Path) -> None:
    kept = StudyFolder(study).confirmation(1)
    kept.parent.mkdir(parents=True)
    rounds = Confirmation(baseline_latency_s=(1.0,), tuned_latency_s=(0.5,))
    write_json(kept, rounds.to_json())
    assert export_from(study, "1").confirmation == rounds
    assert export_from(study, "2").confirmation is None


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("5", "trial 5 failed (out_of_memory: made up); pick another."),
        ("17", "has trials 0 to 5, no 17."),
        ("best", "--pick takes fastest, smallest, balanced or the number of a trial, not 'best'."),
        ("-1", "not '-1'."),
        ("²", "not '²'."),
        ("", "not ''."),
    ],
)
def test_a_pick_that_can_not_be_is_refused(study: Path, word: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        export_from(study, word)
    assert str(caught.value).endswith(says)


def test_where_nothing_keeps_the_limits_nothing_is_exported(study: Path) -> None:
    goal = Goal(max_quality_drop=0.3, max_latency_s=0.01)
    write_json(StudyFolder(study).study, record(goal=goal).to_json())
    with pytest.raises(UserError, match="keeps the limits"):
        export_from(study, "fastest")


def test_a_study_without_a_finished_trial_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", record().to_json())
    with pytest.raises(UserError, match="no finished trial yet"):
        export_from(tmp_path, "fastest")


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return run(Path(), "export", *map(str, words))


@pytest.mark.parametrize(
    ("words", "name", "knobs"),
    [
        ([], "fastest.json", FAST.values),
        (["--pick", "smallest"], "smallest.json", SMALL.values),
        (["--pick", "balanced"], "balanced.json", BALANCED.values),
        (["--pick", "4"], "4.json", LOSSY.values),
    ],
)
def test_the_command_writes_into_the_study_and_says_what_it_wrote(
    study: Path, words: list[str], name: str, knobs: dict[str, object]
) -> None:
    before = {path.name for path in study.iterdir()}
    done = command(study, *words)
    assert done.returncode == 0, done.stderr
    written = TunedConfig.load(study / name)
    assert written.knobs == knobs
    assert done.stdout == f"{study / name}: {written.about}\n"
    assert {path.name for path in study.iterdir()} == before | {name}


def test_the_command_writes_where_it_is_told(study: Path, tmp_path: Path) -> None:
    done = command(study, "--pick", "1", "-o", tmp_path / "mine.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "mine.json").read_text())["knobs"] == FAST.values
    assert not (study / "1.json").exists()


@pytest.mark.parametrize("pick", ["5", "17", "best"])
def test_the_command_refuses_in_one_line_and_writes_nothing(study: Path, pick: str) -> None:
    before = {path.name for path in study.iterdir()}
    done = command(study, "--pick", pick)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("autotune: ")
    assert done.stderr.count("\n") == 1
    assert {path.name for path in study.iterdir()} == before
