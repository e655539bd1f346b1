"""Importance of knobs: how much each decides whether a config is fast, as Optuna estimates."""

import warnings
from collections.abc import Sequence

import optuna
import optuna.importance
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.samplers import RandomSampler

from autotune.study.optuna_view import Parameters
from autotune.study.pareto_front import costs
from autotune.study.record import Record
from autotune.trial import Trial

LEAST_TRIALS = 20  # measured, before knobs are ranked
FASTEST_SHARE = 0.25  # of the trials count as fast. Optuna's default of a tenth is too few in a usual study


def importances(record: Record, trials: Sequence[Trial]) -> dict[str, float]:
    """Knob -> its share of what decides whether a config is among the fastest. The shares add up to 1.

    This is PED-ANOVA: an estimate from configs that differ in several knobs at once, not a measurement. Empty while too
    few trials were measured.
    """
    measured = [trial for trial in trials if trial.measured]
    free = {name: values for name, values in record.space.items() if len(values) > 1}
    if len(measured) < LEAST_TRIALS or not free:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    parameters = Parameters(free, record.ranges or {})
    spaces = parameters.distributions()
    for trial in measured:
        if parameters.hold(trial.config):  # false for a baseline outside the space
            params, value = parameters.of(trial.config), costs(trial)[0]
            study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=value))
    if len(study.trials) < LEAST_TRIALS:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        shares = optuna.importance.get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(target_quantile=FASTEST_SHARE)
        )
    # A knob's choice and its numbers are one knob. Optuna has sorted the shares, the largest first.
    by_knob = {name: sum(shares.get(each, 0.0) for each in parameters.names_of(name)) for name in free}
    return {name: by_knob[name] for name in sorted(by_knob, key=lambda name: -by_knob[name])}
