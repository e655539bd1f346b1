"""Replays of simulated tables, for which the right results are known."""

import itertools
import statistics
from pathlib import Path

import pytest
from simulated import demo_space, narrow_space, simulated

from autotune.errors import UserError
from autotune.knobs import complete
from autotune.recordings.parquet import write_table
from autotune.recordings.recording import Recording
from autotune.research.replay.convergence import Convergence, Replayed, convergence_of
from autotune.research.replay.reference_front import ReferenceFront
from autotune.research.replay.replay import TableSpace, replay, replay_once
from autotune.study.pareto_front import costs, pick_trial


def narrow(seed: int = 0, *, fault_rules: int = 0) -> Recording:
    """8 configs, no recipes."""
    space = narrow_space(
        dtype=("fp32", "bf16"), qkv_fusion=(False, True), memory_format=("contiguous", "channels_last")
    )
    return simulated(seed, space=space, recipes={}, fault_rules=fault_rules)


def reference(recording: Recording) -> ReferenceFront:
    return ReferenceFront(recording.trials(), recording.header.goal)


@pytest.fixture(scope="module")
def small() -> Recording:
    return simulated(3, rows=60)


@pytest.mark.parametrize("sampler", ["auto", "random", "tpe", "nsga2"])
@pytest.mark.parametrize("seed", range(3))
def test_a_search_that_has_tried_everything_has_found_the_whole_front(sampler: str, seed: int) -> None:
    table = narrow(seed)
    trials = replay_once(table, sampler, seed, 100, reuse=False)
    curve = convergence_of(trials, reference(table), seed)
    assert len(trials) == len(table.rows) == 8
    assert curve.found[0] == 0.0
    assert curve.found[-1] == 1.0
    assert list(curve.found) == sorted(curve.found)


def test_a_replay_returns_what_was_recorded(small: Recording) -> None:
    rows = {complete(row.values): row for row in small.rows}
    for trial in replay_once(small, "random", 0, 40, reuse=False):
        row = rows[trial.config]
        assert trial.seconds == pytest.approx(row.seconds)
        assert (trial.measured is None) == (row.outcome != "measured")
        if trial.measured:
            assert trial.measured.latency_s == pytest.approx(row.latency_s)


def test_a_replay_is_a_search_baseline_first_then_the_recipes_then_no_config_twice(small: Recording) -> None:
    recipes = [recipe.name for recipe in small.header.recipes]
    for sampler in ("auto", "random"):
        trials = replay_once(small, sampler, 1, 100)
        assert [t.origin for t in trials[: 1 + len(recipes)]] == ["baseline", *recipes]
        assert len({trial.config for trial in trials}) == len(trials) == len(small.rows)


def test_a_config_that_was_not_recorded_is_not_allowed(small: Recording) -> None:
    space = TableSpace(small)
    assert set(space.all_configs()) == {complete(row.values) for row in small.rows}
    missing = next(config for config in demo_space().all_configs() if config not in space.rows)
    assert space.objection(missing) == "it was not recorded"


def test_device_seconds_are_the_recorded_ones(small: Recording) -> None:
    curve = convergence_of(replay_once(small, "random", 0, 100, reuse=False), reference(small), 0)
    assert curve.device_s[-1] == pytest.approx(sum(row.seconds for row in small.rows))
    assert curve.faults == sum(row.outcome != "measured" for row in small.rows)


def test_the_same_seed_gives_the_same_curve_and_another_one_another(small: Recording) -> None:
    made = [convergence_of(replay_once(small, "random", seed, 20), reference(small), 0) for seed in (5, 5, 6)]
    assert made[0] == made[1] != made[2]
    ours = [replay_once(small, "auto", 5, 15) for _ in range(2)]
    assert ours[0] == ours[1]


def test_the_reference_front_counts_only_what_keeps_the_limits(small: Recording) -> None:
    goal = small.header.goal.model_copy(update={"max_vram_bytes": 1})
    tight = small.model_copy(update={"header": small.header.model_copy(update={"goal": goal})})
    assert reference(tight).front == []
    assert reference(tight).shares(tight.trials())[-1] == 1.0, "there is nothing to find"
    kept = reference(small)
    assert all(point[-1] <= 0.3 for point in kept.front)
    assert kept.shares(small.trials())[-1] == 1.0


