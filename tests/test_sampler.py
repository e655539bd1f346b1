"""AutoSampler: in anyone's study, and its parts one by one."""

import itertools
import math

import numpy as np
import optuna
import pytest

from autotune.sampler import AutoSampler
from autotune.sampler.additive import fit
from autotune.sampler.faults import Faults
from autotune.sampler.improvement import expected_improvement, probability_below

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


def test_anyone_s_study_tries_no_config_twice_until_all_were_tried() -> None:
    study = search(AutoSampler(seed=0), 36)
    configs = [tuple(sorted(trial.params.items())) for trial in study.trials]
    # The first ones are drawn at random, by Optuna's rules.
    assert len(set(configs[4:])) == len(configs[4:]) == 32
    assert len(set(configs)) >= 33
    assert len(search(AutoSampler(seed=0), 45).trials) == 45, "what is used up is no error"


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


def test_what_is_maximised_is_maximised() -> None:
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


def test_with_a_lead_the_end_of_the_front_is_found_sooner() -> None:
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

    with_lead, without = ([found(lead, seed) for seed in range(8)] for lead in ((0,), ()))
    assert np.mean(with_lead) < np.mean(without) - 0.05, "small ones serve the hypervolume as well"


def test_what_is_dear_to_try_must_promise_more() -> None:
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


def codes_of(rng: np.random.Generator, rows: int, counts: list[int]) -> np.ndarray:
    return np.stack([rng.integers(0, count, rows) for count in counts], axis=1)


def test_the_model_finds_sums_of_effects_and_which_knobs_do_nothing() -> None:
    rng, counts = np.random.default_rng(0), [3, 3, 2, 2, 2, 2]
    effects = [np.array(e) for e in ([0, 0.5, -0.3], [0, 0.4, 0.8], [0, -0.5], [0, 0], [0, 0], [0, 0])]

    def truth(codes: np.ndarray) -> np.ndarray:
        return sum(effect[codes[:, k]] for k, effect in enumerate(effects))

    codes, others = codes_of(rng, 30, counts), codes_of(rng, 200, counts)
    model = fit(codes, truth(codes) + rng.normal(0, 0.01, 30), counts=counts, acts=np.ones(6, dtype=bool))
    mean, deviation = model.predict(others)
    assert np.sqrt(np.mean((mean - truth(others)) ** 2)) < 0.05
    assert np.mean(np.abs(mean - truth(others)) < 2.5 * deviation + 0.01) > 0.9
    variances = np.exp(model.theta[:6])
    assert variances[:3].min() > 2 * variances[3:].max()


def test_a_pair_s_effect_is_learned_and_a_silent_knob_has_none() -> None:
    rng, counts = np.random.default_rng(1), [2, 2, 2, 3]
    codes = np.array(list(itertools.product(*map(range, counts))))
    values = codes[:, 0] * 1.0 + codes[:, 1] * 0.5 - 1.2 * codes[:, 0] * codes[:, 1]
    some = rng.permutation(len(codes))[:16]
    model = fit(codes[some], values[some], counts=counts, acts=np.array([True, True, True, False]))
    mean, _ = model.predict(codes)
    assert np.abs(mean - values).max() < 0.3
    by_silent = mean.reshape(2, 2, 2, 3)
    assert np.ptp(by_silent, axis=3).max() < 1e-6


def test_the_shape_of_an_earlier_task_is_used_as_far_as_it_is_alike() -> None:
    """Its level is of no account. Of this study there are 6 values, of each earlier one 30."""
    rng, counts = np.random.default_rng(3), [3, 3, 2, 2, 2]
    effects = [rng.normal(0, 0.3, count) for count in counts]

    def truth(codes: np.ndarray) -> np.ndarray:
        return sum(effect[codes[:, k]] for k, effect in enumerate(effects))

    mine, theirs, others = (codes_of(rng, rows, counts) for rows in (6, 30, 300))
    own = truth(mine) + rng.normal(0, 0.01, 6)

    def error(earlier: np.ndarray | None, rows: np.ndarray = mine, values: np.ndarray = own) -> float:
        codes = rows if earlier is None else np.concatenate([rows, theirs])
        known = values if earlier is None else np.concatenate([values, earlier])
        tasks = np.array([0] * len(values) + [1] * (len(codes) - len(values)))
        model = fit(codes, known, counts=counts, acts=np.ones(5, dtype=bool), tasks=tasks)
        return float(np.sqrt(np.mean((model.predict(others)[0] - truth(others)) ** 2)))

    cold = error(None)
    assert error(7 + 2.0 * truth(theirs)) < 0.5 * cold
    assert error(7 + 2.0 * truth(theirs)) == pytest.approx(error(2.0 * truth(theirs)), rel=1e-3)
    unlike = [rng.permutation(effect) for effect in effects]
    misleading = sum(effect[theirs[:, k]] for k, effect in enumerate(unlike))
    assert error(misleading) < 1.5 * cold, "one that misleads does little harm"
    many = codes_of(rng, 40, counts)
    assert error(-truth(theirs), many, truth(many)) < 0.15 * cold, "and none where enough was measured here"


