"""Warm start: earlier studies give the first trials and shape the sampler's models, and none of their figures counts.

On simulated devices, whose truth is known.
"""

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from conftest import CPU, gpu, make_target
from made_up import failed, likeness, measured, record
from searches import command_here
from simulated import World, demo_space, simulated

from autotune.cli.options import by_name
from autotune.config import Value
from autotune.errors import UserError
from autotune.frozen_model import write_json
from autotune.goal import Budget, Goal
from autotune.knobs import complete
from autotune.recordings.earlier_studies import WarmStartStudy, read_earlier
from autotune.recordings.from_study import recording_of
from autotune.recordings.parquet import write_table
from autotune.recordings.recording import Recording
from autotune.report.page.measured import how_measured
from autotune.report.summary import read_summary
from autotune.report.terminal.show import PlainLines, as_data
from autotune.research.replay.reference_front import ReferenceFront
from autotune.research.replay.replay import Replay, TableRunner, TableSpace, replay, replay_once
from autotune.study.earlier import EarlierStudy, EarlierTrial
from autotune.study.pareto_front import pareto_front
from autotune.study.record import Record, read_record, read_trials, write_trial
from autotune.study.space import SearchSpace
from autotune.study.space_file import SpaceFile
from autotune.study.study import Study
from autotune.study.warm_start import FIRST, WarmStart, fitting
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Trial
from autotune.tuning.events import WarmStarted
from autotune.tuning.export import export

ROOT = Path(__file__).parents[2]
SEEDS = range(5)
BUDGET = 36
KNOBS: dict[str, tuple[Value, ...]] = {
    "dtype": ("fp32", "bf16"),
    "qkv_fusion": (False, True),
    "memory_format": ("contiguous", "channels_last"),
    "cache": ("none", "deepcache:3"),
    "steps": ("workload", 12, 8),
    "guidance_cutoff": (1.0, 0.6),
    "tome_ratio": (0.0, 0.25, 0.5),
}
RECIPES: dict[str, Mapping[str, Value]] = {"bfloat16": {"dtype": "bf16"}, "token merging": {"tome_ratio": 0.5}}


def space_of(knobs: Mapping[str, tuple[Value, ...]] = KNOBS) -> SearchSpace:
    """288 configs, or fewer."""
    fixed = {name: (value,) for name, value in complete({}).items()}
    return demo_space(SpaceFile(knobs=fixed | dict(knobs)))


def device(seed: int, alike: float | None = None) -> Recording:
    """The whole space on a simulated device; `alike`: on another one, whose effects are so like the first one's."""
    space = space_of()
    world = World(space, seed, fault_rules=1)
    other = world if alike is None else world.elsewhere(seed + 100, alike=alike)
    return simulated(seed, space=space, recipes=RECIPES, world=other)


def written(path: Path, kept: Record, trials: Sequence[Trial]) -> Path:
    """A study's folder of these trials."""
    path.mkdir(parents=True)
    folder = StudyFolder(path)
    write_json(folder.study, kept.to_json())
    for trial in trials:
        write_trial(folder, trial)
    return path


def studied(path: Path, table: Recording, trials: int = 40) -> Path:
    """What a random search of this device leaves."""
    return written(path, table.record(), replay_once(table, "random", 7, trials))


@pytest.fixture(scope="module")
def devices() -> dict[int, Recording]:
    return {seed: device(seed) for seed in SEEDS}


def trials_to(table: Recording, trials: Sequence[Trial], share: float = 0.95) -> int:
    shares = ReferenceFront(table.trials(), table.header.goal).shares(trials)
    return next((count for count, found in enumerate(shares, 1) if found >= share), BUDGET + 1)


def counts(devices: dict[int, Recording], place: Path, alike: float | None, sampler: str = "auto") -> list[int]:
    """Trials to 95 % of the hypervolume, a number a seed; `alike`: started warm by a study of such a device."""
    found = []
    for seed, table in devices.items():
        earlier = [] if alike is None else read_earlier([studied(place / f"{seed}", device(seed, alike))])
        found.append(trials_to(table, replay_once(table, sampler, seed, BUDGET, earlier=earlier)))
    return found


