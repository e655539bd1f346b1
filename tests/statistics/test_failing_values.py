"""A value that fails in every trial for the same reason is found after the second, and no other one is blamed."""

from typing import Any

from made_up import measured

from autotune.config import Value
from autotune.knobs import all_knobs
from autotune.statistics.failing_values import failing_values
from autotune.trial import Cause, Failure, Trial

SHAPES = "RuntimeError: shapes [4, 8] and [8, 3] don't match at 0x7f3a in /tmp/a/b.py, line 3"
OTHER_SHAPES = "RuntimeError: shapes [16, 8] and [8, 5] don't match at 0x7f99 in /root/c.py, line 14"


def failed(number: int, values: dict[str, Value], reason: str = SHAPES, cause: Cause = "error") -> Trial:
    return Trial(
        number=number, origin="sampler", values=values, outcome=Failure(cause=cause, reason=reason), seconds=1.0
    )


def found(*trials: Trial) -> dict[tuple[str, Any], tuple[int, ...]]:
    return {(one.knob, one.value): one.trials for one in failing_values(trials, DEFAULTS)}


BASELINE = measured(0)
DEFAULTS = {name: knob.default for name, knob in all_knobs().items()}
ONE, TWO = {"dtype": "bf16", "cache": "first_block:0.2"}, {"dtype": "fp16", "cache": "first_block:0.2"}


def test_a_value_is_found_after_the_second_failure_whatever_its_numbers_and_paths() -> None:
    assert found(BASELINE, failed(1, ONE)) == {}
    assert found(BASELINE, failed(1, ONE), failed(2, TWO, OTHER_SHAPES)) == {("cache", "first_block:0.2"): (1, 2)}


def test_a_value_that_has_failed_for_two_reasons_is_not_found() -> None:
    assert found(BASELINE, failed(1, ONE), failed(2, TWO, "ValueError: no such block")) == {}
    assert found(BASELINE, failed(1, ONE), failed(2, TWO, cause="crash")) == {}


def test_a_value_that_another_trial_was_measured_with_is_not_found() -> None:
    works = measured(3, {"cache": "first_block:0.2"})
    assert found(BASELINE, failed(1, ONE), failed(2, TWO), works) == {}


def test_of_values_that_failed_together_none_is_blamed_until_one_fails_without_the_other() -> None:
    both: dict[str, Value] = {"cache": "first_block:0.2", "qkv_fusion": True}
    together = [failed(i, {**both, "dtype": dtype}) for i, dtype in enumerate(("bf16", "fp16", "fp32"), start=1)]
    assert found(BASELINE, *together) == {}
    works = measured(4, {"qkv_fusion": True})
    assert found(BASELINE, *together, works) == {}, "the pair may be to blame"
    assert found(BASELINE, *together, works, failed(5, ONE)) == {("cache", "first_block:0.2"): (1, 2, 3, 5)}


def test_memory_time_and_the_machine_are_not_one_value_s_fault() -> None:
    causes: tuple[Cause, ...] = ("out_of_memory", "timeout", "environment", "contended", "noisy", "throttled")
    for cause in causes:
        assert found(BASELINE, failed(1, ONE, cause=cause), failed(2, TWO, cause=cause)) == {}
    disturbed = failed(3, {"cache": "first_block:0.2"}, "other work", cause="contended")
    assert found(BASELINE, failed(1, ONE), disturbed, failed(4, TWO)) == {("cache", "first_block:0.2"): (1, 4)}


def test_a_value_of_the_baseline_is_never_found() -> None:
    baseline = measured(0, {"dtype": "bf16"})
    trials = [failed(1, {"dtype": "bf16", "vae_slicing": True}), failed(2, {"dtype": "bf16", "vae_tiling": True})]
    assert found(baseline, *trials) == {}


def test_a_default_is_never_found_though_the_baseline_has_another_value_and_blames_no_other() -> None:
    baseline, cached = measured(0, {"dtype": "bf16"}), {"dtype": "fp32", "cache": "first_block:0.2"}
    trials = [failed(1, {"dtype": "fp32", "vae_slicing": True}), failed(2, {"dtype": "fp32", "vae_tiling": True})]
    assert found(baseline, *trials) == {}
    assert found(baseline, failed(1, cached), failed(2, cached)) == {("cache", "first_block:0.2"): (1, 2)}


def test_the_sentence_names_the_trials_and_the_first_reason() -> None:
    trials = [BASELINE, failed(1, ONE), failed(2, TWO, OTHER_SHAPES), failed(5, {"cache": "first_block:0.2"})]
    [one] = failing_values(trials, DEFAULTS)
    assert str(one) == f"cache=first_block:0.2 failed alike in trials 1, 2 and 5 (error: {SHAPES})"
