"""Hypervolume, against an independent implementation and by its properties."""

import random

import pytest

from autotune.report.page.progress import hypervolume
from autotune.statistics.hypervolume import volume


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_it_agrees_with_that_of_the_report(dimensions: int) -> None:
    rng = random.Random(dimensions)
    for _ in range(30):
        points = [
            tuple(rng.choice((rng.random(), 0.5, 1.2)) for _ in range(dimensions)) for _ in range(rng.randint(0, 9))
        ]
        assert volume(points) == pytest.approx(hypervolume(points), abs=1e-12)


def test_a_point_dominates_its_box_and_a_point_outside_nothing() -> None:
    assert volume([(0.5, 0.25, 0.0)]) == pytest.approx(0.5 * 0.75)
    assert volume([]) == volume([(1.0, 0.0)]) == volume([(-1.0, 2.0)]) == 0.0


def test_a_covered_point_and_a_repeated_one_add_nothing() -> None:
    points = [(0.2, 0.6), (0.5, 0.1)]
    assert volume([*points, (0.5, 0.7), (0.2, 0.6)]) == volume(points)
