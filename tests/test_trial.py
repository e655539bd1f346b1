"""What a trial's numbers mean: the loss, its interval, the spread; and that trials survive their JSON."""

import json
from functools import partial

import pytest
from made_up import BASELINE_SCORES, failed, likeness, measured, quality, shared, stopped

from autotune.errors import UserError
from autotune.measurement import Discarded, Health, Measurement, Peaks, Phases, Quality
from autotune.statistics.paired import paired_drop
from autotune.trial import Trial


def test_loss_is_the_mean_paired_drop() -> None:
    assert quality(0.25).loss(quality()) == pytest.approx(0.25)


def test_a_config_can_not_win_by_scoring_above_the_baseline() -> None:
    assert quality(-0.25).loss(quality()) == 0


def test_drops_are_paired_by_prompt() -> None:
    mine = quality().model_copy(update={"clip_scores": tuple(reversed(BASELINE_SCORES))})
    assert mine.drops(quality()) == (-1.0, 1.0)
    assert mine.loss(quality()) == 0


def test_where_only_likeness_is_judged_loss_is_what_ssim_lacks_in_percent() -> None:
    assert likeness(0.93).loss(likeness(1.0)) == pytest.approx(7.0)


def test_the_interval_of_equal_drops_has_no_width_and_that_of_unlike_ones_has() -> None:
    equal = paired_drop(quality(0.5), quality())
    assert (equal.mean, equal.half_width) == pytest.approx((0.5, 0.0))
    unlike = paired_drop(quality().model_copy(update={"clip_scores": (29.0, 31.0)}), quality())
    assert unlike.mean == pytest.approx(0.5)
    assert unlike.half_width is None, "two pairs that disagree bound nothing"


def test_scores_of_different_scorers_are_never_compared() -> None:
    """Promise 17: the digest of the weights is part of the scorer's name."""
    other = quality().model_copy(update={"scorer": "demo@1"})
    for compare in (other.drops, other.loss, partial(paired_drop, other)):
        with pytest.raises(UserError, match="judged by demo@1 can't be compared with pictures judged by demo@0"):
            compare(quality())
    with pytest.raises(UserError, match="likeness"):
        likeness(1.0).loss(quality())


def test_likeness_is_told_by_its_mean_and_its_worst() -> None:
    judged = quality().model_copy(update={"lpips": (0.1, 0.3), "psnr_db": (30.0, 20.0, None)})
    assert (judged.lpips_mean, judged.lpips_worst) == pytest.approx((0.2, 0.3))
    assert (judged.psnr_mean_db, judged.psnr_worst_db) == pytest.approx((25.0, 20.0))
    assert (quality().lpips_mean, quality().lpips_worst) == (None, None)


def test_psnr_of_pictures_that_are_the_same_bit_for_bit_is_none() -> None:
    assert quality().psnr_worst_db == 30.0
    assert Quality(metric="likeness", scorer=None, ssim=(1.0,), psnr_db=(None,)).psnr_worst_db is None


def test_latency_is_the_median_and_spread_the_interquartile_range_over_it() -> None:
    outcome = measured(1).measured
    assert outcome is not None
    noisy = outcome.model_copy(update={"latency_samples_s": (1.0, 2.0, 3.0, 4.0, 100.0)})
    assert noisy.latency_s == 3.0
    assert noisy.latency_spread == pytest.approx((52.0 - 1.5) / 3)


def test_promise_4_a_measurement_is_noisy_when_any_size_scatters_by_more_than_a_tenth() -> None:
    outcome = measured(1, also=(2.0, 3.0)).measured
    assert outcome is not None
    assert not outcome.is_noisy
    scattered = (0.9, 0.96, 1.0, 1.04, 1.1)
    assert outcome.model_copy(update={"latency_samples_s": scattered}).is_noisy
    other = outcome.also[1].model_copy(update={"latency_samples_s": scattered})
    assert outcome.model_copy(update={"also": (outcome.also[0], other)}).is_noisy


def test_a_picture_takes_its_share_of_a_call_at_the_main_size() -> None:
    outcome = measured(1, latency_s=2.0, also=(5.0,)).measured
    assert outcome is not None
    assert outcome.seconds_per_picture(4) == 0.5


def test_a_trial_written_before_the_device_was_watched_can_still_be_read() -> None:
    older = measured(1).to_json()
    later = ("stopped_by", "discarded", "health", "phases", "peaks", "energy_per_picture_j")
    for field in (*later, "spot_check", "quality_of", "stopped", "score_s"):
        del older["outcome"][field]
    again = Trial.parse(older, "an older trial").measured
    assert again is not None
    assert (again.stopped_by, again.discarded, again.health, again.peaks) == (None, (), None, {})
    assert (again.spot_check, again.quality_of, again.stopped, again.score_s) == (None, None, None, None)


def test_what_a_watched_device_told_survives_its_json() -> None:
    outcome = measured(1).measured
    assert outcome is not None
    told = outcome.model_copy(
        update={
            "stopped_by": "plateau",
            "discarded": (Discarded(latency_s=2.0, why="throttled", reason="HwThermal"),),
            "health": Health(sm_clock_mhz=1755.0, throttle_reasons=("SwPowerCap",)),
            "phases": Phases(denoising_step_s=0.03),
            "peaks": {"load": Peaks(device_bytes=2), "run": Peaks(allocated_bytes=1, reserved_bytes=2, device_bytes=3)},
            "energy_per_picture_j": 12.5,
        }
    )
    assert Measurement.parse(json.loads(json.dumps(told.to_json())), "an outcome") == told


TRIALS = [measured(3, {"dtype": "bf16", "tome_ratio": 0.5}), failed(4, cause="timeout"), shared(5, 3), stopped(6)]


@pytest.mark.parametrize("trial", TRIALS)
def test_a_trial_survives_its_json(trial: Trial) -> None:
    again = Trial.parse(json.loads(json.dumps(trial.to_json())), "a trial")
    assert again == trial
    assert again.config == trial.config
    assert (again.measured is None) == (trial.measured is None)


def test_values_keep_their_types_in_json() -> None:
    """True is not 1, nor 1 1.0: a config with another type is another config."""
    values = {"a": True, "b": 1, "c": 1.0, "d": "1"}
    trial = measured(0).model_copy(update={"values": values})
    again = Trial.parse(json.loads(json.dumps(trial.to_json())), "a trial")
    assert [type(value) for value in again.values.values()] == [bool, int, float, str]
    assert again.config.digest == trial.config.digest


@pytest.mark.parametrize("change", [{"number": "x"}, {"extra": 1}, {"outcome": {"cause": "bad luck", "reason": ""}}])
def test_a_trial_that_is_none_is_one_sentence(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"^the trial can't be used: .*\.$"):
        Trial.parse({**measured(0).to_json(), **change}, "the trial")


def test_only_what_was_judged_has_a_quality_and_its_pictures_may_be_anothers() -> None:
    own, taken, none = measured(3), shared(5, 3), stopped(6)
    assert [trial.judged is not None for trial in (own, taken, none, failed(7))] == [True, True, False, False]
    assert [trial.pictures_of for trial in (own, taken, none, failed(7))] == [3, 3, 6, 7]
