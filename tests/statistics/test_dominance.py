"""Who can't reach the front any more: by latency and memory, beyond the noise."""

import pytest

from autotune.reuse import MAX_ERROR, Incumbent, Reuse
from autotune.statistics.dominance import dominated

MIB = 2**20
RIVAL = Incumbent(trial=4, latencies_s=(1.0,), error=0.0, peak_memory_bytes=100 * MIB)


def reuse(*incumbents: Incumbent, spread: float = 0.0, each: bool = False) -> Reuse:
    return Reuse(incumbents=incumbents or (RIVAL,), spread=spread, same_memory=0.02, each=each)


def test_slower_and_larger_than_a_rival_is_hopeless_and_the_rival_is_named() -> None:
    said = dominated(reuse(), [1.8], 0.0, 200 * MIB)
    assert said == "can't reach the front: trial 4 is 1.80x as fast with 50% less memory, and loses no quality"


@pytest.mark.parametrize(
    ("latency_s", "memory_mib"), [(0.9, 200), (1.8, 90), (1.005, 200), (1.8, 115)], ids=["fast", "small", "~", "~"]
)
def test_what_is_better_or_nearly_as_good_in_one_of_both_goes_on(latency_s: float, memory_mib: int) -> None:
    assert dominated(reuse(), [latency_s], 0.0, memory_mib * MIB) is None


@pytest.mark.parametrize("noise", ["processes", "calls", "the incumbent's calls"])
def test_what_noise_may_have_made_is_not_held_against_it(noise: str) -> None:
    """Within 1.96 standard errors of the difference."""
    size = 0.05
    incumbent = RIVAL.model_copy(update={"error": size}) if noise == "the incumbent's calls" else RIVAL
    wary = reuse(incumbent, spread=size if noise == "processes" else 0.0)
    error = size if noise == "calls" else 0.0
    within = 1.16 if noise == "processes" else 1.11
    assert dominated(wary, [within * 0.99], error, 200 * MIB) is None
    assert dominated(wary, [within * 1.01], error, 200 * MIB) is not None


def test_of_several_sizes_the_sum_counts_or_each_one() -> None:
    """Faster at one size: with "each" that may be worth it."""
    one = Incumbent(trial=4, latencies_s=(3.0,), error=0.0, peak_memory_bytes=100 * MIB)
    both = Incumbent(trial=4, latencies_s=(1.0, 2.0), error=0.0, peak_memory_bytes=100 * MIB)
    assert dominated(reuse(one), [0.9, 3.0], 0.0, 200 * MIB) is not None
    assert dominated(reuse(both, each=True), [0.9, 3.0], 0.0, 200 * MIB) is None
    assert dominated(reuse(both, each=True), [1.2, 3.0], 0.0, 200 * MIB) is not None


def test_one_rival_must_be_better_in_both() -> None:
    fast = Incumbent(trial=1, latencies_s=(0.5,), error=0.0, peak_memory_bytes=400 * MIB)
    small = Incumbent(trial=2, latencies_s=(2.0,), error=0.0, peak_memory_bytes=50 * MIB)
    assert dominated(reuse(fast, small), [1.0], 0.0, 100 * MIB) is None


def test_of_large_peaks_a_share_and_of_small_ones_some_mib_are_the_same() -> None:
    large = Incumbent(trial=4, latencies_s=(1.0,), error=0.0, peak_memory_bytes=10_000 * MIB)
    assert dominated(reuse(large), [1.8], 0.0, 10_190 * MIB) is None
    assert dominated(reuse(large), [1.8], 0.0, 10_210 * MIB) is not None
    assert dominated(reuse(), [1.8], 0.0, 117 * MIB) is not None


def test_without_rivals_nothing_is_hopeless() -> None:
    assert dominated(Reuse(), [1e9], 0.0, 2**60) is None


def test_a_latency_is_good_enough_at_half_of_what_processes_differ_by() -> None:
    assert Reuse(spread=0.01).precision == pytest.approx(0.005)
    assert Reuse(spread=0.3).precision == MAX_ERROR, "whatever the machine is like"
    assert Reuse().precision == 0, "where nothing is known of it, the usual rules alone"
