"""The Pareto front and the picks, against a plain definition of dominance on made-up trials."""

import random
from typing import Any

import pytest
from made_up import changed, failed, likeness, measured, quality, record, stopped

from autotune.goal import Goal
from autotune.measurement import HostMemory
from autotune.study.optuna_view import OptunaView
from autotune.study.pareto_front import costs, keeps, objectives, pareto_front, pick_trial
from autotune.trial import Trial

MIB = 2**20
LOOSE = Goal(max_quality_drop=100.0)
BASELINE = measured(0, latency_s=1.0, memory_bytes=100 * MIB)


def numbers(trials: list[Trial]) -> list[int]:
    return [trial.number for trial in trials]


def test_a_trial_that_is_worse_in_all_is_not_on_the_front() -> None:
    worse = measured(1, latency_s=1.1, memory_bytes=101 * MIB, loss=0.1)
    assert numbers(pareto_front([BASELINE, worse], BASELINE)) == [0]


def test_trials_that_are_each_best_in_something_are_on_the_front_fastest_first() -> None:
    small = measured(1, latency_s=2.0, memory_bytes=50 * MIB)
    fast = measured(2, latency_s=0.5, memory_bytes=200 * MIB)
    lossy = measured(3, latency_s=0.4, memory_bytes=300 * MIB, loss=1.0)
    assert numbers(pareto_front([BASELINE, small, fast, lossy], BASELINE)) == [3, 2, 0, 1]


def test_trials_that_tie_in_all_are_both_on_the_front() -> None:
    twin = measured(1, {"qkv_fusion": True})
    assert numbers(pareto_front([BASELINE, twin], BASELINE)) == [0, 1]


def test_a_difference_below_the_resolution_of_a_run_gives_no_place_on_the_front() -> None:
    """A few bytes less, or a thousandth of a point, does not make up for being slower."""
    slower = measured(1, latency_s=1.2, memory_bytes=100 * MIB - 1000)
    reference = measured(2, latency_s=1.0, loss=0.504)
    slower_lossless = measured(3, latency_s=1.1, loss=0.501)
    assert numbers(pareto_front([BASELINE, slower], BASELINE)) == [0]
    assert numbers(pareto_front([reference, slower_lossless], BASELINE)) == [2]


def test_failures_are_never_on_the_front() -> None:
    assert numbers(pareto_front([BASELINE, failed(1), failed(2, cause="out_of_memory")], BASELINE)) == [0]


def test_a_failure_has_no_objectives() -> None:
    with pytest.raises(ValueError, match="trial 1 has no objectives"):
        objectives(failed(1), BASELINE)


def random_trials(rng: random.Random) -> list[Trial]:
    """On a coarse grid, so that ties are common. Some are off it by less than a run can tell apart, some failed."""
    found: list[Trial] = [BASELINE]
    for number in range(1, rng.randint(2, 25)):
        if rng.random() < 0.2:
            found.append(failed(number))
            continue
        found.append(
            measured(
                number,
                latency_s=rng.randint(1, 5) / 4,
                memory_bytes=rng.randint(96, 104) * MIB + rng.randint(-1000, 1000),
                loss=rng.randint(0, 4) / 10 + rng.uniform(-0.002, 0.002),
            )
        )
    return found


@pytest.mark.parametrize("seed", range(60))
def test_no_member_of_the_front_is_dominated_and_every_other_trial_is(seed: int) -> None:
    trials = random_trials(random.Random(seed))
    front = pareto_front(trials, BASELINE)

    def seen(trial: Trial) -> tuple[float, ...]:
        latency_s, memory_bytes, loss = objectives(trial, BASELINE)
        return latency_s, round(memory_bytes / MIB), round(loss, 2)

    def dominated(trial: Trial) -> bool:
        mine = seen(trial)
        others = [seen(other) for other in trials if other.measured]
        return any(all(a <= b for a, b in zip(o, mine, strict=True)) and o != mine for o in others)

    assert front
    assert not any(dominated(trial) for trial in front)
    assert all(dominated(trial) for trial in trials if trial.measured and trial not in front)
    assert [objectives(t, BASELINE)[0] for t in front] == sorted(objectives(t, BASELINE)[0] for t in front)


FAST = measured(1, latency_s=0.25, memory_bytes=400 * MIB)
SMALL = measured(2, latency_s=2.0, memory_bytes=51 * MIB)
BALANCED = measured(3, latency_s=0.5, memory_bytes=90 * MIB)
FOUR = [BASELINE, FAST, SMALL, BALANCED]


@pytest.mark.parametrize(("how", "number"), [("fastest", 1), ("smallest", 2), ("balanced", 3)])
def test_each_pick_is_the_best_in_its_own_sense(how: str, number: int) -> None:
    picked = pick_trial(FOUR, BASELINE, LOOSE, how)  # type: ignore[arg-type]
    assert picked is not None
    assert picked.number == number


@pytest.mark.parametrize(
    ("goal", "number"),
    [
        (Goal(max_quality_drop=100.0, max_vram_bytes=350 * MIB), 3),
        (Goal(max_quality_drop=100.0, max_vram_bytes=60 * MIB), 2),
        (Goal(max_quality_drop=0.3), 1),
    ],
)
def test_a_pick_keeps_every_limit(goal: Goal, number: int) -> None:
    lossy = measured(4, latency_s=0.1, memory_bytes=500 * MIB, loss=0.4)
    picked = pick_trial([*FOUR, lossy], BASELINE, goal)
    assert picked is not None
    assert picked.number == number
    assert keeps(picked, BASELINE, goal)


