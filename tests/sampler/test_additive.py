"""The additive model: what it learns from few values, of one study or of several."""

import itertools

import numpy as np
import pytest

from autotune.sampler.additive import fit
from autotune.sampler.scale import INACTIVE


def codes_of(rng: np.random.Generator, rows: int, counts: list[int]) -> np.ndarray:
    return np.stack([rng.integers(0, count, rows) for count in counts], axis=1)


def test_the_model_finds_sums_of_effects_and_which_parameters_have_none() -> None:
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


def test_a_pair_s_effect_is_learned_and_an_irrelevant_parameter_has_none() -> None:
    rng, counts = np.random.default_rng(1), [2, 2, 2, 3]
    codes = np.array(list(itertools.product(*map(range, counts))))
    values = codes[:, 0] * 1.0 + codes[:, 1] * 0.5 - 1.2 * codes[:, 0] * codes[:, 1]
    some = rng.permutation(len(codes))[:16]
    model = fit(codes[some], values[some], counts=counts, acts=np.array([True, True, True, False]))
    mean, _ = model.predict(codes)
    assert np.abs(mean - values).max() < 0.3
    by_irrelevant = mean.reshape(2, 2, 2, 3)
    assert np.ptp(by_irrelevant, axis=3).max() < 1e-6


def test_an_earlier_task_is_used_as_far_as_its_effects_are_similar() -> None:
    """Only its shape counts, not its level. This study has 6 values, each earlier one 30."""
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
    assert error(misleading) < 1.5 * cold, "a misleading one does little harm"
    many = codes_of(rng, 40, counts)
    assert error(-truth(theirs), many, truth(many)) < 0.15 * cold, "and none once this study has measured enough"


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


def with_places(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Two categorical parameters and a number, which is inactive beside the first value of the first one."""
    codes = codes_of(rng, rows, [3, 2]).astype(float)
    places = np.where(codes[:, 0] == 0, INACTIVE, rng.uniform(0, 1, rows))
    return np.column_stack([codes, places])


def test_the_effect_of_a_number_is_smooth_between_the_values_that_were_measured() -> None:
    rng, counts = np.random.default_rng(5), [3, 2, 0]

    def truth(codes: np.ndarray) -> np.ndarray:
        smooth = np.where(codes[:, 2] == INACTIVE, 0.0, -0.5 * codes[:, 2] + 0.8 * codes[:, 2] ** 3)
        return np.array([0, 0.3, -0.2])[codes[:, 0].astype(int)] + 0.4 * codes[:, 1] + smooth

    known, others = with_places(rng, 25), with_places(rng, 200)
    model = fit(known, truth(known) + rng.normal(0, 0.01, 25), counts=counts, acts=np.ones(3, dtype=bool))
    mean, deviation = model.predict(others)
    assert np.sqrt(np.mean((mean - truth(others)) ** 2)) < 0.04
    assert np.mean(np.abs(mean - truth(others)) < 2.5 * deviation + 0.01) > 0.9
    far = model.predict(np.array([[1, 0, 0.5], [1, 0, 5.0]]))[1]
    assert far[1] > 2 * far[0], "far from all that was measured, nothing is known"


def test_the_gradient_of_the_fit_with_numbers_is_that_of_the_likelihood() -> None:
    from autotune.sampler.additive import _kernel, _Rows, _slope

    rng = np.random.default_rng(2)
    codes, y = with_places(rng, 14), rng.normal(size=14)
    same = (codes[:, None, :] == codes[None, :, :]).transpose(2, 0, 1).astype(float)
    rows = _Rows(same, y, rng.uniform(0, 0.1, 14), np.arange(14) % 2, {2: codes[:, 2]})
    theta = np.array([-1.0, -0.5, 0.3, -0.3, -2.5, 1.0, -0.9])

    def likelihood(at: np.ndarray) -> float:
        kernel = _kernel(at, rows)
        return float(-0.5 * y @ np.linalg.solve(kernel, y) - 0.5 * np.linalg.slogdet(kernel)[1])

    for i, slope in enumerate(_slope(theta, rows)):
        step = np.eye(7)[i] * 1e-5
        assert slope == pytest.approx((likelihood(theta + step) - likelihood(theta - step)) / 2e-5, rel=1e-4, abs=1e-6)
