"""AutoSampler in Optuna studies that are not autotune's. Its models have tests of their own beside this one."""

import itertools
import math

import numpy as np
import optuna
import pytest

from autotune.sampler import AutoSampler

CHOICES = {"a": ("x", "y", "z"), "b": (False, True), "c": (1, 2, 4), "idle": (0, 1)}


def objective(trial: optuna.Trial) -> tuple[float, float]:
    a, b, c, _ = (trial.suggest_categorical(name, values) for name, values in CHOICES.items())
    if a == "z" and b:
        raise RuntimeError("this pair never works")
    seconds = {"x": 1.0, "y": 0.7, "z": 0.5}[a] * (0.8 if b else 1.0) * c**-0.3
    return seconds, 100.0 * c + (30 if b else 0)


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def search(sampler: optuna.samplers.BaseSampler, trials: int) -> optuna.Study:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=trials, catch=(RuntimeError,))
    return study


def test_no_config_is_tried_twice_until_all_were_tried() -> None:
    study = search(AutoSampler(seed=0), 36)
    configs = [tuple(sorted(trial.params.items())) for trial in study.trials]
    # The first ones are drawn at random, by Optuna's rules.
    assert len(set(configs[4:])) == len(configs[4:]) == 32
    assert len(set(configs)) >= 33
    assert len(search(AutoSampler(seed=0), 45).trials) == 45, "a space that is used up is no error"


def test_it_learns_of_a_pair_that_fails() -> None:
    def wide(trial: optuna.Trial) -> tuple[float, float]:
        d = trial.suggest_categorical("d", (0, 1, 2, 3))
        seconds, memory = objective(trial)
        return seconds * 0.9**d, memory

    failed = []
    for seed in range(5):
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=AutoSampler(seed=seed))
        study.optimize(wide, n_trials=20, catch=(RuntimeError,))
        failed.append(sum(trial.state == optuna.trial.TrialState.FAIL for trial in study.trials))
    # One in six configs does, and by the values' own effects they would be the best.
    assert np.mean(failed) <= 3


def test_the_same_seed_proposes_the_same() -> None:
    first, second, other = (search(AutoSampler(seed=seed), 15) for seed in (1, 1, 2))
    assert [t.params for t in first.trials] == [t.params for t in second.trials]
    assert [t.params for t in first.trials] != [t.params for t in other.trials]


def test_an_objective_can_be_maximised() -> None:
    study = optuna.create_study(direction="maximize", sampler=AutoSampler(seed=0))
    study.optimize(
        lambda t: t.suggest_float("x", 1, 2) * 0 + sum(t.suggest_categorical(n, (0, 1, 5)) for n in "abcd"), 25
    )
    assert study.best_value == 20


def test_a_constraint_is_kept() -> None:
    found = []
    for seed in range(5):
        study = optuna.create_study(sampler=AutoSampler(seed=seed))
        for _ in range(14):
            trial = study.ask()
            a, b, c = (trial.suggest_categorical(n, (0, 1, 3, 7)) for n in "abc")
            trial.set_constraint("most", a + b + c - 8)
            study.tell(trial, -float(a + b + c))
        found.append(max(-t.value for t in study.trials if t.constraints["most"] <= 0))
    assert np.median(found) == 8, "3 of 64 configs are so good and keep it; 35 overstep it, and would be better"


def test_with_primary_objectives_the_end_of_the_front_is_found_sooner() -> None:
    def costs(a: int, b: int, c: int, d: int) -> tuple[float, float]:
        odd = 0.05 * math.sin(37 * a + 11 * b + 5 * c + 3 * d)  # what no sum of effects predicts
        return math.exp(odd - 0.1 * a - 0.2 * b - 0.3 * (c == d)), math.exp(0.3 * a + 0.2 * b + odd - 0.1 * c)

    def found(primary: tuple[int, ...], seed: int) -> float:
        """The fastest of forty trials, over the fastest that there is."""
        study = optuna.create_study(
            directions=["minimize", "minimize"], sampler=AutoSampler(seed=seed, primary=primary)
        )
        study.optimize(lambda t: costs(*(t.suggest_categorical(name, (0, 1, 2, 3)) for name in "abcd")), 40)
        fastest = min(costs(*codes)[0] for codes in itertools.product(range(4), repeat=4))
        return float(min(trial.values[0] for trial in study.trials) / fastest)

    with_primary, without = ([found(primary, seed) for seed in range(8)] for primary in ((0,), ()))
    assert np.mean(with_primary) < np.mean(without) - 0.05, "small ones serve the hypervolume as well"


