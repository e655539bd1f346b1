"""Study, on made-up measurements: what it proposes, what it tells Optuna, and how it goes on after a kill."""

import json
import random
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
import pytest
from conftest import CPU, make_target
from made_up import changed, failed, measured, record, stopped
from optuna.trial import FrozenTrial, TrialState

from autotune.config import Config, Value
from autotune.errors import UserError
from autotune.frozen_model import write_json
from autotune.goal import Goal
from autotune.job import MeasureJob
from autotune.knobs import complete
from autotune.reuse import SpotCheck
from autotune.statistics.drift import corrected
from autotune.study import storage
from autotune.study.importance import LEAST_TRIALS, importances
from autotune.study.pareto_front import pareto_front
from autotune.study.proposals import SAMPLERS, check_sampler
from autotune.study.record import read_trials, write_trial
from autotune.study.space import SearchSpace, make_space
from autotune.study.space_file import Recipe, SpaceFile, shipped_space_file
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.trial import Anchor, Cause, Trial

MIB = 2**20
DEMO = shipped_space_file("demo.toml")
NARROW = SpaceFile(
    knobs={name: (value,) for name, value in complete({}).items()}
    | {"dtype": ("fp32", "bf16"), "qkv_fusion": (False, True), "memory_format": ("contiguous", "channels_last")}
)  # 8 configs


def demo_space(file: SpaceFile = DEMO, *, fix: Mapping[str, Value] | None = None) -> SearchSpace:
    return make_space(make_target(), file, fix=fix or {}, exclude=(), baseline=complete({}))


def open_study(
    folder: Path,
    space: SearchSpace,
    *,
    sampler: str = "tpe",
    recipes: tuple[Recipe, ...] = (),
    goal: Goal | None = None,
    seed: int = 0,
) -> Study:
    folder.mkdir(exist_ok=True)
    made_up_record = record(goal=goal, space=space.values)
    return Study(StudyFolder(folder), made_up_record, space, recipes=recipes, sampler=sampler, seed=seed)


def works(number: int, config: Config, origin: str) -> Trial:
    """A made-up landscape in which every knob counts."""
    luck = int(config.digest, 16) % 100 / 1000
    latency_s = 1.0 + luck - 0.3 * (config["dtype"] == "bf16") - 0.2 * (config["compile"] != "off")
    memory_bytes = 100 * MIB - 20 * MIB * (config["quantization"] != "none")
    loss = 0.2 * float(config["tome_ratio"]) + luck
    return measured(number, config, latency_s=latency_s, memory_bytes=memory_bytes, loss=loss, origin=origin)


def works_or_not(number: int, config: Config, origin: str) -> Trial:
    """The same, but three configs in ten fail."""
    if number and int(config.digest, 16) % 10 < 3:
        return failed(number, config, cause="out_of_memory")
    return works(number, config, origin)


def go_on(study: Study, trials: int, outcome: Callable[[int, Config, str], Trial] = works) -> list[Trial]:
    """Ask and tell until the study has so many trials, or has no more to ask."""
    while len(study.trials) < trials and (asked := study.ask()) is not None:
        study.tell(outcome(*asked))
    return study.trials


def seen_by_optuna(folder: Path) -> list[FrozenTrial]:
    """Every trial in study.db, as a researcher would read it."""
    loaded = optuna.load_study(study_name="autotune", storage=f"sqlite:///{folder / 'study.db'}")
    return list(loaded.get_trials(deepcopy=False))


def test_the_baseline_comes_first(tmp_path: Path) -> None:
    study = open_study(tmp_path, demo_space())
    assert study.ask() == (0, complete({}), "baseline")


def test_a_study_that_began_before_a_knob_was_there_tries_no_config_again(tmp_path: Path) -> None:
    """Its baseline names fewer knobs than the configs of today's space."""
    older = {name: value for name, value in complete({}).items() if name != "vae_slicing"}
    begun = record(space=demo_space(NARROW).values).model_copy(update={"baseline": older})
    write_trial(StudyFolder(tmp_path), measured(0).model_copy(update={"values": older}))
    study = Study(StudyFolder(tmp_path), begun, demo_space(NARROW), recipes=(), sampler="random", seed=0)
    assert len(go_on(study, 20)) == 8
    assert len({complete(trial.values) for trial in study.trials}) == 8


