"""What can't fit in memory is predicted, and not tried while anything else is left."""

import math
from pathlib import Path

import numpy as np
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
from autotune.sampler import FAILED, AutoSampler, Ceiling
from autotune.sampler.ceiling import NEAR_MISS, SURE, cut_off, surely_over
from autotune.study.record import Record, Untried, read_untried, write_untried
from autotune.study.space import SpaceFile, make_space, shipped_space_file
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.trial import Failure, Trial
from autotune.tuning.explore import Explorer, LeftAlone

# What each of these does to the logarithm of peak memory, whatever the others are: the truth of the simulated device.
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
LEARNED = 18  # trials: with these effects, enough


def test_on_a_simulated_device_what_can_not_fit_is_not_run_and_near_misses_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four in ten configs don't fit in the limit, and are out-of-memory trials. No trial is spared anything."""
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


def test_a_value_known_to_lie_above_a_limit_has_the_mean_and_variance_of_a_cut_off_normal_one() -> None:
    rng = np.random.default_rng(0)
    for mean, deviation, limit in ((0.0, 1.0, 0.5), (2.0, 0.5, 1.0), (0.0, 0.1, 0.25)):
        drawn = rng.normal(mean, deviation, 400_000)
        drawn = drawn[drawn > limit]
        found = cut_off(np.array([mean]), np.array([deviation]), limit)
        assert found[0][0] == pytest.approx(np.mean(drawn), rel=0.02)
        assert found[1][0] == pytest.approx(np.var(drawn), rel=0.1)
    far, doubt = cut_off(np.array([0.0]), np.array([0.01]), 1.0)
    assert 1.0 < far[0] < 1.001
    assert 0 < doubt[0] < 1e-6


def test_only_what_lies_beyond_a_near_miss_at_its_lower_end_is_surely_over() -> None:
    near, far, doubtful = 10 * (1 + 0.9 * NEAR_MISS), 10 * (1 + 1.1 * NEAR_MISS), 10 * (1 + 3 * NEAR_MISS)
    means = np.log([5.0, near, far, doubtful])
    assert surely_over(means, np.full(4, 1e-4), 10.0).tolist() == [False, False, True, True]
    assert not surely_over(means, np.full(4, 3 * NEAR_MISS / SURE), 10.0).any()


def adds(sampler: AutoSampler, trials: int, *, most: float = 20.0) -> list[float]:
    """What is tried of 36 sums, of which those above `most` fail; small sums and large `x` are good."""
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    for _ in range(trials):
        trial = study.ask()
        x, y, z = (
            trial.suggest_categorical(n, v) for n, v in (("x", (1, 8, 9)), ("y", (1, 4, 9)), ("z", (1, 2, 3, 9)))
        )
        over = x + y + z > most
        trial.set_user_attr("outcome", "out_of_memory" if over else "measured")
        trial.set_constraint(FAILED, 1.0 if over else 0.0)
        study.tell(trial, (100.0, 27.0) if over else (1 / x, float(x + y + z)))
    return [sum(trial.params.values()) for trial in study.trials]


def ceiling(most: float) -> Ceiling:
    return Ceiling(most, lambda trial: trial.user_attrs["outcome"] == "out_of_memory")


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_what_is_beyond_the_ceiling_comes_last_and_is_counted() -> None:
    sampler = AutoSampler(seed=0, ceilings={1: ceiling(13.0)})
    tried = adds(sampler, 24, most=13.0)
    over = [value > 13.0 * 1.15 for value in tried]
    assert sum(over[14:]) == 0
    beyond = sampler.beyond[1]
    assert beyond.count + 24 <= 36 + 4, "of 36, and the first ones are drawn at random, perhaps twice"
    assert 13.0 * (1 + NEAR_MISS) < beyond.least < 18
    assert len(set(adds(AutoSampler(seed=0, ceilings={1: ceiling(13.0)}), 40, most=13.0))) > len(set(tried)), (
        "they are tried where nothing else is left"
    )


def test_the_limit_is_the_goal_s_or_the_card_s_whichever_is_less() -> None:
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
    """A runner that knows the outcomes."""

    def run(self, place: Path, config: Config, *, pictures: bool, earlier: list[Trial], reuse: object = None) -> object:
        return outcome(len(earlier), config).outcome


def test_a_search_says_what_it_left_alone_and_keeps_it_for_the_report(tmp_path: Path) -> None:
    target = make_target(gpu(8, 0))
    goal = Goal(max_quality_drop=0.3, max_vram_bytes=int(1.05 * BASELINE_BYTES))
    space = make_space(target, NARROW, fix={}, exclude=(), baseline=complete({}))
    folder = StudyFolder(tmp_path)
    searched = Study(folder, record(target, goal=goal, space=space.values), space, sampler="auto")
    heard: list[object] = []
    Explorer(folder, searched, MadeUp(), heard.append).explore(Budget(trials=18))  # type: ignore[arg-type]
    last = heard[-1]
    assert isinstance(last, LeftAlone)
    assert last.untried == searched.untried == read_untried(folder)
    assert last.untried.limit_bytes == goal.max_vram_bytes
    missing = set(space.all_configs()) - searched.tried()
    over = [c for c in missing if outcome(1, c).measured is None]
    assert 0 < last.untried.count <= len(over), "what fits is not left alone"
    (line,) = PlainLines().hear(last)
    assert line.startswith(f"{last.untried.count} config")
    assert "not tried: predicted to need more than 105 MB (least: 1" in line
    assert as_data(last)["event"] == "left_alone"


def test_stock_samplers_leave_nothing_alone(tmp_path: Path) -> None:
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
