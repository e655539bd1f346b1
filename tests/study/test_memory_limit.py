"""Configs that are predicted not to fit in memory are not tried while others are left."""

import math
from pathlib import Path

import optuna
import pytest
from conftest import CPU, gpu, make_target
from made_up import failed, measured, record
from report.studies import study
from simulated import World, simulated

from autotune.config import Config
from autotune.goal import Budget, Goal
from autotune.knobs import complete
from autotune.report.page.measured import how_measured
from autotune.report.summary import read_summary
from autotune.report.terminal.show import PlainLines, as_data
from autotune.research.replay.reference_front import ReferenceFront
from autotune.research.replay.replay import replay_once
from autotune.study.auto_sampler import _ran_out_of_memory
from autotune.study.optuna_view import OptunaView
from autotune.study.record import Record, Untried, read_untried, write_untried
from autotune.study.space import make_space
from autotune.study.space_file import SpaceFile, shipped_space_file
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.trial import Failure, Memory, Trial
from autotune.tuning.events import Skipped
from autotune.tuning.explore import Explorer

# (knob, value) -> its effect on the logarithm of peak memory on the simulated device. The effects add up.
NEEDS = {
    ("dtype", "bf16"): -0.35,
    ("dtype", "fp16"): -0.3,
    ("quantization", "int8_dynamic"): 0.25,
    ("quantization", "int8_weight_only"): -0.25,
    ("compile", "regional"): 0.3,
    ("compile", "denoiser"): 0.4,
    ("compile", "denoiser+vae"): 0.5,
    ("attention", "vanilla"): 0.3,
    ("cache", "deepcache:3"): 0.15,
    ("qkv_fusion", True): 0.2,
    ("memory_format", "channels_last"): 0.1,
}
LEARNED = 18  # trials that are enough to learn these effects


def test_on_a_simulated_device_near_misses_are_run_and_configs_far_over_the_limit_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four in ten configs don't fit in the limit, and run out of memory. Nothing is reused."""
    space = make_space(
        make_target(gpu(8, 0)), shipped_space_file("demo.toml"), fix={}, exclude=(), baseline=complete({})
    )
    lost, lost_without, shares, near, far = 0, 0, [], 0, 0
    for seed in (3, 5):
        world = World(space, seed, fault_rules=2)
        world.memory = dict(NEEDS)
        table = simulated(seed, space=space, rows=200, fits=0.6, world=world)
        trials = replay_once(table, "auto", seed, 40, reuse=False)
        ratios = [world.memory_bytes(trial.config) / world.limit_bytes for trial in trials]
        far += sum(ratio >= 1.15 for ratio in ratios[LEARNED:])
        near += sum(1 < ratio < 1.15 for ratio in ratios[LEARNED:])
        lost += out_of_memory(trials)
        shares.append(ReferenceFront(table.trials(), table.header.goal).shares(trials)[-1])
        with monkeypatch.context() as patched:
            patched.setattr(Record, "memory_limit_bytes", None)
            lost_without += out_of_memory(replay_once(table, "auto", seed, 40, reuse=False))
    print(f"out of memory: {lost} trials, {lost_without} without; of the front's hypervolume: {shares}")
    assert far <= 2, "of the 44 trials after the model has learned"
    assert near > 0
    assert lost <= 0.6 * lost_without
    assert min(shares) > 0.95, "the best that fits is found"


def out_of_memory(trials: list[Trial]) -> int:
    return sum(isinstance(trial.outcome, Failure) and trial.outcome.cause == "out_of_memory" for trial in trials)


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_the_limit_is_the_goal_s_or_the_gpu_s_whichever_is_less() -> None:
    little, much = Goal(max_quality_drop=0.3, max_vram_bytes=10**9), Goal(max_quality_drop=0.3, max_vram_bytes=10**12)
    card = gpu(8, 0)
    assert record(make_target(card), goal=little).memory_limit_bytes == 10**9
    assert record(make_target(card), goal=much).memory_limit_bytes == card.memory_bytes
    assert record(make_target(card)).memory_limit_bytes == card.memory_bytes
    assert record(make_target(CPU), goal=little).memory_limit_bytes == 10**9
    assert record(make_target(CPU)).memory_limit_bytes is None


