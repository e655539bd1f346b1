"""What a trial's numbers mean: the loss, its interval, the spread; and that trials survive their JSON."""

import json

import pytest
from made_up import BASELINE_SCORES, failed, likeness, measured, quality

from autotune.errors import UserError
from autotune.trial import Quality, Trial


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
    equal = quality(0.5).paired_drop(quality())
    assert (equal.mean, equal.half_width) == pytest.approx((0.5, 0.0))
    unlike = quality().model_copy(update={"clip_scores": (29.0, 31.0)}).paired_drop(quality())
    assert unlike.mean == pytest.approx(0.5)
    assert unlike.half_width is None, "two pairs that disagree bound nothing"


def test_scores_of_different_scorers_are_never_compared() -> None:
    """Promise 17: the digest of the weights is part of the scorer's name."""
    other = quality().model_copy(update={"scorer": "demo@1"})
    for compare in (other.drops, other.loss, other.paired_drop):
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


@pytest.mark.parametrize("trial", [measured(3, {"dtype": "bf16", "tome_ratio": 0.5}), failed(4, cause="timeout")])
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