def test_a_config_that_is_expensive_to_try_must_promise_more() -> None:
    """Half of the configs take ten times as long to try, and are no better for it."""

    def spent(cost: str | None, seed: int) -> float:
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=AutoSampler(seed=seed, cost=cost))

        def tried(trial: optuna.Trial) -> tuple[float, float]:
            trial.set_user_attr("seconds", 100.0 if trial.suggest_categorical("slow", (False, True)) else 10.0)
            return objective(trial)

        study.optimize(tried, n_trials=30, catch=(RuntimeError,))
        return float(sum(trial.user_attrs["seconds"] for trial in study.trials))

    assert sum(spent("seconds", seed) for seed in range(6)) < 0.9 * sum(spent(None, seed) for seed in range(6))


def test_a_space_too_large_to_list_is_searched_by_draws_and_neighbours() -> None:
    def many(trial: optuna.Trial) -> float:
        return math.prod(1 - 0.05 * trial.suggest_categorical(f"k{i:02d}", (0, 1, 2, 3)) for i in range(10))

    study = optuna.create_study(sampler=AutoSampler(seed=0))
    study.optimize(many, 40)
    assert study.best_value == pytest.approx(0.85**10), "the one best of a million"


def test_nothing_is_learned_from_a_value_that_was_not_measured_and_the_others_count() -> None:
    """The second objective of configs with "b" is made up: it would say that "b" is bad, if it counted."""

    def proposals(marked: bool) -> list[bool]:
        found = []
        for seed in range(4):
            study = optuna.create_study(directions=["minimize", "minimize"], sampler=AutoSampler(seed=seed))
            space = {n: optuna.distributions.CategoricalDistribution(v) for n, v in (*CHOICES.items(), ("d", range(4)))}
            for i, (a, c, d) in enumerate(itertools.product(("x", "y"), (1, 2), range(2))):
                b = i % 2 == 1
                attrs = {"not_measured": [1]} if b and marked else {}
                params = {"a": a, "b": b, "c": c, "idle": 0, "d": d}
                values = [{"x": 1.0, "y": 0.7}[a] * (0.8 if b else 1.0), 50.0 if b and i != 1 else 1.0]
                made = optuna.trial.create_trial(
                    params=params, distributions=space, values=values, user_attrs=attrs if i != 1 else {}
                )
                study.add_trial(made)
            found.append(study.ask(space).params["b"])
        return found

    assert sum(proposals(marked=True)) > sum(proposals(marked=False))


def test_the_former_name_of_primary_still_works() -> None:
    def proposals(sampler: AutoSampler) -> list[dict[str, int]]:
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        study.optimize(lambda t: (t.suggest_categorical("a", (1, 2, 3)), t.suggest_categorical("b", (3, 1, 2))), 8)
        return [trial.params for trial in study.trials]

    assert proposals(AutoSampler(seed=1, lead=[0])) == proposals(AutoSampler(seed=1, primary=[0]))


def tuned_threshold(trial: optuna.Trial, threshold: float) -> float:
    """A higher threshold is faster, up to where it breaks the constraint, at 0.43."""
    a = trial.suggest_categorical("a", (0, 1, 2))
    trial.set_constraint("loss", (threshold / 0.43) ** 2 + 0.1 * a - 1.1)
    return float(math.exp(-threshold) * (0.8 if a == 1 else 1.0))


def test_the_best_number_is_found_to_within_a_tenth_in_fewer_trials_than_among_listed_values() -> None:
    def trials(listed: tuple[float, ...] | None, seed: int) -> int:
        study = optuna.create_study(sampler=AutoSampler(seed=seed))
        for count in range(1, 31):
            trial = study.ask()
            threshold = trial.suggest_categorical("t", listed) if listed else trial.suggest_float("t", 0.02, 1.0)
            study.tell(trial, tuned_threshold(trial, threshold))
            kept = [t for t in study.trials if t.constraints["loss"] <= 0]
            if kept and abs(min(kept, key=lambda t: t.value).params["t"] / 0.43 - 1) < 0.1:
                return count
        return 30

    fine = tuple(round(0.02 + 0.98 * step / 40, 3) for step in range(41))
    assert np.mean([trials(None, seed) for seed in range(4)]) < np.mean([trials(fine, seed) for seed in range(4)]) - 2


def test_a_number_that_counts_beside_one_choice_only_is_not_tried_again_beside_the_others() -> None:
    sampler = AutoSampler(seed=0, conditions={"t": ("on", True)})
    study = optuna.create_study(sampler=sampler)
    for _ in range(16):
        trial = study.ask()
        on, threshold = trial.suggest_categorical("on", (False, True)), trial.suggest_int("t", 1, 100, log=True)
        study.tell(trial, abs(math.log(threshold / 20)) if on else 1.0)
    later = study.trials[4:]
    assert sum(not trial.params["on"] for trial in later) <= 1
    assert study.best_value < 0.1
