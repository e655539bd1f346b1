"""Expected hypervolume improvement, against sampling."""

import math

import numpy as np
import pytest

from autotune.sampler.improvement import expected_improvement, probability_below


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


def test_without_a_front_everything_below_the_corner_is_improvement() -> None:
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