def test_the_random_sampler_finds_the_expected_share() -> None:
    """The exact expectation after k draws without replacement is the mean over all sets of k."""
    table = narrow(4)
    front, (baseline, *others) = reference(table), table.trials()
    curves = [convergence_of(replay_once(table, "random", seed, 5, reuse=False), front, seed) for seed in range(200)]
    for count in (2, 3, 4):
        sets = itertools.combinations(others, count - 1)
        expected = statistics.fmean(front.shares([baseline, *drawn])[-1] for drawn in sets)
        found = [curve.found[count - 1] for curve in curves]
        error = statistics.stdev(found) / len(found) ** 0.5
        assert abs(statistics.fmean(found) - expected) < 4 * error + 1e-9
        assert 0 < expected < 1


def test_our_sampler_finds_more_than_random_in_simulated_worlds() -> None:
    """The README's figures come from recordings of real spaces."""
    ours, chance = [], []
    for seed in range(2):
        table = simulated(20 + seed, rows=250, fault_rules=seed)
        front = reference(table)
        ours.append(convergence_of(replay_once(table, "auto", 0, 30), front, 0))
        chance += [convergence_of(replay_once(table, "random", s, 30), front, s) for s in range(5)]
    assert statistics.fmean(c.at(30) for c in ours) > 0.15 + statistics.fmean(c.at(30) for c in chance)
    assert sum(c.faults for c in ours) / 2 < sum(c.faults for c in chance) / 10 + 1


def test_the_summary_is_of_the_curves() -> None:
    curves = [
        Convergence(seed=0, found=(0, 0.5, 0.92, 0.97), picks=(0.5, 0.9, 0.97, 1), device_s=(1, 2, 3, 4), faults=1),
        Convergence(seed=1, found=(0, 0.91, 0.91, 0.91), picks=(0.5, 0.96, 0.96, 1), device_s=(1, 2, 3, 4), faults=0),
        Convergence(seed=2, found=(0, 0.1, 0.2, 0.3), picks=(0.5,) * 4, device_s=(1, 2, 3, 4), faults=2),
    ]
    made = Replayed(table="t", sampler="tpe", curves=tuple(curves))
    assert made.median_trials_to(0.9) == 3
    assert made.median_trials_to(0.95) is None, "two of three never did"
    assert made.median_at(2) == 0.5
    assert made.median_at(100) == 0.91
    assert made.fault_share == pytest.approx(3 / 9)
    assert made.median_trials_to_pick() == 3


def test_the_pick_is_the_fastest_that_keeps_the_limits(small: Recording) -> None:
    trials, front = small.trials(), reference(small)
    found = front.picks(trials)
    assert found == sorted(found)
    assert found[-1] == 1
    best = pick_trial(trials, trials[0], small.header.goal)
    first = found.index(1)
    assert best is not None
    assert trials[first].config == best.config
    assert found[0] == pytest.approx(costs(best)[0] / costs(trials[0])[0])


def test_the_number_of_processes_changes_nothing(tmp_path: Path, small: Recording) -> None:
    write_table(small, tmp_path / "a.parquet")
    options = {"samplers": ("random", "nsga2"), "seeds": 2, "budget": 12}
    alone = replay([tmp_path / "a.parquet"], jobs=1, **options)
    assert alone == replay([tmp_path / "a.parquet"], jobs=2, **options)
    assert [(one.sampler, len(one.curves)) for one in alone] == [("random", 2), ("nsga2", 2)]


def test_an_unknown_sampler_or_table_is_one_sentence(tmp_path: Path, small: Recording) -> None:
    with pytest.raises(UserError, match="unknown sampler 'tpee'"):
        replay([], samplers=("tpee",))
    with pytest.raises(UserError, match="there is no table"):
        replay([tmp_path / "a.parquet"], samplers=("tpe",))