def test_a_pick_keeps_the_limit_of_its_worst_place() -> None:
    """Quality alone would pick the fast one, whose pictures have a band. What is not known violates nothing."""
    banded, even, unknown = (
        measured(number, latency_s=latency_s, judged=quality(0.1).model_copy(update={"worst_row_levels": levels}))
        for number, latency_s, levels in [(1, 0.2, (3.0, 60.0)), (2, 0.5, (3.0, 39.0)), (3, 0.9, ())]
    )
    goal = Goal(max_quality_drop=0.3, max_worst_place_levels=40)
    picked = pick_trial([BASELINE, banded, even, unknown], BASELINE, goal)
    assert picked is not None
    assert picked.number == 2
    assert keeps(unknown, BASELINE, goal)
    assert OptunaView(banded, [BASELINE, banded], record(goal=goal)).constraints["max_worst_place"] == 0.5


def test_a_pick_keeps_the_limit_of_host_memory() -> None:
    """Offloading takes it: 6 GB of VRAM that need 85 GB of the machine are no answer."""
    hungry, modest = (
        changed(
            measured(number, latency_s=latency_s), host=HostMemory(peak_resident_bytes=resident, peak_pinned_bytes=5)
        )
        for number, latency_s, resident in [(1, 0.2, 80), (2, 0.5, 35)]
    )
    unknown, goal = measured(3, latency_s=0.9), Goal(max_quality_drop=100.0, max_ram_bytes=40)
    picked = pick_trial([BASELINE, hungry, modest, unknown], BASELINE, goal)
    assert picked is not None
    assert picked.number == 2
    assert keeps(unknown, BASELINE, goal)
    assert OptunaView(hungry, [BASELINE, hungry], record(goal=goal)).constraints["max_ram"] == 85 / 40 - 1


def test_if_no_trial_keeps_the_limits_none_is_picked() -> None:
    assert pick_trial(FOUR, BASELINE, Goal(max_quality_drop=100.0, max_latency_s=0.01)) is None


def test_limits_hold_for_raw_numbers_and_rounding_hides_no_trial_that_keeps_them() -> None:
    over = measured(1, latency_s=0.5, loss=0.304)
    under = measured(2, latency_s=0.6, loss=0.296)
    picked = pick_trial([BASELINE, over, under], BASELINE, Goal(max_quality_drop=0.3))
    assert picked is not None
    assert picked.number == 2


def test_likeness_is_an_objective_too() -> None:
    reference = measured(0, judged=likeness(1.0))
    unlike = measured(1, judged=likeness(0.8))
    assert objectives(unlike, reference)[2] == pytest.approx(20.0)
    assert numbers(pareto_front([reference, unlike], reference)) == [0]


STEADY = measured(1, latency_s=0.8, also=(0.8,))
UNEVEN = measured(2, latency_s=0.3, also=(1.6,))
TWO_SIZES = measured(0, latency_s=1.0, also=(1.0,))


def test_of_several_sizes_the_latency_is_their_sum_or_each_by_itself() -> None:
    assert objectives(UNEVEN, TWO_SIZES) == (pytest.approx(1.9), 100 * MIB, 0.0)
    assert objectives(UNEVEN, TWO_SIZES, "each") == (0.3, 1.6, 100 * MIB, 0.0)


def test_a_config_that_is_fastest_at_one_size_only_is_on_the_front_only_if_each_size_counts() -> None:
    trials = [TWO_SIZES, STEADY, UNEVEN]
    assert numbers(pareto_front(trials, TWO_SIZES)) == [1]
    assert numbers(pareto_front(trials, TWO_SIZES, "each")) == [1, 2]


@pytest.mark.parametrize("minimise", ["sum", "each"])
@pytest.mark.parametrize("how", ["fastest", "balanced", "smallest"])
def test_a_pick_goes_by_the_sum_over_the_sizes_whatever_is_minimised(how: Any, minimise: Any) -> None:
    goal = Goal(max_quality_drop=100.0, minimise=minimise)
    picked = pick_trial([TWO_SIZES, STEADY, UNEVEN], TWO_SIZES, goal, how)
    assert picked is not None
    assert picked.number == STEADY.number


@pytest.mark.parametrize(
    ("minimise", "limit_s", "kept"), [("sum", 1.5, False), ("sum", 1.7, True), ("each", 0.9, True)]
)
def test_a_limit_on_latency_is_for_the_sum_or_for_every_size(minimise: Any, limit_s: float, kept: bool) -> None:
    goal = Goal(max_quality_drop=100.0, max_latency_s=limit_s, minimise=minimise)
    assert keeps(STEADY, TWO_SIZES, goal) is kept
    assert not keeps(UNEVEN, TWO_SIZES, goal)


def test_a_stopped_trial_is_never_on_the_front_nor_picked_whatever_its_figures() -> None:
    best = stopped(1, latency_s=0.1, memory_bytes=MIB)
    assert numbers(pareto_front([BASELINE, best], BASELINE)) == [0]
    picked = pick_trial([BASELINE, best], BASELINE, LOOSE)
    assert picked is not None
    assert picked.number == 0
    assert costs(best) == (0.1, MIB)
    with pytest.raises(ValueError, match="trial 1 has no objectives"):
        objectives(best, BASELINE)
