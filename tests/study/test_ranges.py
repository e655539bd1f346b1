"""Knobs whose values are a range: the space, space files, proposals, and studies that began without ranges."""

import dataclasses
import random
from pathlib import Path

import optuna
import pytest
from conftest import gpu, make_target
from made_up import measured, record
from optuna.trial import TrialState

import autotune.study.space as space_module
from autotune.config import Config, Range, Value
from autotune.errors import UserError
from autotune.knobs import complete, find_knob
from autotune.recordings.from_study import _allowed
from autotune.study.auto_sampler import irrelevant_knobs
from autotune.study.earlier import EarlierTrial
from autotune.study.importance import importances
from autotune.study.record import Record
from autotune.study.space import SearchSpace, make_space
from autotune.study.space_file import Recipe, SpaceFile, read_space_file
from autotune.study.storage import InMemory
from autotune.study.study import Study
from autotune.study.warm_start import is_in_space
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Trial

FIXED: dict[str, tuple[Value, ...]] = {name: (value,) for name, value in complete({}).items()}
RATIO, STEPS = Range(low=0.1, high=0.7), Range(low=4, high=16)


def written(folder: Path, knobs: str) -> SpaceFile:
    (folder / "my.toml").write_text(f"[knobs]\n{knobs}\n")
    return read_space_file(folder / "my.toml")


def space_of(file: SpaceFile, target: Target | None = None, **options: object) -> SearchSpace:
    how = {"fix": {}, "exclude": (), "baseline": complete({})} | options
    return make_space(target or make_target(), file, **how)  # type: ignore[arg-type]


def small_space() -> SearchSpace:
    knobs = FIXED | {"dtype": ("fp32", "bf16"), "tome_ratio": (0.0, 0.25, 0.5), "steps": ("workload",)}
    return space_of(SpaceFile(knobs=knobs, ranges={"tome_ratio": (RATIO,), "steps": (STEPS,)}))


def study_of(space: SearchSpace, sampler: str, folder: Path | None = None, **options: object) -> Study:
    kept = record(space=space.values).model_copy(update={"ranges": space.ranges})
    store = None if folder else InMemory()
    return Study(StudyFolder(folder or Path("nowhere")), kept, space, sampler=sampler, store=store, **options)  # type: ignore[arg-type]


def works(number: int, config: Config, origin: str) -> Trial:
    """More merging is faster and loses more; fewer steps are faster."""
    steps = 20 if config["steps"] == "workload" else int(config["steps"])
    ratio = float(config["tome_ratio"])
    latency_s = steps / 20 * (1 - 0.5 * ratio) * (0.8 if config["dtype"] == "bf16" else 1.0)
    return measured(number, config, latency_s=latency_s, loss=ratio**2 + (20 - steps) / 60, origin=origin)


@pytest.mark.parametrize(
    ("knobs", "values", "ranges"),
    [
        ('steps = "8..50"', ("workload", 8, 18, 29, 40, 50), (Range(low=8, high=50),)),
        ("steps = { low = 8, high = 10 }", ("workload", 8, 9, 10), (Range(low=8, high=10),)),
        ('steps = ["workload", 12, "8..50"]', ("workload", 12), (Range(low=8, high=50),)),
        ('steps = ["workload", "range"]', ("workload", 5, 9, 12, 15, 19), (Range(low=5, high=19),)),
        ("steps = [12, 8]", ("workload", 12, 8), None),
    ],
)
def test_a_space_file_names_a_range_by_a_word_or_a_table_and_a_list_restricts(
    tmp_path: Path, knobs: str, values: tuple[Value, ...], ranges: tuple[Range, ...] | None
) -> None:
    made = space_of(written(tmp_path, knobs))
    assert made.values["steps"] == values
    assert made.ranges.get("steps") == ranges