def test_a_study_of_another_device_saves_trials_and_a_misleading_one_costs_few(
    devices: dict[int, Recording], tmp_path: Path
) -> None:
    """The other devices differ in scale, in what each value brings, and in noise; on the misleading one, what is fast
    here is slow, and the reverse."""
    cold, warm = counts(devices, tmp_path / "cold", None), counts(devices, tmp_path / "warm", 0.8)
    misled = counts(devices, tmp_path / "misled", -1.0)
    means = [statistics.fmean(found) for found in (cold, warm, misled)]
    print(f"trials to 95 %: cold {cold}, warm {warm}, misled {misled}; means {means}")
    # Values that fail alike leave the space, which shortens cold searches more: 20.8 trials beside 24.9 over 13 seeds.
    assert means[1] <= 0.8 * means[0]
    assert means[2] <= means[0] + FIRST


def test_the_scale_of_an_earlier_study_does_not_matter(devices: dict[int, Recording], tmp_path: Path) -> None:
    """The same study of a device that takes 1000 times as long, with 50 times the memory: the same proposals."""
    kept, trials = device(0, 0.8).record(), replay_once(device(0, 0.8), "auto", 7, 20)
    slower = [_scaled(trial) for trial in trials]
    found = [read_earlier([written(tmp_path / name, kept, some)]) for name, some in (("a", trials), ("b", slower))]
    one, other = (replay_once(devices[0], "auto", 0, 14, earlier=earlier) for earlier in found)
    assert [trial.config for trial in one] == [trial.config for trial in other]
    cold = replay_once(devices[0], "auto", 0, 14)
    assert [trial.config for trial in one] != [trial.config for trial in cold]


def _scaled(trial: Trial) -> Trial:
    """1024 times the seconds and 64 times the bytes: powers of two, so that not a bit of a ratio changes."""
    if trial.measured is None:
        return trial
    slow = {
        "latency_samples_s": tuple(1024 * sample for sample in trial.measured.latency_samples_s),
        "peak_memory_bytes": 64 * trial.measured.peak_memory_bytes,
    }
    return trial.model_copy(update={"outcome": trial.measured.model_copy(update=slow)})


# A search on disk with a warm start from a study of another device: no figure of that device counts.


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warm")


@pytest.fixture(scope="module")
def heard(place: Path, devices: dict[int, Recording]) -> list[object]:
    earlier = read_earlier([studied(place / "h200", device(0, 0.8))])
    heard: list[object] = []
    search(place / "mine", devices[0], earlier, 4, heard)
    search(place / "mine", devices[0], [], 12, heard)  # by what it has kept itself
    return heard


def test_the_search_reports_its_warm_start(heard: list[object], place: Path) -> None:
    told = [event for event in heard if isinstance(event, WarmStarted)]
    assert len(told) == 2, "once in each run"
    (line,) = PlainLines().hear(told[0])
    count = len(told[0].studies[0].trials)
    assert line == f"warm start from 1 study: {count} trials of a test's processor order the first {FIRST}"
    assert as_data(told[0])["first"] == FIRST
    said = dict(how_measured(read_summary(place / "mine")))["warm start"]
    assert said.startswith(line)
    assert "h200 (" in said
    assert str(place) not in said


def test_the_first_trials_are_the_earlier_study_s_best_then_come_the_recipes(heard: list[object], place: Path) -> None:
    trials = read_trials(StudyFolder(place / "mine"))
    recipes = [name for name in RECIPES if name in [trial.origin for trial in trials]]
    origins = ["baseline", *["warm start"] * FIRST, *recipes]
    assert [trial.origin for trial in trials[: len(origins)]] == origins
    assert {trial.origin for trial in trials[len(origins) :]} == {"sampler"}
    assert len({trial.config for trial in trials}) == len(trials) == 12


def test_every_figure_is_this_device_s(heard: list[object], place: Path, devices: dict[int, Recording]) -> None:
    mine = {complete(row.values): row for row in devices[0].rows}
    trials = read_trials(StudyFolder(place / "mine"))
    for trial in trials:
        row = mine[trial.config]
        assert (trial.measured is None) == (row.outcome != "measured")
        if trial.measured:
            assert trial.measured.latency_s == row.latency_s
            assert trial.measured.peak_memory_bytes == row.peak_memory_bytes
    front = pareto_front(trials, trials[0])
    assert {trial.number for trial in front} <= {trial.number for trial in trials}
    tuned = export(read_record(StudyFolder(place / "mine")), front[0], trials[0], None)
    assert tuned.tuned.latency_s == front[0].measured.latency_s  # type: ignore[union-attr]


