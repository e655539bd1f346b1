"""The files of a study: what is refused, what makes two studies differ, and which trials count."""

from pathlib import Path

import pytest
from conftest import CPU, gpu, make_target
from made_up import failed, measured, record

from autotune.errors import UserError
from autotune.frozen_model import read_json, write_json
from autotune.goal import Goal
from autotune.knobs import complete
from autotune.study.record import Record, read_record, read_trials, write_trial
from autotune.study_folder import StudyFolder
from autotune.target import Target


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """A folder with a study that was begun."""
    folder = StudyFolder(tmp_path)
    write_json(folder.study, record(space={"dtype": ("fp32", "bf16"), "tome_ratio": (0.0, 0.5)}).to_json())
    return folder


def test_a_record_survives_its_json(study: StudyFolder) -> None:
    read = read_record(study)
    assert read == record(space={"dtype": ("fp32", "bf16"), "tome_ratio": (0.0, 0.5)})
    assert isinstance(read.space["tome_ratio"][0], float)
    assert read.baseline_config["dtype"] == "fp32"


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_folder_without_a_study_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"is not a study folder \(no study.json in it\)"):
        read_record(StudyFolder(tmp_path / name))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": 99}, "newer autotune .schema 99.; upgrade"),
        ({"goal": {"max_quality_drop": "little"}}, "goal.max_quality_drop"),
        ({"surprise": 1}, "surprise"),
        ({"target": None}, "target"),
    ],
)
def test_an_unusable_study_json_is_one_sentence(study: StudyFolder, change: dict[str, object], says: str) -> None:
    write_json(study.study, {**read_json(study.study, "study"), **change})
    with pytest.raises(UserError, match=says) as caught:
        read_record(study)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"study"', '{"a'])
def test_a_study_json_of_another_shape_is_one_sentence(study: StudyFolder, content: str) -> None:
    study.study.write_text(content)
    with pytest.raises(UserError, match="study"):
        read_record(study)


def test_only_finished_trials_count_and_they_come_by_number(study: StudyFolder) -> None:
    for trial in (failed(2), measured(0), measured(11, {"dtype": "bf16"}), measured(1, {"qkv_fusion": True})):
        write_trial(study, trial)
    study.trial(3).mkdir()
    write_json(study.trial(3) / "job.json", {})
    assert [trial.number for trial in read_trials(study)] == [0, 1, 2, 11]
    assert read_trials(study)[2] == failed(2)


def test_a_damaged_trial_is_named(study: StudyFolder) -> None:
    write_trial(study, measured(0))
    (study.trial(0) / "trial.json").write_text('{"number": 0}')
    with pytest.raises(UserError, match=r"trials/0000/trial\.json.*can't be used"):
        read_trials(study)


def changed(**update: object) -> Target:
    return make_target().model_copy(update=update)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (record(make_target(gpu(8, 0))), "device: kind 'cpu', not 'cuda'"),
        (record(make_target(batch=2)), "workload: batch 1, not 2"),
        (record(changed(versions={"torch": "1"})), "versions: torch '0', not '1'"),
        (record(changed(versions={})), "versions: torch '0', not None"),
        (record(make_target(sizes=3)), "workload: also none, not 96x96@2 and 128x64@1"),
        (record(goal=Goal(max_quality_drop=0.5)), "another goal"),
        (record(goal=Goal(max_quality_drop=0.3, minimise="each")), "another goal"),
        (record(baseline={"dtype": "bf16"}), "another baseline"),
        (record(space={"dtype": ("bf16",)}), "another space"),
    ],
)
def test_the_first_difference_of_two_studies_is_named(other: Record, says: str) -> None:
    difference = record().difference(other)
    assert difference is not None
    assert says in difference


def test_a_study_that_began_before_a_knob_was_there_goes_on_where_the_knob_stays_at_its_default() -> None:
    old = record(baseline={"dtype": "fp32"}, space={"dtype": ("fp32", "bf16")})
    held = {"dtype": ("fp32", "bf16"), "encoding": ("each_call",)}
    assert old.difference(record(baseline={"dtype": "fp32", "encoding": "each_call"}, space=held)) is None
    offered = record(baseline={"dtype": "fp32"}, space=held | {"guidance_start": (0.0, 0.1)})
    assert old.difference(offered) == "another space"
    assert old.difference(record(baseline={"dtype": "fp32", "encoding": "once"}, space=held)) == "another baseline"


def test_a_study_of_an_earlier_version_is_read_with_a_value_for_each_of_today_s_knobs(study: StudyFolder) -> None:
    older = {name: value for name, value in complete({}).items() if name not in ("encoding", "vae_slicing")}
    write_trial(study, measured(0).model_copy(update={"values": older}))
    assert read_trials(study)[0].config == record(baseline=older).baseline_config == complete({})
    foreign = measured(0).model_copy(update={"values": {**older, "of_another_package": 1}})
    write_trial(study, foreign)
    assert read_trials(study)[0].values == {**complete({}), "of_another_package": 1}


def test_studies_whose_processes_are_started_differently_are_not_mixed(study: StudyFolder) -> None:
    """Studies of earlier versions have no `isolation`: their processes were spawned."""
    old = {name: value for name, value in read_json(study.study, "study").items() if name != "isolation"}
    write_json(study.study, old)
    assert read_record(study).isolation == "spawn"
    forked = record().model_copy(update={"isolation": "fork"})
    assert record().difference(forked) == "its trials' processes are started by --isolation spawn"


def test_another_revision_of_the_pipeline_is_another_study() -> None:
    pipeline = make_target().pipeline.model_copy(update={"revision": "other"})
    assert record().difference(record(changed(pipeline=pipeline))) == "pipeline: revision 'test', not 'other'"


def test_the_command_and_the_evidence_make_no_other_study() -> None:
    same = record(make_target(CPU.model_copy(update={"evidence": ("asked again",)})))
    assert record().difference(same.model_copy(update={"command": "autotune search --budget 99"})) is None