def test_whole_ends_are_a_range_of_ratios_where_the_knob_takes_ratios(tmp_path: Path) -> None:
    made = space_of(written(tmp_path, "tome_ratio = [0, { low = 0.1, high = 0.7 }]"))
    assert made.ranges["tome_ratio"] == (RATIO,)
    assert made.values["tome_ratio"] == (0.0, 0.25, 0.5), "the knob's own values in it are tried first"
    assert not made.offers("tome_ratio", 0.75)
    assert made.offers("tome_ratio", 0.333)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ('steps = "50..8"', "the range of steps can't be used: the whole: value error, 50..8 is no range"),
        ('steps = "0..8"', "steps can't be 0: "),
        ('steps = "0.5..8"', "steps can't be 0.5: "),
        ('tome_ratio = "0.1..0.9"', "tome_ratio can't be "),
        ('dtype = "8..50"', "dtype can't be 8: known: fp32"),
        ('cache = "first_block:0.03..2, log"', "cache can't be 'first_block:"),
        ("steps = { low = 8, high = 50, stride = 2 }", "the range of steps can't be used: stride: extra inputs"),
        ('stpes = "8..50"', "unknown knob 'stpes': did you mean 'steps'?"),
    ],
)
def test_a_range_that_the_knob_cannot_have_is_refused_in_one_sentence(tmp_path: Path, knobs: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        written(tmp_path, knobs)
    assert str(caught.value).startswith("the space file ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_lists_values_or_does_not_name_the_steps_searches_as_before(tmp_path: Path) -> None:
    made = space_of(written(tmp_path, "tome_ratio = [0.0, 0.25, 0.5, 0.75]"))
    assert not {"tome_ratio", "steps"} & set(made.ranges)
    assert made.values["steps"] == ("workload",)


def test_fixed_and_excluded_knobs_have_no_range() -> None:
    made = space_of(SpaceFile(), fix={"tome_ratio": 0.333}, exclude=("cache",))
    assert made.values["tome_ratio"] == (0.333,)
    assert not {"tome_ratio", "cache"} & set(made.ranges)
    with pytest.raises(UserError, match=r"tome_ratio can.t be .0\.1\.\.0\.7."):
        space_of(SpaceFile(), fix={"tome_ratio": "0.1..0.7"})


def test_a_range_ends_where_its_numbers_are_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which numbers a knob refuses is asked of the knob, one by one, between a refused end and a listed value."""
    steps = dataclasses.replace(
        find_knob("steps"), why_not=lambda v, _: "too few" if v != "workload" and v < 11 else None
    )
    real = space_module.find_knob
    monkeypatch.setattr(space_module, "find_knob", lambda name: steps if name == "steps" else real(name))
    made = space_of(SpaceFile(ranges={"steps": (Range(low=1, high=60),)}))
    assert made.ranges["steps"] == (Range(low=11, high=60),)
    assert made.impossible["steps", 1] == "too few"
    all_refused = space_of(SpaceFile(ranges={"steps": (Range(low=1, high=10),)}))
    assert "steps" not in all_refused.ranges
    assert all_refused.values["steps"] == ("workload",)


def test_a_knob_without_its_modifiers_has_no_range() -> None:
    made = space_of(SpaceFile(), make_target(attention_downsamples=(16,)))
    assert made.values["tome_ratio"] == (0.0,)
    assert "tome_ratio" not in made.ranges


def test_when_all_listed_configs_were_tried_other_numbers_are_drawn() -> None:
    made, rng, tried = small_space(), random.Random(0), list(small_space().all_configs())
    for _ in range(6):
        config = made.random(rng, tried)
        assert config is not None
        assert config not in tried
        assert made.objection(config) is None
        assert all(made.offers(name, value) for name, value in config.items())
        tried.append(config)


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random", "nsga2"])
def test_each_sampler_proposes_numbers_of_the_ranges_and_no_config_twice(sampler: str) -> None:
    study = study_of(small_space(), sampler)
    while len(study.trials) < 16 and (asked := study.ask()) is not None:
        study.tell(works(*asked))
    configs = [trial.config for trial in study.trials]
    assert len(set(configs)) == 16
    assert all(study.space.offers(name, value) for config in configs for name, value in config.items())
    between = {c["tome_ratio"] for c in configs} - set(study.space.values["tome_ratio"])
    between |= {c["steps"] for c in configs} - set(study.space.values["steps"])
    assert between, "numbers that nobody listed"


def test_a_study_with_ranges_is_continued_and_optuna_sees_its_numbers(tmp_path: Path) -> None:
    recipes = (Recipe(name="mine", values={"tome_ratio": 0.4321, "steps": 13}),)
    study = study_of(small_space(), "auto", tmp_path, recipes=recipes)
    for _ in range(4):
        study.tell(works(*study.ask()))  # type: ignore[misc]
    assert (study.trials[1].origin, study.trials[1].values["tome_ratio"]) == ("mine", 0.4321)
    again = study_of(small_space(), "auto", tmp_path)
    assert [trial.config for trial in again.trials] == [trial.config for trial in study.trials]
    again.tell(works(*again.ask()))  # type: ignore[misc]
    told = optuna.load_study(study_name="autotune", storage=f"sqlite:///{tmp_path / 'study.db'}").get_trials()
    assert [frozen.state for frozen in told] == [TrialState.COMPLETE] * 5
    assert told[1].params["tome_ratio in 0.1..0.7"] == 0.4321
    assert told[1].params["steps in 4..16"] == 13
    assert told[0].params["steps"] == "workload"


def test_a_record_keeps_its_ranges_and_one_of_an_earlier_version_has_none() -> None:
    made = small_space()
    now = record(space=made.values).model_copy(update={"ranges": made.ranges})
    assert Record.parse(now.to_json(), "it") == now
    before = Record.parse({k: v for k, v in now.to_json().items() if k != "ranges"}, "it")
    assert before.ranges is None
    assert before.difference(now) is None, "it goes on, with its listed values"
    assert now.model_copy(update={"ranges": {}}).difference(now) == "another space"


def test_numbers_of_earlier_studies_and_without_effect() -> None:
    made = small_space()
    assert is_in_space(EarlierTrial(values={"tome_ratio": 0.333, "steps": 7}), made)
    assert not is_in_space(EarlierTrial(values={"tome_ratio": 0.75}), made)
    assert not is_in_space(EarlierTrial(values={"steps": 17}), made)
    made.no_effect.add(("tome_ratio", 0.333))
    assert made.objection(complete({"tome_ratio": 0.333})) == "tome_ratio=0.333 had no effect here"


def test_a_number_is_as_irrelevant_for_the_quality_as_its_knob() -> None:
    kept = record(space={})
    names = irrelevant_knobs(kept, small_space(), [])["max_quality_drop"]
    assert "tome_ratio in 0.1..0.7" not in names, "it changes the picture"


def test_the_importance_of_a_choice_and_its_number_is_that_of_the_knob() -> None:
    made, rng = small_space(), random.Random(0)
    trials = [works(0, complete({}), "baseline")]
    for number in range(1, 40):
        values = {"tome_ratio": rng.choice((0.0, RATIO.at(rng.random()))), "dtype": rng.choice(("fp32", "bf16"))}
        trials.append(works(number, complete({**values, "steps": STEPS.at(rng.random())}), "sampler"))
    kept = record(space=made.values).model_copy(update={"ranges": made.ranges})
    found = importances(kept, trials)
    assert {"dtype", "tome_ratio", "steps"} <= found.keys() <= made.free.keys(), "knobs, not parameters"
    assert sum(found.values()) == pytest.approx(1)
    assert max(found, key=lambda name: found[name]) == "steps"


def test_a_table_of_a_study_with_ranges_is_never_whole() -> None:
    made = small_space()
    kept, trials = record(space=made.values), [works(0, complete({}), "baseline")]
    assert _allowed(kept.model_copy(update={"ranges": made.ranges}), trials, trials) == (None, None)
    count, left = _allowed(kept, trials, trials)
    assert count == made.count()
    assert left == made.count() - 1  # type: ignore[operator]


def test_knobs_that_are_numbers_have_ranges_in_which_their_own_values_lie() -> None:
    flux = {"class_name": "FluxPipeline", "denoiser_class": "FluxTransformer2DModel", "caches_blocks": True}
    targets = [make_target(gpu(9, 0)), make_target(gpu(9, 0), convolutions=0, attention_downsamples=(), **flux)]
    found = {name for target in targets for name in space_of(SpaceFile(), target).ranges}
    assert {"tome_ratio", "cache"} <= found
    for target in targets:
        for name in ("tome_ratio", "guidance_cutoff", "cache", "steps", "vae_tiling"):
            knob = find_knob(name)
            for each in knob.ranges(target):
                assert all(knob.accepts(value) for value in each.grid()), (name, each)


def test_the_side_of_a_tile_is_a_number_that_is_smaller_than_the_picture() -> None:
    made = space_of(SpaceFile(), make_target(side=512, vae_tile_px=512))
    assert made.values["vae_tiling"] == (False, 256)
    [tiles] = made.ranges["vae_tiling"]
    assert (tiles.low, tiles.high, tiles.step) == (128, 504, 8)
    assert made.objection(complete({"vae_tiling": 136})) is None