TRIALS = {"auto": 40, "tpe": 30, "random": 30, "nsga2": 30, "gp": 7}


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    """Sampler -> its study of the demo's space, where three configs in ten fail."""
    folder = tmp_path_factory.mktemp("searches")
    studies = {sampler: open_study(folder / sampler, demo_space(), sampler=sampler) for sampler in TRIALS}
    for sampler, study in studies.items():
        go_on(study, TRIALS[sampler], works_or_not)
    return studies


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_with_three_configs_in_ten_failing_no_config_is_proposed_twice(
    searches: dict[str, Study], sampler: str
) -> None:
    found = searches[sampler].trials
    assert [trial.number for trial in found] == list(range(TRIALS[sampler]))
    assert len({trial.config for trial in found}) == TRIALS[sampler]
    assert sum(trial.measured is None for trial in found) > TRIALS[sampler] / 10


def test_an_unknown_sampler_is_refused_with_the_nearest() -> None:
    assert check_sampler("gp") == "gp"
    with pytest.raises(UserError, match="unknown sampler 'nsga': did you mean 'nsga2'"):
        check_sampler("nsga")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_config_to_which_a_rule_objects_is_proposed(searches: dict[str, Study], sampler: str) -> None:
    space = demo_space()
    allowed = space.count()
    assert allowed is not None
    assert allowed < space.combinations() / 2, "the rules of this space must matter for this test to mean something"
    assert {space.objection(trial.config) for trial in searches[sampler].trials} == {None}


def test_a_sampler_learns_from_what_it_is_told(tmp_path: Path) -> None:
    """Of its later trials it proposes more of what is fast than chance does."""
    more = {"steps": ("workload", 12, 8), "tome_ratio": (0.0, 0.25, 0.5), "compile": ("off", "regional")}
    space = SpaceFile(knobs=NARROW.knobs | more)

    def share(sampler: str) -> float:
        study = open_study(tmp_path / sampler, demo_space(space), sampler=sampler)
        late = go_on(study, 40)[15:]
        return sum(trial.values["dtype"] == "bf16" for trial in late) / len(late)

    assert min(share("tpe"), share("auto")) > share("random")


def test_recipes_come_right_after_the_baseline_in_their_order(tmp_path: Path) -> None:
    study = open_study(tmp_path, demo_space(), recipes=DEMO.recipes)
    found = go_on(study, 1 + len(DEMO.recipes) + 1)
    assert [t.origin for t in found] == ["baseline", *(recipe.name for recipe in DEMO.recipes), "sampler"]
    for recipe, trial in zip(DEMO.recipes, found[1:], strict=False):
        assert trial.config == complete(recipe.values)


