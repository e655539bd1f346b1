"""Calibrations are taken over from trials that draw the same picture, but for the number that is calibrated."""

from typing import Any

import pytest
from made_up import measured

from autotune.config import Config, Value
from autotune.execution.reused import calibrations_of
from autotune.knobs import complete
from autotune.trial import Failure, Trial

KEY = "cache=magcache"


def calibrated(number: int, *ratios: float, **values: Value) -> Trial:
    trial = measured(number, {"cache": "magcache:0.12", **values})
    assert trial.measured is not None
    return trial.model_copy(update={"outcome": trial.measured.model_copy(update={"calibrations": {KEY: ratios}})})


def wanted(**values: Value) -> Config:
    return complete({"cache": "magcache:0.2", **values})


@pytest.mark.parametrize("more", [{}, {"compile": "regional"}, {"attention": "sdpa_math", "vae_slicing": True}])
def test_another_threshold_and_other_ways_to_compute_take_the_ratios_over(more: dict[str, Any]) -> None:
    assert calibrations_of(wanted(**more), [measured(0), calibrated(1, 1.0, 0.9)]) == {KEY: (1.0, 0.9)}


@pytest.mark.parametrize(
    "more", [{"cache": "pab:2"}, {"cache": "none"}, {"steps": 8}, {"dtype": "bf16"}, {"scheduler": "euler"}]
)
def test_another_cache_and_another_picture_do_not(more: dict[str, Any]) -> None:
    failed = calibrated(2).model_copy(update={"outcome": Failure(cause="crash", reason="SIGSEGV")})
    assert calibrations_of(wanted(**more), [measured(0), calibrated(1, 1.0, 0.9), failed]) == {}


def test_of_several_trials_the_one_that_differs_least_is_taken() -> None:
    trials = [calibrated(1, 1.0, 0.9, compile="regional"), calibrated(2, 1.0, 0.8), calibrated(3, 1.0, 0.7)]
    assert calibrations_of(wanted(), trials) == {KEY: (1.0, 0.8)}
    own = complete(trials[0].config)
    assert calibrations_of(own, trials) == {KEY: (1.0, 0.9)}, "a confirmation runs with the ratios of its own trial"