def test_neither_seconds_nor_bytes_nor_paths_of_it_are_kept(heard: list[object], place: Path) -> None:
    kept = json.loads((place / "mine" / "study.json").read_text())["warm_start"]
    fields = {name for study in kept for trial in study["trials"] for name in trial}
    assert fields == {"values", "latency", "memory", "loss"}
    ratios = {trial[name] for trial in kept[0]["trials"] for name in ("latency", "memory")}
    theirs = [trial.measured for trial in read_trials(StudyFolder(place / "h200")) if trial.measured]
    assert ratios.isdisjoint({one.latency_s for one in theirs} | {one.peak_memory_bytes for one in theirs})
    assert 1.0 in ratios
    assert str(place) not in json.dumps(kept)


def test_in_a_table_of_it_configs_of_the_warm_start_are_no_recipes(heard: list[object], place: Path) -> None:
    assert {recipe.name for recipe in recording_of(place / "mine").header.recipes} <= set(RECIPES)


def search(path: Path, table: Recording, earlier: Sequence[WarmStartStudy], trials: int, heard: list[object]) -> None:
    """Go on with the study in this folder until it has so many trials."""
    space, folder = TableSpace(table), StudyFolder(path)
    path.mkdir(exist_ok=True)
    kept = table.record().model_copy(update={"warm_start": fitting([one.study for one in earlier], space)})
    if folder.study.exists():
        begun = read_record(folder)
        assert begun.difference(kept) is None
        kept = begun
    write_json(folder.study, kept.to_json())
    chosen = Study(folder, kept, space, recipes=table.header.recipes, sampler="auto")
    Replay(folder, chosen, TableRunner(table, space), heard.append).explore(Budget(trials=trials))


def test_optuna_s_own_samplers_take_only_the_first_trials(devices: dict[int, Recording], tmp_path: Path) -> None:
    earlier = read_earlier([studied(tmp_path / "earlier", device(0, 0.8))])
    found = replay_once(devices[0], "random", 3, 12, earlier=earlier)
    assert [trial.origin for trial in found[: 1 + FIRST]] == ["baseline", *["warm start"] * FIRST]
    firsts = [trial.config for trial in found[1 : 1 + FIRST]]
    ours = replay_once(devices[0], "auto", 3, 12, earlier=earlier)
    assert [trial.config for trial in ours[1 : 1 + FIRST]] == firsts


def earlier_study(trials: Mapping[str, tuple[Mapping[str, Value], float, float, float]]) -> EarlierStudy:
    """Name -> (values, latency, memory, loss), beside its baseline."""
    made = [EarlierTrial(values=dict(complete(v)), latency=t, memory=m, loss=q) for v, t, m, q in trials.values()]
    first = EarlierTrial(values=dict(complete({})), latency=1.0, memory=1.0, loss=0.0)
    return EarlierStudy(name="a", digest="0", device="NVIDIA H200", metric="clip", trials=(first, *made))


def warm(study: EarlierStudy, goal: Goal | None = None, baseline: Trial | None = None) -> WarmStart:
    space = space_of()
    goal = goal or Goal(max_quality_drop=0.3)
    return WarmStart(fitting([study], space), space, goal, baseline or measured(0))


def test_the_config_that_adds_most_comes_first_and_dominated_ones_or_those_over_a_limit_do_not_come() -> None:
    study = earlier_study(
        {
            "a little": ({"dtype": "bf16"}, 0.9, 0.95, 0.0),
            "beaten": ({"qkv_fusion": True}, 0.95, 0.96, 0.0),
            "fast and large": ({"steps": 8}, 0.3, 1.0, 0.0),
            "bad": ({"cache": "deepcache:3"}, 0.1, 0.5, 3.0),
            "small": ({"tome_ratio": 0.5}, 1.0, 0.6, 0.0),
        }
    )
    firsts = [(config["steps"], config["tome_ratio"], config["dtype"]) for config in warm(study).first]
    assert firsts == [(8, 0.0, "fp32"), ("workload", 0.5, "fp32"), ("workload", 0.0, "bf16")]
    tight = warm(study, Goal(max_quality_drop=0.3, max_vram_bytes=70 * 2**20), measured(0, memory_bytes=100 * 2**20))
    assert [config["tome_ratio"] for config in tight.first] == [0.5], "of 100 MiB here, 60 fit"


