"""Paired differences: the bounds keep their level, by simulation, and too few pairs give none."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from autotune.statistics.paired import Paired, paired

STUDIES = 2000


def simulated(drop: float, *, n: int = 32, sd: float = 0.8, seed: int = 0) -> Iterator[Paired]:
    """The statistics of many studies whose true mean drop is `drop`."""
    rng = np.random.default_rng(seed)
    for differences in rng.normal(drop, sd, (STUDIES, n)):
        yield paired(differences)


def share(found: Iterator[bool]) -> float:
    return sum(found) / STUDIES


def test_a_drop_of_half_a_point_is_seen_with_32_pairs() -> None:
    """Promise 13: a drop of 0.5 with SD 0.8 is caught at least 95 % of the time."""
    assert share(p.is_detectable for p in simulated(0.5)) >= 0.95


def test_without_a_drop_one_is_rarely_detected() -> None:
    """Promise 13: a drop of 0 is wrongly seen in about 5 % of the studies."""
    assert share(p.is_detectable for p in simulated(0.0)) <= 0.06


def test_the_guard_lets_a_drop_at_the_limit_pass_only_one_time_in_twenty() -> None:
    """Promise 12: a config that may lose 0.3 points is rejected, unless the one-sided 95 % bound lies below."""
    assert share(not p.may_exceed(0.3) for p in simulated(0.3)) <= 0.06
    assert share(not p.may_exceed(0.3) for p in simulated(-0.3)) >= 0.95


def test_the_two_sided_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    def holds(p: Paired) -> bool:
        assert p.low is not None
        assert p.high is not None
        return p.low <= 0.2 <= p.high

    assert 0.935 <= share(holds(p) for p in simulated(0.2)) <= 0.965


def test_skewed_differences_are_called_a_drop_no_more_often() -> None:
    """A few pairs lose much, the rest hardly anything: a normal approximation is worst there."""
    rng = np.random.default_rng(0)
    skewed = rng.exponential(1.0, (STUDIES, 32)) - 1.0
    assert share(paired(d).is_detectable for d in skewed) <= 0.06
    assert share(paired(-d).is_detectable for d in skewed) <= 0.07


@pytest.mark.parametrize(("n", "smallest"), [(8, 0.70), (16, 0.50), (32, 0.35), (64, 0.25), (128, 0.18), (200, 0.14)])
def test_the_smallest_detectable_drop_is_the_planners_table(n: int, smallest: float) -> None:
    """Of an SD of 0.8: one-sided 5 %, power 80 %."""
    values = np.resize([1.0, -1.0], n)
    values *= 0.8 / values.std(ddof=1)
    found = paired(values).smallest_detectable
    assert found == pytest.approx(smallest, abs=0.005)


def test_the_smallest_detectable_drop_is_seen_four_times_in_five() -> None:
    assert share(p.is_detectable for p in simulated(0.352)) == pytest.approx(0.8, abs=0.04)


def test_one_pair_bounds_nothing_and_may_exceed_any_limit() -> None:
    one = paired([0.1])
    assert (one.n, one.mean) == (1, 0.1)
    assert {one.low, one.high, one.lower, one.upper, one.smallest_detectable, one.half_width} == {None}
    assert one.may_exceed(1000)
    assert not one.is_detectable


@pytest.mark.parametrize("differing", [1, 2, 5])
def test_rounding_in_a_few_of_many_pairs_bounds_the_mean_and_is_no_drop(differing: int) -> None:
    """As where a compiled config's pictures differ from the baseline's in a few pixels of one or two pictures."""
    for n in (16, 32, 128):
        found = paired([0.0005] * differing + [0.0] * (n - differing))
        assert found.upper is not None
        assert found.low is not None
        assert 0.0 <= found.low <= found.mean <= found.upper <= 0.0005
        assert not found.may_exceed(0.01)
        assert not found.is_detectable
        assert paired([-0.0005] * differing + [0.0] * (n - differing)).is_gain is False


def test_a_few_bad_pairs_among_many_may_be_a_large_drop() -> None:
    found = paired([9.0, 5.0] + [0.0] * 30)
    assert found.may_exceed(0.3)
    assert found.upper == 9.0


def test_two_pairs_that_disagree_bound_nothing() -> None:
    assert (paired([0.0, 1.0]).low, paired([0.0, 1.0]).upper) == (None, None)


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_equal_differences_have_no_width(value: float) -> None:
    equal = paired([value + 1e-13 * i for i in range(5)])
    assert equal.low == equal.high == equal.lower == equal.upper == pytest.approx(value)
    assert equal.smallest_detectable == 0
    assert equal.is_detectable == (value > 0)


def test_the_one_sided_bounds_lie_inside_the_interval() -> None:
    for p in simulated(0.1, n=8):
        assert p.low is not None
        assert p.high is not None
        assert p.lower is not None
        assert p.upper is not None
        assert p.low <= p.lower <= p.mean <= p.upper <= p.high


def test_bounds_scale_and_turn_with_the_differences_and_are_the_same_each_time() -> None:
    values = np.random.default_rng(3).normal(0.3, 1.0, 16)
    one, again, larger, turned = paired(values), paired(list(values)), paired(values * 100), paired(-values)
    assert one == again
    assert larger.upper == pytest.approx(100 * (one.upper or 0))
    assert turned.lower == pytest.approx(-(one.upper or 0))


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf"), 0.0]])
def test_differences_that_are_missing_or_not_finite_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="differences"):
        paired(values)


@pytest.mark.parametrize("values", [[0.1], [0.0, 1.0], [0.1, 0.2, 0.7, -0.1]])
def test_it_survives_its_json(values: list[float]) -> None:
    """JSON has no infinity: an open bound is null."""
    text = json.dumps(paired(values).to_json(), allow_nan=False)
    assert Paired.parse(json.loads(text), "a drop") == paired(values)
