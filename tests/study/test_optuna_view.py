"""OptunaView: knobs as Optuna's parameters, and back."""

import random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autotune.config import Config, Range, Value
from autotune.knobs import complete
from autotune.study.optuna_view import Parameters

THRESHOLD = Range(low=0.03, high=0.2, log=True, prefix="first_block:")
INTERVAL = Range(low=2, high=8, prefix="deepcache:")
FREE: dict[str, tuple[Value, ...]] = {
    "dtype": ("fp32", "bf16"),
    "cache": ("none", "deepcache:3", "first_block:0.05", "first_block:0.12"),
    "steps": ("workload", 8, 12),
    "guidance_cutoff": (1.0, 0.5),
}
RANGES = {
    "cache": (INTERVAL, THRESHOLD),
    "steps": (Range(low=8, high=50),),
    "guidance_cutoff": (Range(low=0.2, high=1.0),),
}


def made() -> Parameters:
    return Parameters(FREE, RANGES)


def test_without_ranges_each_knob_is_a_categorical_parameter() -> None:
    parameters = Parameters(FREE, {})
    assert parameters.distributions() == {name: CategoricalDistribution(values) for name, values in FREE.items()}
    assert parameters.conditions == {}
    config = Config({"dtype": "bf16", "cache": "deepcache:3", "steps": 12, "guidance_cutoff": 0.5})
    assert parameters.of(config) == dict(config)
    assert parameters.of(Config({"dtype": "bf16"}))["cache"] == "none", "a knob that is not active has its first value"


def test_off_or_a_number_is_a_choice_and_a_number_and_a_number_alone_has_no_choice() -> None:
    assert made().distributions() == {
        "dtype": CategoricalDistribution(("fp32", "bf16")),
        "cache": CategoricalDistribution(("none", str(INTERVAL), str(THRESHOLD))),
        "steps": CategoricalDistribution(("workload", "8..50")),
        f"cache in {INTERVAL}": IntDistribution(2, 8),
        f"cache in {THRESHOLD}": FloatDistribution(0.03, 0.2, log=True),
        "steps in 8..50": IntDistribution(8, 50),
        "guidance_cutoff in 0.2..1.0": FloatDistribution(0.2, 1.0),
    }
    assert made().conditions == {
        f"cache in {INTERVAL}": ("cache", str(INTERVAL)),
        f"cache in {THRESHOLD}": ("cache", str(THRESHOLD)),
        "steps in 8..50": ("steps", "8..50"),
    }


@pytest.mark.parametrize(
    "values",
    [
        {"cache": "none", "steps": "workload", "guidance_cutoff": 1.0},
        {"cache": "first_block:0.0573", "steps": 31, "guidance_cutoff": 0.123456},
        {"cache": "deepcache:7", "steps": 8, "guidance_cutoff": 0.2},
    ],
)
def test_a_config_comes_back_from_its_parameters_unrounded(values: dict[str, Value]) -> None:
    config = Config({"dtype": "bf16", **values}) if values["guidance_cutoff"] != 0.123456 else None
    config = config or Config({"dtype": "bf16", **values, "guidance_cutoff": 0.523456})
    parameters = made()
    assert parameters.hold(config)
    assert parameters.values(parameters.of(config)) == dict(config)
    assert set(parameters.of(config)) == set(parameters.distributions()), "Optuna wants all of them in every trial"


def test_a_value_of_no_range_is_not_held() -> None:
    assert not made().hold(Config({"steps": 51}))
    assert not made().hold(Config({"cache": "first_block:0.5"}))
    assert not made().hold(Config({"guidance_cutoff": 0.1})), "it has no choice by which it could be told"


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "gp"])
def test_each_of_optunas_samplers_gets_real_numbers(sampler: str) -> None:
    """Both the choice and the numbers are suggested, and what is proposed is of the space, rounded."""
    from autotune.study.proposals import make_sampler

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parameters, rng = made(), random.Random(0)
    study = optuna.create_study(sampler=make_sampler(sampler, 0))
    for _ in range(8):
        trial = study.ask(parameters.distributions())
        values = parameters.values(parameters.rounded(trial.params))
        config = complete(values)
        assert parameters.hold(config)
        assert parameters.values(parameters.of(config)) == values
        study.tell(trial, rng.random())
    assert len({trial.params["guidance_cutoff in 0.2..1.0"] for trial in study.trials}) > 4