def test_a_value_that_is_not_in_this_space_is_left_out() -> None:
    study = earlier_study(
        {"mine": ({"dtype": "bf16"}, 0.5, 0.5, 0.0), "theirs": ({"attention": "vanilla"}, 0.1, 0.1, 0.0)}
    )
    kept = fitting([study], space_of())[0]
    assert [trial.values["dtype"] for trial in kept.trials] == ["fp32", "bf16"]
    unknown = EarlierTrial(values={"knob of a plug-in": 3}, latency=0.1, memory=0.1, loss=0.0)
    assert fitting([study.model_copy(update={"trials": (*study.trials, unknown)})], space_of())[0] == kept
    with pytest.raises(UserError, match="fewer than 2 configs that worked in it are in this space"):
        fitting([study], space_of({"qkv_fusion": (False, True)}))


def test_quality_by_another_metric_is_left_out() -> None:
    study = earlier_study({"mine": ({"dtype": "bf16"}, 0.5, 0.5, 0.0)})
    told = warm(study, baseline=measured(0, judged=likeness(1.0))).told[0]
    assert math.isnan(told[1].values[-1])  # type: ignore[index]
    assert told[1].values[0] == pytest.approx(0.5)  # type: ignore[index]


def test_ratios_are_to_this_study_s_baseline_if_the_earlier_one_measured_it() -> None:
    """The baseline is bf16 here. There it was float32, and bf16 took half as long."""
    study = earlier_study({"b": ({"dtype": "bf16"}, 0.5, 0.8, 0.0), "c": ({"steps": 8}, 0.4, 1.0, 0.0)})
    told = warm(study, baseline=measured(0, {"dtype": "bf16"}, latency_s=2.0)).told[0]
    assert [one.values[0] for one in told if one.values] == pytest.approx([4.0, 2.0, 1.6])


def empty(path: Path) -> Path:
    return written(path, record(), [measured(0)])


def newer(path: Path) -> Path:
    written(path, record(), [measured(0), measured(1, {"dtype": "bf16"})])
    write_json(path / "study.json", {**record().to_json(), "schema_version": 99})
    return path


def nothing_worked(path: Path) -> Path:
    return written(path, record(), [measured(0), failed(1, {"dtype": "bf16"})])


def text(path: Path) -> Path:
    path.with_suffix(".txt").write_text("study")
    return path.with_suffix(".txt")


def not_a_table(path: Path) -> Path:
    path.with_suffix(".parquet").write_text("PAR1")
    return path.with_suffix(".parquet")


def folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path, "there is no study and no table at"),
        (folder, "is not a study folder"),
        (text, "takes folders of studies and recorded tables"),
        (not_a_table, "can't be read"),
        (empty, "no config but its baseline has worked"),
        (nothing_worked, "no config but its baseline has worked"),
        (newer, "written by a newer autotune .schema 99."),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, make: object, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        read_earlier([make(tmp_path / "earlier")])  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    return written(tmp_path / "earlier", record(), [measured(0), measured(1, {"dtype": "bf16"})])


def test_a_study_given_twice_and_the_study_itself_are_refused(earlier: Path) -> None:
    with pytest.raises(UserError, match="'earlier' is given twice"):
        read_earlier([earlier, earlier])
    with pytest.raises(UserError, match="is this study itself"):
        read_earlier([earlier], new=earlier)


def other_family(**traits: str) -> Target:
    return make_target(CPU, **traits)


def test_another_family_is_refused_and_another_device_size_or_checkpoint_is_not(earlier: Path) -> None:
    (found,) = read_earlier([earlier])
    found.check_family(make_target(gpu(9, 0), side=128, batch=4))
    checkpoint = make_target().pipeline.model_copy(update={"source": "another/one", "revision": "another"})
    found.check_family(make_target().model_copy(update={"pipeline": checkpoint}))
    with pytest.raises(UserError, match="of another family: its class is StableDiffusionPipeline, not FluxPipeline"):
        found.check_family(other_family(class_name="FluxPipeline"))
    with pytest.raises(UserError, match="its denoiser_class is UNet2DConditionModel, not Other"):
        found.check_family(other_family(denoiser_class="Other"))