NARROW = SpaceFile(
    knobs={name: (value,) for name, value in complete({}).items()}
    | {
        "dtype": ("fp32", "bf16", "fp16"),
        "qkv_fusion": (False, True),
        "memory_format": ("contiguous", "channels_last"),
        "steps": ("workload", 12, 8),
    }
)  # 36 configs
BASELINE_BYTES = 100 * 10**6


def outcome(number: int, config: Config) -> Trial:
    needed = BASELINE_BYTES * math.exp(sum(NEEDS.get(pair, 0.0) for pair in config.items()))
    if number and needed > BASELINE_BYTES * 1.05:
        return failed(number, config, cause="out_of_memory")
    return measured(number, config, latency_s=1.0 + int(config.digest, 16) % 10 / 50, memory_bytes=int(needed))


class MadeUp:
    """A runner that returns made-up outcomes."""

    def run(self, place: Path, config: Config, *, pictures: bool, earlier: list[Trial], reuse: object = None) -> object:
        return outcome(len(earlier), config).outcome


@pytest.mark.parametrize(("memory", "teaches"), [("device", True), (None, True), ("host", False)])
def test_a_lack_of_host_memory_says_nothing_of_the_gpu_s(memory: Memory | None, teaches: bool) -> None:
    failure = Failure(cause="out_of_memory", reason="so it went", memory=memory)
    trial = failed(1).model_copy(update={"outcome": failure})
    attributes = OptunaView(trial, [measured(0), trial], record(make_target(gpu(8, 0)))).attributes
    told = optuna.trial.create_trial(value=1.0, user_attrs=attributes)
    assert _ran_out_of_memory(told) is teaches


def test_a_search_reports_the_configs_that_it_leaves_out_and_keeps_them_for_the_report(tmp_path: Path) -> None:
    target = make_target(gpu(8, 0))
    goal = Goal(max_quality_drop=0.3, max_vram_bytes=int(1.05 * BASELINE_BYTES))
    space = make_space(target, NARROW, fix={}, exclude=(), baseline=complete({}))
    folder = StudyFolder(tmp_path)
    searched = Study(folder, record(target, goal=goal, space=space.values), space, sampler="auto")
    heard: list[object] = []
    Explorer(folder, searched, MadeUp(), heard.append).explore(Budget(trials=18))  # type: ignore[arg-type]
    last = heard[-1]
    assert isinstance(last, Skipped)
    assert last.untried == searched.untried == read_untried(folder)
    assert last.untried.limit_bytes == goal.max_vram_bytes
    missing = set(space.all_configs()) - searched.tried()
    over = [c for c in missing if outcome(1, c).measured is None]
    assert 0 < last.untried.count <= len(over), "no config that fits is left out"
    (line,) = PlainLines().hear(last)
    assert line.startswith(f"{last.untried.count} config")
    assert "not tried: predicted to need more than 105 MB (least: 1" in line
    assert as_data(last)["event"] == "left_alone"


def test_optuna_s_own_samplers_leave_nothing_out(tmp_path: Path) -> None:
    target = make_target(gpu(8, 0))
    space = make_space(target, NARROW, fix={}, exclude=(), baseline=complete({}))
    searched = Study(StudyFolder(tmp_path), record(target, space=space.values), space, sampler="random")
    Explorer(StudyFolder(tmp_path), searched, MadeUp(), lambda event: None).explore(Budget(trials=6))  # type: ignore[arg-type]
    assert searched.untried is None


def test_the_report_says_that_it_is_a_prediction(tmp_path: Path) -> None:
    folder = study(tmp_path, [measured(0), measured(1, {"dtype": "bf16"}, latency_s=0.5)])
    assert "not tried" not in dict(how_measured(read_summary(folder.path)))
    untried = Untried(count=12, of=30, limit_bytes=8 * 10**9, least_bytes=91 * 10**8, trials=20)
    write_untried(folder, untried)
    assert dict(how_measured(read_summary(folder.path)))["not tried"] == (
        "12 configs were not tried: predicted to need more than 8.00 GB (least: 9.10 GB), "
        "by what 20 trials have measured; 30 untried configs were looked at"
    )
    write_untried(folder, None)
    assert read_untried(folder) is None
