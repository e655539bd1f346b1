"""The verdict on two latencies, against simulated devices whose truth is known."""

import math
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from autotune.measurement import Measurement
from autotune.statistics.interleaved import interleave, verdict_of
from autotune.statistics.verdict import T, Verdict, judge, t_quantile


class Device:
    """Two configs on a device whose processes differ by `spread`, and which may drift from process to process."""

    def __init__(self, seed: int, *, spread: float, speedup: float = 1.0, drift: float = 0.0) -> None:
        self.rng, self.spread, self.drift, self.processes = random.Random(seed), spread, drift, 0
        self.truth = {"first": 1.0, "second": 1.0 / speedup}

    def run(self, number: int, side: str) -> Measurement:
        slower = math.exp(self.rng.gauss(0, self.spread) + self.drift * self.processes)
        self.processes += 1
        return with_latency(self.truth[side] * slower)


def with_latency(latency_s: float) -> Measurement:
    return Measurement(
        load_s=0.0,
        apply_s=0.0,
        first_call_s=latency_s,
        warmup_s=(latency_s,),
        latency_samples_s=(latency_s,) * 5,
        load_peak_memory_bytes=1,
        run_peak_memory_bytes=1,
        peak_memory_bytes=1,
        effects={},
        attention_kernels={},
    )


def verdicts(count: int, **device: float) -> Iterator[Verdict]:
    for seed in range(count):
        pairs = interleave(Device(seed, **device).run, least=3)
        assert isinstance(pairs, list)
        yield verdict_of(pairs)


@pytest.mark.parametrize("spread", [0.005, 0.01, 0.02])
def test_a_config_against_itself_is_hardly_ever_judged_different(spread: float) -> None:
    """Promise 1: pairs are SAME and none is FASTER by more than 3 %, at the spreads of real devices.

    At 2 % between processes, nine rounds leave one comparison in seven UNCLEAR: more can't be known.
    """
    seen = list(verdicts(400, spread=spread))
    counts = Counter(verdict.word for verdict in seen)
    assert counts["FASTER"] + counts["SLOWER"] <= 0.05 * len(seen)
    assert not [v for v in seen if v.word == "FASTER" and v.speedup > 1.03]
    assert counts["SAME"] >= (0.94 if spread < 0.02 else 0.8) * len(seen)


def test_the_interval_holds_the_truth_in_95_percent_of_the_cases() -> None:
    seen = list(verdicts(1000, spread=0.015, speedup=1.2))
    assert sum(v.low <= 1.2 <= v.high for v in seen) >= 0.93 * len(seen)


@pytest.mark.parametrize(("speedup", "word"), [(1.3, "FASTER"), (1 / 1.3, "SLOWER")])
def test_a_difference_that_is_there_is_found(speedup: float, word: str) -> None:
    seen = list(verdicts(200, spread=0.02, speedup=speedup))
    assert sum(v.word == word for v in seen) >= 0.97 * len(seen)


def test_a_gain_below_one_percent_is_never_called_one() -> None:
    """Promise 5, with a device so quiet that the interval is narrower than the gain."""
    assert {v.word for v in verdicts(50, spread=0.0005, speedup=1.008)} == {"SAME"}


def test_steady_drift_makes_nothing_faster() -> None:
    """If the order did not change from round to round, the second config would always run later, and seem slower."""
    seen = list(verdicts(300, spread=0.005, drift=0.01))
    assert sum(v.word in ("FASTER", "SLOWER") for v in seen) <= 0.05 * len(seen)


def test_more_rounds_are_taken_where_the_interval_is_wide_and_no_more_than_three_times_as_many() -> None:
    quiet, loud = Device(0, spread=0.001), Device(0, spread=0.2)
    assert len(interleave(quiet.run, least=3)) == 5  # type: ignore[arg-type]
    assert len(interleave(Device(0, spread=0.001, speedup=1.5).run, least=3)) == 3  # type: ignore[arg-type]
    assert len(interleave(loud.run, least=3)) == 9  # type: ignore[arg-type]


def test_a_wide_interval_around_one_is_unclear() -> None:
    assert judge([1.0, 1.0, 1.0], [1.2, 0.8, 1.0]).word == "UNCLEAR"
    assert "no difference beyond the noise" in judge([1.0, 1.0, 1.0], [1.2, 0.8, 1.0]).words("the first's speed")


def test_one_pair_has_no_verdict() -> None:
    with pytest.raises(ValueError, match="no interval"):
        judge([1.0], [1.0])


def test_the_quantiles_are_students() -> None:
    """The density's integral up to each of them is 0.975."""
    for freedom in (1, 2, 5, 15):
        factor = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
        limit, steps = T[freedom - 1], 20_000
        inside = [
            factor * (1 + ((i + 0.5) * limit / steps) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(steps)
        ]
        assert sum(inside) * limit / steps == pytest.approx(0.475, abs=2e-4)
    assert t_quantile(40) >= 2.02


def test_an_absurd_latency_in_a_file_overflows_nothing() -> None:
    """Found by mutated files: a denormal number of seconds."""
    seen = judge((1.0, 1e-320), (0.5, 0.6))
    assert 0 < seen.low < seen.speedup < seen.high < float("inf")
    assert seen.word == "UNCLEAR"


def test_absurd_latencies_of_a_file_overflow_nothing() -> None:
    """The smallest number that there is, beside the largest latency that a file may have."""
    found = judge((1e7, 1e7), (5e-324, 5e-324))
    assert found.word == "FASTER"
    assert 1 < found.low <= found.speedup <= found.high < float("inf")


def test_whether_a_speedup_would_be_told_depends_on_the_width_alone() -> None:
    narrow, wide = judge([1.0, 1.0, 1.0], [0.5, 0.52, 0.48]), judge([1.0, 1.0, 1.0], [0.5, 0.7, 0.36])
    for speedup in (2.0, 0.5):
        assert narrow.would_tell(speedup)
        assert not wide.would_tell(speedup)
    assert not narrow.would_tell(1.0)