def test_a_study_goes_on_with_the_warm_start_that_it_began_with(earlier: Path, tmp_path: Path) -> None:
    (found,) = read_earlier([earlier])
    begun = record().model_copy(update={"warm_start": (found.study,)})
    assert begun.difference(record()) is None, "left away: as it began"
    assert begun.difference(begun) is None
    more = written(tmp_path / "more", record(), [measured(0), measured(1, {"dtype": "bf16"}, latency_s=0.5)])
    other = record().model_copy(update={"warm_start": (read_earlier([more])[0].study,)})
    assert "its warm start is from earlier (" in str(begun.difference(other))
    assert "its warm start is from no earlier study, not more (" in str(record().difference(other))
    assert Record.parse(begun.to_json(), "it") == begun


def test_the_recorded_command_says_no_place_of_an_earlier_study(tmp_path: Path) -> None:
    place = tmp_path / "somebody" / "h200"
    words = ["search", "--warm-start", str(place), f"--warm-start={place}", "--study", "mine"]
    assert by_name(words, [place]) == ["search", "--warm-start", "h200", "--warm-start=h200", "--study", "mine"]


def test_a_replay_can_be_started_warm_by_another_table_and_not_by_its_own(
    devices: dict[int, Recording], tmp_path: Path
) -> None:
    write_table(devices[0], tmp_path / "mine.parquet")
    write_table(device(0, 0.8), tmp_path / "theirs.parquet")
    words = {"samplers": ("random",), "seeds": 1, "budget": 1 + FIRST}
    (cold,) = replay([tmp_path / "mine.parquet"], **words)  # type: ignore[arg-type]
    (warmed,) = replay([tmp_path / "mine.parquet"], warm_start=[tmp_path / "theirs.parquet"], **words)  # type: ignore[arg-type]
    assert warmed.curves[0].found[-1] > cold.curves[0].found[-1]
    with pytest.raises(UserError, match="is the table that is searched"):
        replay([tmp_path / "mine.parquet"], warm_start=[tmp_path / "mine.parquet"], **words)  # type: ignore[arg-type]


def test_from_the_command_line_on_the_real_demo(tmp_path: Path) -> None:
    """Started warm by the study that ships with autotune, of another machine, other prompts and more steps."""
    space = tmp_path / "space.toml"
    held = {name: value for name, value in complete({}).items() if name not in ("dtype", "qkv_fusion")}
    lines = [f"{name} = {json.dumps(value)}" for name, value in held.items()]
    space.write_text("\n".join(["[knobs]", *lines, "qkv_fusion = [false, true]", 'dtype = ["fp32", "bf16"]']))
    (tmp_path / "prompts.txt").write_text("a large red circle at the top on a white background\n")
    words = ["--pipeline", "demo", "--device", "cpu", "--steps", "2", "--space", space, "--confirm-rounds", "0"]
    words += ["--prompts", tmp_path / "prompts.txt", "--study", tmp_path / "mine"]
    earlier = ROOT / "reports" / "demo-cpu"
    bad = command_here("search", *words, "--budget", "2", "--warm-start", tmp_path / "nothing")
    assert (bad.returncode, "there is no study and no table at" in bad.stderr) == (2, True)
    assert not (tmp_path / "mine").exists()
    done = command_here("search", *words, "--budget", "1", "--warm-start", earlier)
    assert done.returncode == 0, done.stderr
    more = command_here("search", *words, "--budget", "2")
    assert more.returncode == 0, more.stderr
    assert re.search(r"warm start from 1 study: 2 trials of .* order the first 1\n", more.stdout), "by what it kept"
    assert "trial 1 (warm start) dtype=bf16" in more.stdout
    assert [trial.origin for trial in read_trials(StudyFolder(tmp_path / "mine"))] == ["baseline", "warm start"]
    assert "--warm-start demo-cpu" in read_record(StudyFolder(tmp_path / "mine")).command
    for exported in ("study.json", "best.json", "report.md", "report.html"):
        assert str(earlier) not in (tmp_path / "mine" / exported).read_text(encoding="utf-8")


def test_a_search_without_earlier_studies_reports_no_warm_start(devices: dict[int, Recording], tmp_path: Path) -> None:
    heard: list[object] = []
    search(tmp_path / "mine", devices[0], [], 2, heard)
    assert not [event for event in heard if isinstance(event, WarmStarted)]
    assert "warm start" not in dict(how_measured(read_summary(tmp_path / "mine")))
