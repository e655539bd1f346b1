"""The A/A test: what it says of simulated machines, and of the demo on this one."""

import math
import random

import pytest
from searches import REQUESTED

from autotune.errors import UserError
from autotune.report.terminal.trust import selftest_words
from autotune.tuning.selftest import SelfTest, selftest


def machine(spread: float, *, pairs: int = 20, seed: int = 0, one_off: float = 0.0) -> SelfTest:
    """Pairs on a machine whose processes differ by `spread`; one of them by `one_off` besides."""
    rng = random.Random(seed)
    latencies = [[math.exp(rng.gauss(0, spread)) for _ in range(pairs)] for _ in range(2)]
    latencies[0][3] *= 1 + one_off
    return SelfTest(
        device="a simulated machine",
        workload="nothing",
        first_latency_s=tuple(latencies[0]),
        second_latency_s=tuple(latencies[1]),
        disturbed={},
        noisy=0,
        calls=5 * 2 * pairs,
    )


@pytest.mark.parametrize("spread", [0.005, 0.01, 0.02])
def test_at_most_one_pair_of_twenty_is_usually_judged_different(spread: float) -> None:
    """Promise 1, pair by pair: a pair is one in twenty by definition, a gain below 1 % none."""
    different = [len(machine(spread, seed=seed).judged_different) for seed in range(100)]
    assert sum(different) <= 100 * 20 * 0.06
    assert sum(count <= 2 for count in different) >= 85


def test_a_pair_that_stands_out_is_named() -> None:
    assert machine(0.005, one_off=0.2).judged_different == (3,)
    assert machine(0.005, one_off=0.2).worst == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("spread", [0.01, 0.03])
def test_false_alarms_of_a_comparison_are_as_rare_as_its_interval_promises(spread: float) -> None:
    seen = [machine(spread, seed=seed).false_alarms for seed in range(20)]
    assert sum(seen) / len(seen) <= 0.06


def test_a_noisy_machine_sees_only_large_speedups() -> None:
    quiet, loud = machine(0.004).smallest_speedup, machine(0.03).smallest_speedup
    assert quiet is not None
    assert loud is not None
    assert 1.01 < quiet < 1.04 < loud
    assert machine(0.8).smallest_speedup is None


def test_the_words_say_what_disturbed_it() -> None:
    seen = machine(0.01).model_copy(update={"disturbed": {"others used 40 % of the processor": 7}})
    assert "calls discarded: 7 beside 200 that count (7 x others used 40 % of the processor)" in selftest_words(seen)


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(UserError, match="say too little"):
        selftest("demo", pairs=2)


@pytest.mark.usefixtures("children_are_forked")
def test_the_demo_is_measured_against_itself() -> None:
    REQUESTED.clear()
    heard: list[int] = []
    seen = selftest(
        "demo", pairs=5, steps=2, device="cpu", listen=lambda number, first_s, second_s: heard.append(number)
    )
    assert heard == [1, 2, 3, 4, 5]
    assert list(REQUESTED.values()) == ["spawn"] * 11, "its probe and ten processes"
    assert len(seen.logs) == 5
    assert seen.calls >= 50
    assert "5 pairs of the same config" in selftest_words(seen)
    assert "2 steps" in seen.workload
