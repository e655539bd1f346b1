"""Ceilings: configs that surely exceed a limit come last, and trials that failed at it are censored observations."""

import numpy as np
import optuna
import pytest

from autotune.sampler import FAILED, AutoSampler, Ceiling
from autotune.sampler.ceiling import NEAR_MISS, SURE, surely_over, truncated


def test_a_value_known_to_lie_above_a_limit_has_the_mean_and_variance_of_a_truncated_normal_one() -> None:
    rng = np.random.default_rng(0)
    for mean, deviation, limit in ((0.0, 1.0, 0.5), (2.0, 0.5, 1.0), (0.0, 0.1, 0.25)):
        drawn = rng.normal(mean, deviation, 400_000)
        drawn = drawn[drawn > limit]
        found = truncated(np.array([mean]), np.array([deviation]), limit)
        assert found[0][0] == pytest.approx(np.mean(drawn), rel=0.02)
        assert found[1][0] == pytest.approx(np.var(drawn), rel=0.1)
    far, doubt = truncated(np.array([0.0]), np.array([0.01]), 1.0)
    assert 1.0 < far[0] < 1.001
    assert 0 < doubt[0] < 1e-6


def test_a_prediction_is_surely_over_if_its_lower_end_is_above_a_near_miss() -> None:
    near, far, doubtful = 10 * (1 + 0.9 * NEAR_MISS), 10 * (1 + 1.1 * NEAR_MISS), 10 * (1 + 3 * NEAR_MISS)
    means = np.log([5.0, near, far, doubtful])
    assert surely_over(means, np.full(4, 1e-4), 10.0).tolist() == [False, False, True, True]
    assert not surely_over(means, np.full(4, 3 * NEAR_MISS / SURE), 10.0).any()


def adds(sampler: AutoSampler, trials: int, *, most: float = 20.0) -> list[float]:
    """The sums that are tried, of 36. Those above `most` fail; small sums and large `x` are good."""
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


def test_configs_above_the_ceiling_come_last_and_are_counted() -> None:
    sampler = AutoSampler(seed=0, ceilings={1: ceiling(13.0)})
    tried = adds(sampler, 24, most=13.0)
    over = [value > 13.0 * 1.15 for value in tried]
    assert sum(over[14:]) == 0
    excluded = sampler.excluded[1]
    assert excluded.count + 24 <= 36 + 4, "of 36, and the first ones are drawn at random, perhaps twice"
    assert 13.0 * (1 + NEAR_MISS) < excluded.least < 18
    assert len(set(adds(AutoSampler(seed=0, ceilings={1: ceiling(13.0)}), 40, most=13.0))) > len(set(tried)), (
        "they are tried once nothing else is left"
    )
