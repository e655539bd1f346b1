"""Ladders: speedups relative to the first rung, replaced values, and what happens after a failure or a stop.

One test runs a real ladder of the demo, stopped and continued from the command line. The others make measurements up.
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from command_line import HEAVY, NO_DRIVER, check_refused, run, snapshot
from conftest import CPU, gpu, make_target
from made_up import failed, measured, quality
from searches import command_here
from typer.testing import CliRunner

from autotune.cli import app
from autotune.config import Config, Value
from autotune.device import Device
from autotune.errors import UserError
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.report.terminal.ladder import markdown, written_ladder
from autotune.research.ladder import ladder as ladders
from autotune.research.ladder.recipe import LadderRecipe, Placed, Rung, place, read_recipe, read_recipe_file
from autotune.research.ladder.record import LadderFolder, LadderRecord, Row, Run, ratios_of, read_ladder
from autotune.study.space import SearchSpace
from autotune.target import Target
from autotune.trial import Failure, Trial

RECIPE = """
description = "A recipe of this test."
published = "fast_diffusion ladder"

[[rungs]]
name = "vanilla"
set = { attention = "vanilla" }
published = "fp32, vanilla attention"

[[rungs]]
name = "half"
set = { dtype = ["fp16", "bf16"] }
published = "bf16, vanilla attention"

[[rungs]]
name = "offload"
set = { offload = "model" }

[[rungs]]
name = "SDPA"
set = { attention = "sdpa" }
published = "bf16 + SDPA"
"""
MORE = """
[[rungs]]
name = "channels last"
on = "half"
set = { memory_format = "channels_last" }
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(RECIPE + MORE)
    return tmp_path / "mine.toml"


# --- speedups relative to the first rung


def runs_of(latencies: Sequence[tuple[int, float]]) -> list[Run]:
    """Runs of (rung, latency in s), in this order."""
    return [Run(rung=rung, trial=measured(rung, latency_s=latency)) for rung, latency in latencies]


def speed(runs: Sequence[Run], rung: int) -> float:
    ratios = ratios_of(runs, rung)
    return sum(ratios) / len(ratios)


def interleaved(speeds: Sequence[float], drift: Callable[[int], float]) -> list[Run]:
    """A ladder whose rungs truly have these speeds, on a device that takes drift(t) times as long at its t-th run."""
    order = [0, *(x for rung in range(1, len(speeds)) for x in (rung, 0))]
    return runs_of([(rung, drift(t) / speeds[rung]) for t, rung in enumerate(order)])


@pytest.mark.parametrize("seed", range(20))
def test_a_device_that_slows_down_steadily_changes_no_speedup(seed: int) -> None:
    rng = random.Random(seed)
    speeds = [1.0, *(rng.uniform(0.5, 4.0) for _ in range(5))]
    slope = rng.uniform(-0.03, 0.1)
    runs = interleaved(speeds, lambda t: 1 + slope * t)
    assert [speed(runs, rung) for rung in range(6)] == pytest.approx(speeds)


@pytest.mark.parametrize("factor", [0.01, 7.0])
def test_the_unit_of_time_changes_no_speedup(factor: float) -> None:
    rng = random.Random(1)
    noise = [rng.uniform(0.9, 1.1) for _ in range(9)]
    speeds = (1.0, 1.5, 2.0, 0.5)
    one, other = interleaved(speeds, lambda t: noise[t]), interleaved(speeds, lambda t: factor * noise[t])
    assert [speed(one, r) for r in range(4)] == pytest.approx([speed(other, r) for r in range(4)])


def test_the_first_rung_has_the_speed_1_however_it_moved() -> None:
    assert ratios_of(runs_of([(0, 1.0), (1, 0.5), (0, 3.0)]), 0) == (1.0,)


def test_a_ratio_is_taken_to_the_nearest_measured_runs_of_the_first_rung() -> None:
    runs = runs_of([(0, 9.0), (0, 1.0), (1, 0.5), (2, 0.25), (0, 2.0), (0, 9.0)])
    assert ratios_of(runs, 1) == (2.0, 4.0)
    assert ratios_of(runs, 2) == (4.0, 8.0)