def test_recipes_that_are_not_allowed_here_or_were_tried_are_skipped(tmp_path: Path) -> None:
    recipes = (
        Recipe(name="not offered", values={"steps": 3}),
        Recipe(name="not on a CPU", values={"dtype": "fp16"}),
        Recipe(name="clashes", values={"qkv_fusion": True, "attention": "vanilla"}),
        Recipe(name="the baseline", values={}),
        Recipe(name="good", values={"dtype": "bf16"}),
        Recipe(name="the same again", values={"dtype": "bf16", "qkv_fusion": False}),
    )
    found = go_on(open_study(tmp_path, demo_space(), recipes=recipes), 3)
    assert [trial.origin for trial in found] == ["baseline", "good", "sampler"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_failures_are_told_as_violated_constraints_and_never_as_fail(searches: dict[str, Study], sampler: str) -> None:
    found = searches[sampler].trials
    told = seen_by_optuna(searches[sampler].folder.path)
    assert {frozen.state for frozen in told} == {TrialState.COMPLETE}
    assert [frozen.user_attrs["trial"] for frozen in told] == list(range(TRIALS[sampler]))
    for trial, frozen in zip(found, told, strict=True):
        assert frozen.user_attrs["outcome"] == ("measured" if trial.measured else "out_of_memory")
        assert (frozen.constraints["failed"] > 0) == (trial.measured is None)
        assert all(0 <= value < float("inf") for value in frozen.values)
    assert any(frozen.constraints["failed"] > 0 for frozen in told)


def test_a_limit_of_the_goal_is_a_constraint(tmp_path: Path) -> None:
    goal = Goal(max_quality_drop=0.3, max_vram_bytes=80 * MIB, max_latency_s=2.0)
    found = go_on(open_study(tmp_path, demo_space(), goal=goal), 3)
    for trial, frozen in zip(found, seen_by_optuna(tmp_path), strict=True):
        assert trial.measured is not None
        assert frozen.constraints["max_vram"] == pytest.approx(trial.measured.peak_memory_bytes / (80 * MIB) - 1)
        assert frozen.constraints["max_latency"] < 0


def test_researchers_can_open_study_db_with_optuna(searches: dict[str, Study]) -> None:
    study = searches["tpe"]
    loaded = optuna.load_study(study_name="autotune", storage=f"sqlite:///{study.folder.database}")
    assert [d.name for d in loaded.directions] == ["MINIMIZE"] * 3
    for trial, frozen in zip(study.trials, loaded.get_trials(), strict=True):
        assert frozen.user_attrs["config"] == dict(trial.config)
        assert frozen.user_attrs["origin"] == trial.origin
        assert frozen.user_attrs["seconds"] == trial.seconds
        if trial.measured:
            assert frozen.values[0] == trial.measured.latency_s
            assert frozen.values[1] == trial.measured.peak_memory_bytes
    assert loaded.best_trials


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_baseline_outside_the_space_breaks_no_sampler(tmp_path: Path, sampler: str) -> None:
    """With --fix the baseline can have a value that is not searched; the samplers must not trip over it."""
    space = demo_space(fix={"dtype": "bf16"})
    found = go_on(open_study(tmp_path, space, sampler=sampler), 9, works_or_not)
    assert found[0].config == complete({})
    assert {trial.values["dtype"] for trial in found[1:]} == {"bf16"}
    assert len({trial.config for trial in found}) == 9


def test_a_study_of_a_space_that_is_used_up_proposes_nothing(tmp_path: Path) -> None:
    space = demo_space(NARROW)
    study = open_study(tmp_path, space)
    found = go_on(study, 1000)
    assert {trial.config for trial in found} == set(space.all_configs())
    assert len(found) == space.count() == 8
    assert study.ask() is None


def test_a_space_of_the_baseline_alone_is_used_up_at_once(tmp_path: Path) -> None:
    study = open_study(tmp_path, demo_space(fix=complete({})))
    assert len(go_on(study, 10)) == 1
    assert study.ask() is None


def test_a_value_without_effect_leaves_the_space(tmp_path: Path) -> None:
    def idle(number: int, config: Config, origin: str) -> Trial:
        if config["qkv_fusion"]:
            return failed(number, config, cause="no_effect", knob="qkv_fusion")
        return works(number, config, origin)

    study = open_study(tmp_path, demo_space(NARROW))
    found = go_on(study, 1000, idle)
    shown = sum(trial.values["qkv_fusion"] is True for trial in found)
    assert 1 <= shown <= 3, "as soon as no other value could be why"
    assert len(found) == 4 + shown  # half of the 8, and those that showed it
    again = open_study(tmp_path, demo_space(NARROW))
    assert again.space.no_effect == {("qkv_fusion", True)}
    assert again.ask() is None


def test_a_value_that_did_something_elsewhere_stays_in_the_space(tmp_path: Path) -> None:
    study = open_study(tmp_path, demo_space(NARROW))
    fused = {"qkv_fusion": True}
    study.tell(works(0, complete({}), "baseline"))
    study.tell(works(1, complete(fused), "sampler"))
    study.tell(failed(2, {**fused, "dtype": "bf16"}, cause="no_effect", knob="qkv_fusion"))
    assert study.space.no_effect == set()


def test_a_value_without_effect_beside_others_is_dropped_once_none_of_them_can_be_why(tmp_path: Path) -> None:
    study = open_study(tmp_path, demo_space())
    study.tell(works(0, complete({}), "baseline"))
    idle = {"cause": "no_effect", "knob": "qkv_fusion"}
    study.tell(failed(1, {"qkv_fusion": True, "dtype": "bf16", "compile": "regional"}, **idle))
    study.tell(failed(2, {"qkv_fusion": True, "dtype": "bf16"}, **idle))
    assert study.space.no_effect == set(), "bf16 may be why"
    study.tell(failed(3, {"qkv_fusion": True, "compile": "regional"}, **idle))
    assert study.space.no_effect == {("qkv_fusion", True)}


def test_a_value_without_effect_is_dropped_at_once_beside_what_it_modifies_alone(tmp_path: Path) -> None:
    study = open_study(tmp_path, demo_space())
    study.tell(works(0, complete({}), "baseline"))
    values = {"quantization": "int8_dynamic", "quantization_filter": "min_features:512"}
    study.tell(failed(1, values, cause="no_effect", knob="quantization_filter"))
    assert study.space.no_effect == {("quantization_filter", "min_features:512")}


def test_a_new_study_object_continues_at_the_next_number(tmp_path: Path) -> None:
    first = list(go_on(open_study(tmp_path, demo_space(), recipes=DEMO.recipes), 8, works_or_not))
    again = open_study(tmp_path, demo_space(), recipes=DEMO.recipes)
    assert again.trials == first
    assert again.baseline == first[0]
    found = go_on(again, 16, works_or_not)
    assert [trial.number for trial in found] == list(range(16))
    assert len({trial.config for trial in found}) == 16
    assert {t.origin for t in found[8:] if t.measured} == {"sampler"}
    assert len(seen_by_optuna(tmp_path)) == 16


def test_a_deleted_study_db_is_made_again_from_the_trials(tmp_path: Path) -> None:
    found = list(go_on(open_study(tmp_path, demo_space()), 12, works_or_not))
    before = seen_by_optuna(tmp_path)
    (tmp_path / "study.db").unlink()
    again = open_study(tmp_path, demo_space())
    after = seen_by_optuna(tmp_path)
    assert again.trials == found
    assert [f.params for f in after] == [f.params for f in before]
    assert [f.user_attrs for f in after] == [f.user_attrs for f in before]
    assert [f.state for f in after] == [f.state for f in before]
    assert [f.constraints["failed"] for f in after] == [f.constraints["failed"] for f in before]
    worked = [trial.number for trial in found if trial.measured]
    assert [after[n].values for n in worked] == [before[n].values for n in worked]
    assert [after[n].constraints for n in worked] == [before[n].constraints for n in worked]


def start_trial(study: Study) -> tuple[int, Config]:
    """What a search does up to the moment that its child runs."""
    asked = study.ask()
    assert asked is not None
    number, config, _ = asked
    job = MeasureJob(target=study.record.target, values=dict(config), pictures=True)
    study.folder.trial(number).mkdir(parents=True)
    write_json(study.folder.trial(number) / "job.json", job.to_json())
    return number, config


def test_after_a_kill_the_running_trial_is_asked_again_first(tmp_path: Path) -> None:
    study = open_study(tmp_path, demo_space(), recipes=DEMO.recipes)
    go_on(study, 7)
    number, config = start_trial(study)
    assert seen_by_optuna(tmp_path)[-1].state is TrialState.RUNNING
    again = open_study(tmp_path, demo_space(), recipes=DEMO.recipes, seed=9)
    assert again.ask() == (number, config, "interrupted")
    again.tell(works(number, config, "interrupted"))
    found = go_on(again, 10)
    assert len({trial.config for trial in found}) == 10
    told = [frozen for frozen in seen_by_optuna(tmp_path) if frozen.state is TrialState.COMPLETE]
    assert [frozen.user_attrs["trial"] for frozen in told] == list(range(10))
    assert not [frozen for frozen in seen_by_optuna(tmp_path) if not frozen.state.is_finished()]


def test_a_kill_during_the_baseline_starts_with_the_baseline_again(tmp_path: Path) -> None:
    start_trial(open_study(tmp_path, demo_space()))
    assert open_study(tmp_path, demo_space()).ask() == (0, complete({}), "baseline")


def test_a_kill_between_the_disk_and_optuna_loses_nothing(tmp_path: Path) -> None:
    """The trial is on disk, but Optuna has not heard of it, or has heard half."""
    study = open_study(tmp_path, demo_space())
    go_on(study, 5)
    number, config = start_trial(study)
    trial = works(number, config, "sampler")
    write_trial(study.folder, trial)
    study._asked[number].set_user_attr("trial", number)
    again = open_study(tmp_path, demo_space())
    assert again.trials[-1] == trial
    told = [f for f in seen_by_optuna(tmp_path) if f.state is TrialState.COMPLETE]
    assert [f.user_attrs["trial"] for f in told] == list(range(6))
    assert told[-1].values[0] == trial.measured.latency_s  # type: ignore[union-attr]


def test_a_cut_short_trial_to_which_a_rule_now_objects_is_dropped(tmp_path: Path) -> None:
    study = open_study(tmp_path, demo_space(NARROW))
    go_on(study, 2)
    number, config = start_trial(study)
    again = open_study(tmp_path, demo_space(NARROW))
    again.space.no_effect |= {(name, value) for name, value in config.items() if value != complete({})[name]}
    asked = again.ask()
    assert asked is None or (asked[0] == number and asked[1] != config)


@pytest.mark.parametrize("damage", ["garbage", "torn", "a folder"])
def test_a_damaged_study_db_is_kept_aside_and_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is only a view: it never costs the study."""
    go_on(open_study(tmp_path, demo_space()), 4)
    database = tmp_path / "study.db"
    content = database.read_bytes()
    if damage == "garbage":
        database.write_bytes(b"no database at all" * 1000)
    elif damage == "torn":
        database.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    else:
        database.unlink()
        database.mkdir()
    with caplog.at_level("WARNING", "autotune"):
        assert len(open_study(tmp_path, demo_space()).trials) == 4
    assert "made again from the trials, and kept as 'study.db.damaged'" in caplog.text
    assert (tmp_path / "study.db.damaged").exists()
    assert len(seen_by_optuna(tmp_path)) == 4


def test_a_study_db_that_another_program_holds_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "LOCKED_S", 0.05)
    study = open_study(tmp_path, demo_space())
    go_on(study, 2)
    with sqlite3.connect(tmp_path / "study.db") as dashboard, caplog.at_level("WARNING", "autotune"):
        dashboard.execute("BEGIN EXCLUSIVE")
        assert len(go_on(study, 4)) == 4
        dashboard.rollback()
    assert "study.db can't be used any more" in caplog.text
    assert "locked" in caplog.text
    assert len(seen_by_optuna(tmp_path)) < 4
    open_study(tmp_path, demo_space())
    told = {frozen.user_attrs.get("trial") for frozen in seen_by_optuna(tmp_path) if frozen.state.is_finished()}
    assert told >= {0, 1, 2, 3}


@pytest.mark.parametrize("name", ["with space", "what?x=1", "100%20sure", "häß#1"])
def test_a_study_can_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    go_on(open_study(tmp_path / name, demo_space()), 3)
    with sqlite3.connect(tmp_path / name / "study.db") as database:
        assert database.execute("select count(*) from trials").fetchone() == (3,)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_trials_on_disk_are_what_the_study_says(tmp_path: Path) -> None:
    study = open_study(tmp_path, demo_space())
    found = go_on(study, 6, works_or_not)
    assert read_trials(StudyFolder(tmp_path)) == found
    data = json.loads((tmp_path / "trials" / "0003" / "trial.json").read_text())
    assert data["values"] == dict(found[3].config)


def test_the_same_seed_proposes_the_same_configs(tmp_path: Path) -> None:
    def configs(name: str, seed: int) -> list[Config]:
        return [t.config for t in go_on(open_study(tmp_path / name, demo_space(), seed=seed), 8)]

    assert configs("a", 1) == configs("b", 1)
    assert configs("c", 1) != configs("d", 2)


def test_the_made_up_target_is_a_cpu() -> None:
    """The counts above are of a space on a CPU."""
    assert make_target().device == CPU


@pytest.fixture(scope="module")
def by_size(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    """Sampler -> its study of a workload of two sizes, each of them minimised. One trial fails whatever it is."""

    def outcome(number: int, config: Config, origin: str) -> Trial:
        trial = failed(number, config) if number == 5 else works_or_not(number, config, origin)
        if trial.measured is None:
            return trial
        return measured(number, config, latency_s=trial.measured.latency_s, also=(0.5 + number,), origin=origin)

    folder, goal = tmp_path_factory.mktemp("by_size"), Goal(max_quality_drop=0.3, max_latency_s=3.0, minimise="each")
    made, space = {}, demo_space()
    for sampler in SAMPLERS:
        (folder / sampler).mkdir()
        both = record(make_target(sizes=2), goal=goal, space=space.values)
        made[sampler] = Study(StudyFolder(folder / sampler), both, space, sampler=sampler)
        go_on(made[sampler], TRIALS["gp"], outcome)
    return made


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_where_each_size_counts_optuna_has_an_objective_for_each(by_size: dict[str, Study], sampler: str) -> None:
    study = by_size[sampler]
    loaded = optuna.load_study(study_name="autotune", storage=f"sqlite:///{study.folder.database}")
    assert [d.name for d in loaded.directions] == ["MINIMIZE"] * 4
    for trial, frozen in zip(study.trials, loaded.get_trials(), strict=True):
        if trial.measured:
            assert tuple(frozen.values[:2]) == trial.measured.latencies_s
            assert frozen.constraints["max_latency"] == pytest.approx(max(trial.measured.latencies_s) / 3.0 - 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_failure_is_told_with_the_worst_of_the_others_at_each_size(by_size: dict[str, Study], sampler: str) -> None:
    study = by_size[sampler]
    for trial, frozen in zip(study.trials, seen_by_optuna(study.folder.path), strict=True):
        if trial.measured is None:
            known = [t.measured.latencies_s for t in study.trials[: trial.number] if t.measured]
            assert frozen.values[:2] == [max(column) for column in zip(*known, strict=True)]
    assert any(trial.measured is None for trial in study.trials)


@pytest.mark.parametrize("cause", ["throttled", "contended", "noisy"])
def test_a_failure_unrelated_to_its_config_is_never_ranked_and_the_sampler_ignores_it(
    tmp_path: Path, cause: Cause
) -> None:
    """Promises 7 and 8: injected throttling never reaches the front; still, the config is not proposed again."""
    study = open_study(tmp_path / "study", demo_space(NARROW))
    study.tell(measured(0))
    asked = study.ask()
    assert asked is not None
    number, config, origin = asked
    study.tell(failed(number, config, cause).model_copy(update={"origin": origin}))
    assert [trial.number for trial in pareto_front(study.trials, study.baseline)] == [0]
    told = optuna.load_study(study_name="autotune", storage=f"sqlite:///{study.folder.database}").get_trials()
    assert [one.state for one in told] == [TrialState.COMPLETE, TrialState.FAIL]
    again = open_study(tmp_path / "study", demo_space(NARROW))
    assert [trial.number for trial in again.trials] == [0, 1]
    while (asked := again.ask()) is not None:
        assert asked[1] != config
        again.tell(measured(asked[0], asked[1]))


def test_the_knob_that_decides_the_latency_is_ranked_first_and_few_trials_rank_nothing() -> None:
    space = {"dtype": ("fp32", "bf16"), "qkv_fusion": (False, True), "offload": ("none",)}
    rng = random.Random(0)
    trials = [measured(0)]
    for number in range(1, 60):
        values = {"dtype": rng.choice(("fp32", "bf16")), "qkv_fusion": rng.choice((False, True))}
        latency_s = (0.5 if values["dtype"] == "bf16" else 1.0) * rng.uniform(0.99, 1.01)
        trials.append(measured(number, values, latency_s=latency_s))
    found = importances(record(space=space), trials)
    assert found.keys() == {"dtype", "qkv_fusion"}, "a knob with one value decides nothing"
    assert found["dtype"] > 0.9
    assert importances(record(space=space), trials[: LEAST_TRIALS - 1]) == {}
    assert importances(record(space=space), [failed(n) for n in range(30)]) == {}


def test_tell_corrects_the_new_trial_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the thousandth trial costs what the tenth did, see benchmarks/trial_overhead.py."""
    seen: list[int] = []

    def counting(trials: list[Trial], anchors: list[Anchor]) -> list[Trial]:
        seen.append(len(trials))
        return corrected(trials, anchors)

    opened = open_study(tmp_path, demo_space())
    monkeypatch.setattr("autotune.study.study.corrected", counting)
    for _ in range(5):
        asked = opened.ask()
        assert asked is not None
        opened.tell(works(*asked))
    assert max(seen) <= 2
    assert opened.tried() == {trial.config for trial in opened.trials}


LAYOUT: dict[str, Value] = {"memory_format": "channels_last"}


def test_a_stopped_trial_is_told_with_its_costs_and_a_made_up_loss(tmp_path: Path) -> None:
    """The loss of trials that draw the same pictures, or the median of all. It is marked as not measured."""
    study = open_study(tmp_path, demo_space(NARROW), sampler="auto")
    study.tell(measured(0))
    study.tell(measured(1, {"dtype": "bf16"}, loss=0.2))
    study.tell(measured(2, {"dtype": "bf16", "qkv_fusion": True}, loss=0.2))
    study.tell(stopped(3, {"dtype": "bf16", **LAYOUT}, latency_s=2.0, memory_bytes=300 * MIB))
    told = seen_by_optuna(tmp_path)[3]
    assert told.state == TrialState.COMPLETE
    assert told.values == pytest.approx([2.0, 300 * MIB, 0.2])
    assert told.constraints["failed"] == 0
    assert told.user_attrs["outcome"] == "stopped"
    assert told.user_attrs["not_measured"] == [2, "max_quality_drop"]
    study.tell(stopped(4, LAYOUT, latency_s=2.0, memory_bytes=300 * MIB))
    assert seen_by_optuna(tmp_path)[4].values[-1] == pytest.approx(0.0), "it draws the baseline's pictures"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_on_after_stopped_trials(tmp_path: Path, sampler: str) -> None:
    def often_stopped(number: int, config: Config, origin: str) -> Trial:
        trial = works(number, config, origin)
        return changed(trial, quality=None, stopped="beaten") if number % 3 == 2 else trial

    study = open_study(tmp_path, demo_space(), sampler=sampler)
    trials = go_on(study, 8, often_stopped)
    assert len({trial.config for trial in trials}) == len(trials) == 8
    front = pareto_front(trials, trials[0])
    assert all(trial.judged for trial in front)
    again = open_study(tmp_path, demo_space(), sampler=sampler)
    assert [trial.judged is None for trial in again.trials] == [n % 3 == 2 for n in range(8)]


def test_a_distrusted_knob_counts_for_the_quality_from_then_on(tmp_path: Path) -> None:
    """In AutoSampler's model: in this run, and in one that goes on with the study."""
    spot_check = SpotCheck(trial=0, prompt=0, suspects=LAYOUT, ssim=0.5, psnr_db=20.0, largest_levels=99)
    study = open_study(tmp_path, demo_space(NARROW), sampler="auto")
    study.tell(measured(0))
    assert study._auto_sampler is not None
    assert "memory_format" in study._auto_sampler._irrelevant[2]
    study.tell(changed(measured(1, LAYOUT, loss=0.5), spot_check=spot_check))
    for opened in (study, open_study(tmp_path, demo_space(NARROW), sampler="auto")):
        assert opened._auto_sampler is not None
        assert "memory_format" not in opened._auto_sampler._irrelevant[2]
        assert "qkv_fusion" in opened._auto_sampler._irrelevant[2]
