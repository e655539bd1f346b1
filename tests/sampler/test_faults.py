"""The model of failures: single values and pairs that break a config."""

import numpy as np

from autotune.sampler.faults import Faults
from autotune.sampler.scale import INACTIVE


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


def test_a_part_of_a_numbers_scale_is_a_suspect() -> None:
    places = np.linspace(0, 1, 21)
    codes = np.column_stack([np.zeros(21), places])
    faults = Faults(codes, places > 0.76, [1, 0])
    high, low, inactive = faults.works(np.array([[0, 0.9], [0, 0.3], [0, INACTIVE]]))
    assert high < 0.3
    assert low > 0.8
    assert inactive > 0.8