def test_one_run_of_the_first_rung_before_or_after_is_enough() -> None:
    assert ratios_of(runs_of([(0, 1.0), (1, 0.5)]), 1) == (2.0,)
    broken = Run(rung=0, trial=failed(0))
    assert ratios_of([*runs_of([(0, 1.0), (1, 0.5)]), broken, *runs_of([(0, 3.0)])], 1) == (2.0, 6.0)


def test_what_was_not_measured_has_no_speed() -> None:
    runs = [*runs_of([(0, 1.0)]), Run(rung=1, trial=failed(1)), Run(rung=2, why_not="no GPU")]
    assert (ratios_of(runs, 1), ratios_of(runs, 2), ratios_of(runs, 3)) == ((), (), ())


# --- recipes


def rung(on: str | None = None, **values: Value | tuple[Value, ...]) -> Rung:
    lists = {name: value if isinstance(value, tuple) else (value,) for name, value in values.items()}
    return Rung(name="a rung", set=lists, on=on)


def placed(one: Rung, target: Target, base: Mapping[str, Value] | None = None) -> Placed:
    found = place(one, complete(base or {}), SearchSpace(target, {}))
    assert isinstance(found, Placed), found
    return found


def test_the_first_value_is_used_without_a_note_where_it_is_available() -> None:
    found = placed(rung(dtype=("fp16", "bf16")), make_target(gpu(8, 0)))
    assert found.config == complete({"dtype": "fp16"})
    assert found.stands_in == ()


def test_a_replaced_value_is_noted_with_the_reason() -> None:
    found = placed(rung(dtype=("fp16", "bf16")), make_target(CPU))
    assert found.config["dtype"] == "bf16"
    assert found.stands_in == ("dtype=bf16 replaces fp16: diffusers does not support float16 on a CPU",)


def test_a_value_must_go_with_the_rest_of_the_rung_and_with_the_rung_below() -> None:
    """Flash attention takes no float32: a clash of two knobs, neither of them impossible alone."""
    found = placed(
        rung(attention=("sdpa_flash", "sdpa_efficient"), qkv_fusion=True), make_target(gpu(8, 0)), {"dtype": "fp32"}
    )
    assert found.config["attention"] == "sdpa_efficient"
    assert "float16 and bfloat16 only" in found.stands_in[0]


def test_of_several_choices_the_one_nearest_to_the_first_values_is_used() -> None:
    several = rung(
        compile=("denoiser", "regional"), compile_mode=("max-autotune", "default"), memory_format="channels_last"
    )
    found = placed(several, make_target(gpu(7, 5, multiprocessors=40)))
    assert (found.config["compile"], found.config["compile_mode"]) == ("denoiser", "default")
    assert len(found.stands_in) == 1
    assert "68 multiprocessors" in found.stands_in[0]


def test_a_rung_that_is_not_available_says_why() -> None:
    space = SearchSpace(make_target(CPU), {})
    assert "needs a GPU to offload from" in str(place(rung(offload="model"), complete({}), space))


def test_a_rung_that_changes_nothing_is_not_available() -> None:
    space = SearchSpace(make_target(CPU), {})
    assert "builds on" in str(place(rung(dtype="fp32"), complete({}), space))


def test_the_first_rung_may_be_the_pipeline_as_loaded(tmp_path: Path) -> None:
    space, path = SearchSpace(make_target(CPU), {}), tmp_path / "own.toml"
    path.write_text('[[rungs]]\nname = "as loaded"\n[[rungs]]\nname = "bf16"\nset = { dtype = "bf16" }\n')
    first, second = read_recipe_file(path).rungs
    found = place(first, complete({}), space, is_first=True)
    assert isinstance(found, Placed)
    assert found.config == complete({})
    again = place(rung(dtype="fp32"), complete({}), space, is_first=True)
    assert isinstance(again, Placed)
    assert isinstance(place(second, found.config, space), Placed)


