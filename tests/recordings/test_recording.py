"""Recordings: what is written is what is read, and a damaged file is refused in one sentence."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from conftest import OTHER_SHAPES, make_target
from made_up import failed, measured, record
from pyarrow import parquet
from studies import VALUES, study, usual
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import UserError
from autotune.frozen_model import write_json
from autotune.goal import Goal
from autotune.knobs import complete
from autotune.recordings.from_study import recording_of
from autotune.recordings.parquet import check_table_path, read_table, write_table
from autotune.recordings.recording import Header, Recording, Row
from autotune.study.pareto_front import objectives
from autotune.study.record import read_record, read_trials, write_anchor, write_trial
from autotune.study.space import make_space
from autotune.study.space_file import SpaceFile
from autotune.study_folder import StudyFolder
from autotune.trial import Anchor

NARROW = {"dtype": ("fp32", "bf16"), "qkv_fusion": (False, True)}


def narrow(path: Path, trials: int) -> StudyFolder:
    """A study of a space of four configs, so many of them tried; the second has no effect."""
    file = SpaceFile(knobs={name: NARROW.get(name, (value,)) for name, value in complete({}).items()})
    space = make_space(make_target(), file, fix={}, exclude=(), baseline=complete({}))
    folder = StudyFolder(path)
    folder.create()
    write_json(folder.study, record(space=space.values).to_json())
    made = [
        measured(0, origin="baseline"),
        failed(1, {"qkv_fusion": True}, "no_effect", knob="qkv_fusion"),
        measured(2, {"dtype": "bf16"}, latency_s=0.5),
    ]
    for trial in made[:trials]:
        write_trial(folder, trial)
    return folder


def anything(rng: random.Random) -> Recording:
    """A table with any values that the models allow."""
    prompts, sizes = rng.randint(1, 4), rng.randint(1, 3)
    workload = make_target(sizes=sizes).workload.model_copy(update={"prompts": tuple(map(str, range(prompts)))})
    target = make_target(sizes=sizes).model_copy(update={"workload": workload})
    header = Header(
        autotune_version="0",
        made="2026-01-01",
        command="autotune record \U0001f600 'a b'",
        target=target,
        goal=Goal(max_quality_drop=rng.random(), max_vram_bytes=rng.choice((None, 10**9))),
        baseline=dict(complete({})),
        space={"dtype": ("fp32", "bf16"), "tome_ratio": (0.0, 0.5), "qkv_fusion": (False, True), "steps": ("x", 8)},
        recipes=(),
        metric="likeness",
        scorer=None,
        allowed_configs=rng.choice((None, 7)),
        is_whole=rng.random() < 0.5,
    )
    return Recording(
        header=header, rows=tuple(_wild(rng, number, prompts, sizes) for number in range(rng.randint(1, 9)))
    )


def _wild(rng: random.Random, number: int, prompts: int, sizes: int) -> Row:
    values = dict(complete({})) if number == 0 else {"dtype": "bf16", "steps": number, "qkv_fusion": rng.random() < 0.5}
    if number and rng.random() < 0.3:
        cause = rng.choice(("crash", "noisy", "no_effect"))
        return Row(trial=number, origin="näh\n", values=values, outcome=cause, reason="\x00;'", seconds=rng.random())
    drift, samples = rng.uniform(0.5, 2), [tuple(rng.uniform(0.1, 9) for _ in range(5)) for _ in range(sizes)]
    ssim = tuple(rng.random() for _ in range(prompts))
    return Row(
        trial=number,
        origin="sampler",
        values=values,
        outcome="measured",
        seconds=rng.random(),
        drift=drift,
        latency_s=sum(sorted(one)[2] for one in samples) / drift,
        latency_samples_s=samples[0],
        also_latency_samples_s=tuple(samples[1:]),
        peak_memory_bytes=rng.randrange(2**40),
        quality_loss=sum(100 * (1 - one) for one in ssim) / prompts,
        ssim=ssim,
        psnr_db=tuple(rng.choice((None, rng.uniform(1, 60))) for _ in range(prompts)),
        load_s=rng.choice((None, rng.random())),
        warmup_s=tuple(rng.random() for _ in range(rng.randint(0, 3))),
    )


@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_is_what_is_read(tmp_path: Path, seed: int) -> None:
    made = anything(random.Random(seed))
    write_table(made, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet") == made
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_table_of_a_study_has_a_row_for_each_trial_with_its_figures(tmp_path: Path) -> None:
    folder = usual(tmp_path / "study")
    made, trials = recording_of(folder.path), read_trials(folder)
    assert [row.trial for row in made.rows] == [trial.number for trial in trials]
    assert [row.values for row in made.rows] == [trial.values for trial in trials]
    assert made.rows[5].outcome == "out_of_memory"
    assert made.rows[3].quality_loss == pytest.approx(4.0)
    assert made.rows[1].latency_samples_s == (0.5,) * 5
    assert [(recipe.name, recipe.values) for recipe in made.header.recipes] == [
        ("bfloat16", trials[1].values),
        ("fast diffusion", trials[4].values),
    ]
    assert made.header.target == make_target().model_copy(update={"workload": made.header.target.workload})


def test_a_table_names_no_folder_of_the_machine_that_made_it(tmp_path: Path) -> None:
    folder = usual(tmp_path / "study")
    record = read_record(folder)
    pipeline = record.target.pipeline.model_copy(update={"name": "my/model", "source": "/home/me/my/model"})
    local = record.target.model_copy(update={"pipeline": pipeline})
    write_json(folder.study, record.model_copy(update={"target": local}).to_json())
    made = recording_of(folder.path).header.target.pipeline
    assert (made.name, made.source) == ("my/model", "my/model")


def test_others_find_a_column_for_every_knob_and_the_header_in_the_metadata(tmp_path: Path) -> None:
    write_table(recording_of(usual(tmp_path / "study").path), tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert json.loads(table.schema.metadata[b"autotune"])["goal"]["max_quality_drop"] == 0.3
    assert table.column("knob_dtype").to_pylist()[:2] == ['"fp32"', '"bf16"']
    assert table.column("knob_qkv_fusion").to_pylist()[2] == "true"
    assert table.column("outcome").to_pylist()[5] == "out_of_memory"


def test_drift_is_in_the_samples_and_out_of_the_latency(tmp_path: Path) -> None:
    trials = [measured(0, origin="baseline"), measured(1, VALUES[0], latency_s=1.1)]
    folder = study(tmp_path / "study", trials, pictures=False)
    again = measured(0, latency_s=1.21).outcome
    write_anchor(folder, Anchor(before=2, outcome=again, seconds=1.0))
    made = recording_of(folder.path)
    assert made.rows[1].drift > 1.05
    assert made.rows[1].latency_samples_s == (1.1,) * 5
    assert made.rows[1].latency_s == pytest.approx(1.1 / made.rows[1].drift)
    baseline, trial = made.trials()
    assert objectives(trial, baseline) == pytest.approx(objectives(read_trials(folder)[1], read_trials(folder)[0]))


def test_each_size_keeps_its_own_latency(tmp_path: Path) -> None:
    folder, target = StudyFolder(tmp_path / "study"), make_target(sizes=3)
    folder.create()
    two = target.workload.model_copy(update={"prompts": ("a", "b")})
    write_json(folder.study, record(target.model_copy(update={"workload": two})).to_json())
    write_trial(folder, measured(0, latency_s=1.0, also=(2.0, 4.0), origin="baseline"))
    write_table(recording_of(folder.path), tmp_path / "a.parquet")
    (baseline,) = read_table(tmp_path / "a.parquet").trials()
    assert objectives(baseline, baseline, "each")[:3] == (1.0, 2.0, 4.0)
    assert [cost.shape for cost in baseline.measured.also] == list(OTHER_SHAPES)  # type: ignore[union-attr]


def test_a_trial_that_was_not_judged_by_every_prompt_makes_no_table(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", [measured(0, origin="baseline")], prompts=("a",), pictures=False)
    with pytest.raises(UserError, match="2 scores for 1 prompts"):
        recording_of(folder.path)


def test_the_header_says_whether_the_table_is_the_whole_space(tmp_path: Path) -> None:
    two = {"prompts": ("a", "b")}
    for count, whole in ((1, False), (2, False), (3, True)):
        folder = narrow(tmp_path / str(count), count)
        data = json.loads(folder.study.read_text())
        data["target"]["workload"] |= two
        write_json(folder.study, data)
        head = recording_of(folder.path).header
        assert head.is_whole is whole
        assert head.allowed_configs == (4 if count == 1 else 2), "a value without effect leaves the space"


def test_no_table_is_made_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no measured baseline"):
        recording_of(narrow(tmp_path / "study", 0).path)
    with pytest.raises(UserError, match="is not a study folder"):
        recording_of(tmp_path)


def test_a_path_that_can_not_be_written_is_refused_before_the_hours_of_measuring(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the table must be a \.parquet"):
        check_table_path(tmp_path / "table.csv")
    with pytest.raises(UserError, match="there is no folder"):
        check_table_path(tmp_path / "nowhere" / "table.parquet")


def rewritten(path: Path, *, header: dict[str, Any] | None = None, drop: str = "", **columns: list[Any]) -> None:
    """The table with parts replaced."""
    table = parquet.read_table(path)
    metadata = {b"autotune": json.dumps(json.loads(table.schema.metadata[b"autotune"]) | (header or {})).encode()}
    for name, values in columns.items():
        index = table.column_names.index(name)
        table = table.set_column(index, name, pyarrow.array(values, table.schema.field(name).type))
    if drop:
        table = table.drop([drop])
    parquet.write_table(table.replace_schema_metadata(metadata), path, use_dictionary=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"header": {"schema_version": 99}}, "newer autotune"),
        ({"header": {"typo": 1}}, "typo"),
        ({"header": {"goal": {}}}, "goal"),
        ({"drop": "seconds"}, "seconds"),
        ({"latency_s": [1.0, 2.0]}, "not the median"),
        ({"quality_loss": [0.0, 9.0]}, "does not follow"),
        ({"latency_samples_s": [[1.0] * 5, [-1.0] * 5]}, "greater than 0"),
        ({"latency_samples_s": [[1.0] * 5, [float("nan")] * 5]}, "latency_samples_s"),
        ({"outcome": ["crash", "measured"]}, "measured baseline"),
        ({"outcome": ["measured", "eaten"]}, "outcome"),
        ({"knob_dtype": ['"fp32"', "bf16"]}, "not JSON"),
        ({"knob_dtype": ['"fp32"', '["bf16"]']}, "dtype"),
        ({"knob_dtype": ['"bf16"', '"bf16"']}, "not the header's baseline"),
        ({"knob_dtype": ['"fp32"', '"fp32"']}, "two rows"),
        ({"clip_scores": [[30.0, 31.0], [1.0]]}, "1 scores for 2 prompts"),
    ],
)
def test_whatever_is_wrong_in_a_table_is_one_sentence(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "a.parquet"
    trials = [measured(0, origin="baseline"), measured(1, VALUES[0], latency_s=0.5)]
    write_table(recording_of(study(tmp_path / "study", trials, pictures=False).path), path)
    rewritten(path, **change)
    with pytest.raises(UserError, match=said) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_could_unpack_to_much_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table(recording_of(usual(tmp_path / "study").path), path)
    table = parquet.read_table(path)
    parquet.write_table(table, path, use_dictionary=True)
    with pytest.raises(UserError, match="an encoding that autotune does not write"):
        read_table(path)


@pytest.mark.parametrize("seed", range(60))
def test_a_mutated_table_loads_or_is_one_sentence(tmp_path: Path, seed: int) -> None:
    path, rng = tmp_path / "a.parquet", random.Random(seed)
    write_table(anything(rng), path)
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content[: rng.choice((len(content), rng.randrange(len(content))))])
    said = ""
    try:
        read_table(path)
    except UserError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize("content", [b"", b"PAR1", b"trial,latency\n1,2\n"])
def test_a_file_that_is_no_parquet_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(UserError, match="can't be read"):
        read_table(path)
    with pytest.raises(UserError, match="there is no table"):
        read_table(tmp_path / "b.parquet")


def test_the_trials_of_a_recording_are_started_as_requested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: dict[str, object] = {}

    def stop(**arguments: object) -> Path:
        passed.update(arguments)
        raise UserError("that was all")

    monkeypatch.setattr("autotune.report.terminal.show.show_search", stop)
    for word in ("fork", "spawn"):
        words = ["record", "--sample", "2", "--isolation", word, "-o", str(tmp_path / "a.parquet")]
        assert isinstance(CliRunner().invoke(app, words).exception, UserError)
        assert passed["isolation"] == word