@pytest.mark.parametrize("tasks", [0, 2])
def test_the_gradient_of_the_fit_is_that_of_the_likelihood(tasks: int) -> None:
    from autotune.sampler.additive import _kernel, _Rows, _slope

    rng = np.random.default_rng(2)
    codes, y = codes_of(rng, 12, [3, 2, 2]), rng.normal(size=12)
    same = (codes[:, None, :] == codes[None, :, :]).transpose(2, 0, 1).astype(float)
    rows = _Rows(same, y, rng.uniform(0, 0.1, 12), np.arange(12) % (tasks + 1))
    theta = np.array([-1.0, -0.5, -2.0, -0.3, -2.5, 1.0, -0.5][: 5 + tasks])

    def likelihood(at: np.ndarray) -> float:
        kernel = _kernel(at, rows)
        return float(-0.5 * y @ np.linalg.solve(kernel, y) - 0.5 * np.linalg.slogdet(kernel)[1])

    for i, slope in enumerate(_slope(theta, rows)):
        step = np.eye(5 + tasks)[i] * 1e-5
        assert slope == pytest.approx((likelihood(theta + step) - likelihood(theta - step)) / 2e-5, rel=1e-4, abs=1e-6)


def test_one_failure_makes_its_values_suspects_and_successes_clear_them() -> None:
    codes = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]])
    chance = Faults(codes, np.array([False, True, False, False]), [2, 2, 2])
    works = dict(zip(map(tuple, codes.tolist()), chance.works(codes), strict=True))
    assert works[0, 0, 0] > 0.95
    assert works[1, 0, 0] > 0.9
    assert chance.works(np.array([[0, 1, 0]]))[0] < 0.7, "this value was never seen to work"
    assert works[1, 1, 0] < 0.3
    assert Faults(codes, np.zeros(4, dtype=bool), [2, 2, 2]).works(codes).tolist() == [1, 1, 1, 1]


def test_a_pair_is_blamed_where_both_of_its_values_work_alone() -> None:
    codes = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0]])
    faults = Faults(codes, np.array([False, False, False, True, True, False]), [2, 2, 2, 2])
    assert faults.works(np.array([[1, 1, 1, 1], [1, 1, 0, 1]])).max() < 0.3
    assert faults.works(np.array([[1, 0, 1, 0], [0, 1, 1, 0]])).min() > 0.7


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_expected_improvement_is_what_sampling_says(dimensions: int) -> None:
    from autotune.statistics.hypervolume import volume

    rng = np.random.default_rng(dimensions)
    front = rng.uniform(0.2, 0.9, (4, dimensions))
    front = front[[not any((f <= g).all() and (f < g).any() for f in front) for g in front]]
    mean, deviation = rng.uniform(0.1, 1.0, (3, dimensions)), rng.uniform(0.05, 0.3, (3, dimensions))
    found = expected_improvement(mean, deviation, front, np.ones(dimensions))
    for n in range(3):
        drawn = rng.normal(mean[n], deviation[n], (600, dimensions))
        gains = [volume([*front, point]) - volume(front) for point in drawn]
        error = np.std(gains) / math.sqrt(len(gains))
        assert abs(found[n] - np.mean(gains)) < 4 * error + 1e-6


def test_without_a_front_all_that_lies_below_the_corner_is_improvement() -> None:
    found = expected_improvement(np.array([[0.5, 0.25]]), np.full((1, 2), 1e-6), np.empty((0, 2)), np.ones(2))
    assert found[0] == pytest.approx(0.5 * 0.75, rel=1e-4)


def test_a_large_front_is_thinned_but_still_counts() -> None:
    x = np.linspace(0, 1, 400)
    front = np.stack([x, 1 - x, np.full(400, 0.5)], axis=1)
    mean = np.array([[0.7, 0.7, 0.6], [0.3, 0.3, 0.3]])
    covered, better = expected_improvement(mean, np.full((2, 3), 0.01), front, np.ones(3))
    assert covered < 0.02 < better


def test_the_probability_below_a_limit_is_the_normal_one() -> None:
    found = probability_below(np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 2.0]), 0.5)
    assert found == pytest.approx([0.691462, 0.308538, 0.598706], abs=1e-5)


def test_what_was_not_measured_teaches_nothing_of_itself_and_the_rest_is_learned() -> None:
    """Told losses that nobody saw would say that "b" is bad: they are only there because Optuna wants a number."""

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