def test_a_value_without_effect_is_not_tried_again() -> None:
    space = SearchSpace(make_target(CPU), {})
    space.no_effect.add(("memory_format", "channels_last"))
    found = place(rung(memory_format=("channels_last", "contiguous"), qkv_fusion=True), complete({}), space)
    assert isinstance(found, Placed)
    assert found.config == complete({"qkv_fusion": True})
    assert found.stands_in == ("memory_format=contiguous replaces channels_last: had no effect here",)


BAD = {
    "typo": ('[[rung]]\nname = "a"\n', "'rung' is unknown, did you mean 'rungs'?"),
    "empty": ('description = "nothing"\n', "rungs: field required"),
    "no set": ('[[rungs]]\nname = "a"\n' + '[[rungs]]\nname = "b"\n', "rung 'b' sets nothing; only the first one may"),
    "sets nothing": (
        '[[rungs]]\nname = "a"\nset = { dtype = "bf16" }\n[[rungs]]\nname = "b"\nset = {}\n',
        "rung 'b' sets nothing",
    ),
    "nothing to choose": ('[[rungs]]\nname = "a"\nset = { dtype = [] }\n', "sets dtype to an empty list"),
    "knob": ('[[rungs]]\nname = "a"\nset = { dtipe = "bf16" }\n', "unknown knob 'dtipe': did you mean 'dtype'?"),
    "value": ('[[rungs]]\nname = "a"\nset = { dtype = ["bf16", "fp61"] }\n', "dtype can't be 'fp61'"),
    "unknown field": ('[[rungs]]\nname = "a"\nset = { dtype = "bf16" }\nonn = "b"\n', "rungs.0.onn"),
    "on": ('[[rungs]]\nname = "a"\nset = { dtype = "bf16" }\non = "b"\n', "not an earlier rung"),
    "twice": ('[[rungs]]\nname = "a"\nset = { dtype = "bf16" }\n' * 2, "two rungs are called 'a'"),
    "table": (
        'published = "fast difusion ladder"\n[[rungs]]\nname = "a"\nset = { dtype = "bf16" }\n',
        "did you mean 'fast_diffusion ladder'?",
    ),
    "figure": (
        'published = "memory tutorial ladder"\n'
        '[[rungs]]\nname = "a"\nset = { dtype = "bf16" }\npublished = "fp16 + channel_last"\n',
        "did you mean 'fp16 + channels_last'?",
    ),
    "figure of no table": ('[[rungs]]\nname = "a"\nset = { dtype = "bf16" }\npublished = "fp16"\n', "no table"),
    "shape": ("rungs = 3\n", "rungs"),
    "a rung's shape": ("rungs = [3]\n", "rungs.0"),
    "not TOML": ("rungs: all\n", "can't be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recipe_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    text, says = BAD[name]
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_recipe_file(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


SHIPPED = ["fast-diffusion", "memory", "tome"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_names_only_what_exists(name: str) -> None:
    found = read_recipe(name)
    assert found.name == name
    assert found.description
    assert any(one.published for one in found.rungs)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("device", [CPU, gpu(7, 5, multiprocessors=40), gpu(8, 0), gpu(9, 0)], ids=lambda d: d.name)
def test_every_rung_of_a_shipped_recipe_can_be_placed_or_says_why_not(name: str, device: Device) -> None:
    target, space = make_target(device), SearchSpace(make_target(device), {})
    found = read_recipe(name)
    first = place(found.rungs[0], complete({}), space)
    assert isinstance(first, Placed), first
    configs = [first.config]
    for number, one in list(enumerate(found.rungs))[1:]:
        answer = place(one, configs[found.below(number)], space)
        assert isinstance(answer, Placed) or answer.strip()
        configs.append(answer.config if isinstance(answer, Placed) else configs[found.below(number)])
    assert len(set(configs)) >= 3, f"{target.device.name} has too little of {name}"


# --- whole ladders, with made-up measurements


Truth = Callable[[Config], Measurement | Failure]


class MadeUp:
    """A runner that makes up the outcome of every config and records its calls."""

    def __init__(self, truth: Truth) -> None:
        self.truth, self.calls = truth, list[tuple[str, Config, bool]]()

    def run(self, place: Path, config: Config, *, pictures: bool, earlier: Sequence[Trial]) -> Measurement | Failure:
        self.calls.append((place.parent.name + "/" + place.name, config, pictures))
        outcome = self.truth(config)
        return outcome if pictures or isinstance(outcome, Failure) else outcome.model_copy(update={"quality": None})


def works(config: Config) -> Measurement | Failure:
    halved = 0.5 if config["dtype"] == "bf16" else 1.0
    outcome = measured(0, latency_s=halved * (2.0 if config["attention"] == "vanilla" else 1.0)).outcome
    assert isinstance(outcome, Measurement)
    return outcome


@pytest.fixture
def climb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: Path) -> Callable[..., tuple[LadderRecord, MadeUp]]:
    """Climb the recipe's ladder in the folder "out" with a made-up runner."""

    def made_up(truth: Truth = works, target: Target | None = None) -> tuple[LadderRecord, MadeUp]:
        runner = MadeUp(truth)
        monkeypatch.setattr(ladders, "Runner", lambda folder, target, timeout_s: runner)
        monkeypatch.setattr(ladders, "probe", lambda *args, **kwargs: target or make_target())
        arguments = {"recipe": str(recipe), "output": tmp_path / "out", "device": "cpu"}
        result = written_ladder(lambda event: None, arguments)
        return result.record, runner

    return made_up


Climb = Callable[..., tuple[LadderRecord, MadeUp]]


def row_of(record: LadderRecord, name: str) -> Row:
    return next(row for row in record.rows() if row.name == name)


def test_the_first_rung_is_measured_before_and_after_each_of_the_others(climb: Climb) -> None:
    record, runner = climb()
    assert [run.rung for run in record.runs] == [0, 1, 0, 2, 3, 0, 4, 0]
    assert [place for place, _, _ in runner.calls] == [
        *("trials/0000", "trials/0001", "again/0001", "trials/0003", "again/0002", "trials/0004", "again/0003")
    ]
    assert [pictures for _, _, pictures in runner.calls] == [True, True, False, True, False, True, False]


def test_rungs_build_on_one_another_except_where_they_name_another(climb: Climb) -> None:
    record, _ = climb()
    values = {row.name: row.trial.config for row in record.rows() if row.trial}
    assert values["half"] == complete({"attention": "vanilla", "dtype": "bf16"})
    assert values["SDPA"] == complete({"dtype": "bf16"})
    assert values["channels last"] == values["half"].replace(memory_format="channels_last")


def test_steps_multiply_to_the_speed(climb: Climb) -> None:
    record, _ = climb()
    half, sdpa = row_of(record, "half"), row_of(record, "SDPA")
    assert (half.speedup, half.speedup_over_below) == (2.0, 2.0)
    assert (sdpa.speedup, sdpa.speedup_over_below) == (4.0, 2.0)
    assert row_of(record, "vanilla").speedup_over_below is None


def test_later_rungs_do_not_build_on_a_rung_that_is_not_available(climb: Climb) -> None:
    record, runner = climb()
    offload = row_of(record, "offload")
    assert offload.trial is None
    assert offload.notes == ("not available here: offload=model: needs a GPU to offload from",)
    assert row_of(record, "SDPA").notes == ("builds on rung 1, because rung 2 is not available here",)
    assert "none" in {config["offload"] for _, config, _ in runner.calls}


def test_a_failed_rung_says_why_and_the_ladder_goes_on(climb: Climb) -> None:
    def truth(config: Config) -> Measurement | Failure:
        bad = config["dtype"] == "bf16" and config["attention"] == "vanilla"
        return failed(1, cause="out_of_memory").outcome if bad else works(config)  # type: ignore[return-value]

    record, _ = climb(truth)
    half, sdpa = row_of(record, "half"), row_of(record, "SDPA")
    assert half.notes[0] == "failed (out_of_memory): made up"
    assert half.speedup is None
    assert sdpa.speedup == 4.0
    assert sdpa.speedup_over_below is None
    assert sdpa.trial is not None
    assert sdpa.trial.config["dtype"] == "bf16", "it keeps the settings of the rung that ran out of memory"


def test_a_value_without_effect_is_replaced_by_the_next(climb: Climb) -> None:
    def truth(config: Config) -> Measurement | Failure:
        if config["dtype"] == "fp16":
            return Failure(cause="no_effect", reason="dtype=fp16 had no effect here: 0 weights", knob="dtype")
        return works(config)

    record, runner = climb(truth, make_target(gpu(8, 0)))
    half = row_of(record, "half")
    assert [config["dtype"] for _, config, _ in runner.calls][:3] == ["fp32", "fp16", "bf16"]
    assert half.trial is not None
    assert half.trial.config["dtype"] == "bf16"
    assert half.notes == ("dtype=bf16 replaces fp16: had no effect here",)


def test_a_rung_whose_only_value_has_no_effect_is_not_available(climb: Climb) -> None:
    def truth(config: Config) -> Measurement | Failure:
        if config["memory_format"] != "contiguous":
            return Failure(cause="no_effect", reason="0 weights", knob="memory_format")
        return works(config)

    record, _ = climb(truth)
    [note] = row_of(record, "channels last").notes
    assert note == "not available here: memory_format=channels_last had no effect here"


def test_a_ladder_without_a_first_rung_is_refused_and_measures_nothing_else(climb: Climb, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the first rung, 'vanilla', failed \(error\): made up; see .*log.txt"):
        climb(lambda config: failed(0).outcome)
    assert read_ladder(LadderFolder(tmp_path / "out")).runs == ()
    record, _ = climb()
    assert len(record.rows()) == 5


class Stop(BaseException):
    """Stops a ladder as KeyboardInterrupt does."""


@pytest.mark.parametrize("after", range(7))
def test_a_ladder_stopped_anywhere_goes_on_and_measures_no_other_rung_twice(
    climb: Climb, tmp_path: Path, after: int
) -> None:
    count = 0

    def truth(config: Config) -> Measurement | Failure:
        nonlocal count
        count += 1
        if count > after:
            raise Stop
        return works(config)

    with pytest.raises(Stop):
        climb(truth)
    before = read_ladder(LadderFolder(tmp_path / "out")).runs
    record, runner = climb()
    assert record.runs[: len(before)] == before
    others = [run.rung for run in record.runs if run.rung]
    assert others == [1, 2, 3, 4]
    assert [row_of(record, name).speedup for name in ("half", "SDPA", "channels last")] == [2.0, 4.0, 2.0]
    _, nothing_more = climb()
    assert nothing_more.calls == []
    assert [pictures for place, _, pictures in runner.calls if place.startswith("again")].count(True) == 0


@pytest.mark.parametrize("change", ["target", "recipe"])
def test_a_ladder_of_another_kind_is_refused_and_left_alone(
    climb: Climb, tmp_path: Path, recipe: Path, change: str
) -> None:
    climb()
    before = snapshot(tmp_path / "out")
    if change == "recipe":
        recipe.write_text(RECIPE)
    with pytest.raises(UserError, match=r"holds another ladder .* use another -o"):
        climb(works, make_target(batch=2) if change == "target" else None)
    assert snapshot(tmp_path / "out") == before


def test_two_ladders_do_not_run_in_one_folder(climb: Climb, tmp_path: Path) -> None:
    folder = LadderFolder(tmp_path / "out")
    folder.create()
    with folder.lock(), pytest.raises(UserError, match=r"another ladder is being measured in .* use another -o"):
        climb()


def test_a_ladder_without_published_figures_has_no_column_for_them(climb: Climb) -> None:
    record, _ = climb()
    assert "| published |" in markdown(record)
    rungs = tuple(rung.model_copy(update={"published": None}) for rung in record.recipe.rungs)
    own = record.model_copy(update={"recipe": record.recipe.model_copy(update={"rungs": rungs, "published": None})})
    assert "| published |" not in markdown(own)
    assert "| quality |" in markdown(own)


def test_a_ladder_writes_json_and_a_markdown_table(climb: Climb, tmp_path: Path) -> None:
    record, _ = climb()
    data = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert data["target"] == record.target.to_json()
    assert [row["name"] for row in data["table"]] == ["vanilla", "half", "offload", "SDPA", "channels last"]
    assert data["table"][1]["published"]["value"] == "4.63"
    assert data["table"][1]["published_speedup"] == pytest.approx(7.36 / 4.63)
    assert data["table"][1]["ratios"] == [2.0, 2.0]
    assert data["first_rung_moved"] == 0
    assert read_ladder(LadderFolder(tmp_path / "out")) == record
    text = (tmp_path / "out" / "ladder.md").read_text()
    assert text == markdown(record)
    assert "| 1 | half | 1 s | 2.00x | 2.00x |" in text
    assert "4.63 s, 1.59x" in text
    assert "sdxl-txt2img on A100 80GB 400W, 1024x1024, batch 1, 30 steps" in text


def test_a_ladder_of_a_newer_autotune_is_refused(tmp_path: Path) -> None:
    folder = LadderFolder(tmp_path)
    folder.study.write_text('{"schema_version": 2}')
    with pytest.raises(UserError, match="newer autotune"):
        read_ladder(folder)


def test_one_prompt_has_no_interval_and_still_a_table(climb: Climb, tmp_path: Path) -> None:
    one = quality().model_copy(update={"clip_scores": (30.0,), "ssim": (0.9,), "psnr_db": (30.0,)})

    def truth(config: Config) -> Measurement | Failure:
        return works(config).model_copy(update={"quality": one})

    climb(truth)
    data = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert data["table"][1]["clip_drop_interval"] is None


def test_the_spread_of_the_first_rung_is_shown() -> None:
    recipe = LadderRecipe(name="mine", rungs=(rung(attention="vanilla"),))
    record = LadderRecord(created="now", command="autotune ladder", target=make_target(), recipe=recipe)
    runs = tuple(runs_of([(0, 1.0), (0, 1.25)]))
    assert record.model_copy(update={"runs": runs}).moved == 0.25
    assert "varied by 25.0% over the ladder (2 runs)" in markdown(record.model_copy(update={"runs": runs}))
    assert record.model_copy(update={"runs": runs[:1]}).moved is None


def test_a_speed_between_two_ratios_that_disagree_is_shown_with_both() -> None:
    recipe = LadderRecipe(name="mine", rungs=(rung(attention="vanilla"), rung(dtype="bf16")))
    record = LadderRecord(created="now", command="autotune ladder", target=make_target(), recipe=recipe)
    for after, doubtful in ((1.02, False), (2.0, True)):
        runs = tuple(runs_of([(0, 1.0), (1, 0.5), (0, after)]))
        text = markdown(record.model_copy(update={"runs": runs}))
        both = "rung 1: 2.00x relative to the run of rung 0 before it, 4.00x relative to the one after"
        assert (both in text) == doubtful


# --- the command line


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH where torch can't be imported, and no GPU is found."""
    folder = tmp_path_factory.mktemp("trap")
    for name in HEAVY:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('{name} was loaded')\n")
    (folder / "pynvml.py").write_text(NO_DRIVER)
    return folder


@pytest.fixture
def here(tmp_path: Path, recipe: Path) -> Path:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "knob.toml").write_text(BAD["knob"][0])
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "thesis.txt").write_text("mine")
    return tmp_path


REFUSED = [
    (["--recipe", "memry"], "unknown recipe 'memry', neither a shipped one nor a .toml file: did you mean 'memory'?"),
    (["--recipe", "gone.toml"], "there is no recipe 'gone.toml'"),
    (["--recipe", "knob.toml"], "unknown knob 'dtipe': did you mean 'dtype'?"),
    (["--pipeline", "demoo"], "did you mean 'demo'?"),
    (["--pipeline", "demo", "--weights", "random"], "which has weights of its own"),
    (["--size", "60x64"], "multiples of 8"),
    (["--steps", "0"], "--steps 0: give at least 1"),
    (["--batch", "0"], "--batch 0: give at least 1"),
    (["--seed", "-1"], "the seed -1"),
    (["--timeout", "a while"], "'a while' is not a duration"),
    (["--prompts", "empty.txt"], "has no prompt"),
    (["--device", "cuda"], "no NVIDIA GPU was found here"),
    (["-o", "stranger"], "it is not a ladder; name another with -o"),
    (["-o", "empty.txt"], "is a file, not a ladder's folder"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=lambda x: str(x)[:60])
def test_bad_input_is_one_sentence_before_torch_is_loaded_and_leaves_nothing(
    here: Path, trap: Path, words: list[str], says: str
) -> None:
    before = snapshot(here)
    given = [] if "--recipe" in words else ["--recipe", "mine.toml"]
    done = run(here, "ladder", *given, *words, path=trap)
    check_refused(done, says)
    assert done.stdout == ""
    assert snapshot(here) == before


def given(recipe: Path, *words: str) -> list[str]:
    return ["ladder", "--recipe", str(recipe), "-o", str(recipe.parent / "out"), "--device", "cpu", *words]


def test_ctrl_c_shows_what_was_measured_says_how_to_go_on_and_exits_with_130(climb: Climb, recipe: Path) -> None:
    def truth(config: Config) -> Measurement | Failure:
        if config["attention"] == "sdpa":
            raise KeyboardInterrupt
        return works(config)

    with pytest.raises(KeyboardInterrupt):
        climb(truth)
    done = CliRunner().invoke(app, given(recipe))
    assert done.exit_code == 130
    assert done.stderr == "autotune: stopped; the same command continues.\n"
    assert "going on after 3 rungs" in done.stdout
    assert "2.00x" in done.stdout, "the table so far"


def test_json_is_one_object_a_line_and_ends_with_everything(climb: Climb, recipe: Path) -> None:
    record, _ = climb()
    done = CliRunner().invoke(app, given(recipe, "--json"))
    assert done.exit_code == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["begun", "finished"]
    assert events[-1]["table"] == json.loads(json.dumps(record.to_file()["table"]))


def test_a_real_ladder_of_the_demo(tmp_path: Path) -> None:
    """Stopped at once by Ctrl-C, in a process of its own, then measured to its end: two rungs, and the first again."""
    (tmp_path / "mine.toml").write_text(RECIPE.partition('[[rungs]]\nname = "SDPA"')[0])
    (tmp_path / "prompts.txt").write_text("a large red circle at the top on a white background\n")
    more = ["--steps", "1", "--prompts", str(tmp_path / "prompts.txt"), "--scorer", "none", "--json"]
    words = given(tmp_path / "mine.toml", *more)
    command = [sys.executable, "-m", "autotune.cli", *words]
    stopped = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "out" / "probe" / "job.json").exists():
        assert stopped.poll() is None, stopped.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stopped.send_signal(signal.SIGINT)
    assert stopped.communicate(timeout=300) == ("", "autotune: stopped; the same command continues.\n")
    assert stopped.returncode == 130

    done = command_here(*words)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    # The last rung needs a GPU: nothing is started for it.
    ran = [*["started", "ended"] * 3, "ended", "finished"]
    assert [event["event"] for event in events] == ["begun", *ran]
    assert [event["again"] for event in events if event["event"] == "ended"] == [False, False, True, False]
    record = read_ladder(LadderFolder(tmp_path / "out"))
    half = row_of(record, "half")
    assert len(half.ratios) == 2
    assert half.trial is not None
    assert half.trial.measured is not None
    assert half.trial.measured.quality is not None
    assert 0.5 < half.trial.measured.quality.ssim[0] < 1
