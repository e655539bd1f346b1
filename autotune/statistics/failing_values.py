"""Failing values: those of which every trial has failed for the same reason, so that none is tried again."""

import re
from collections.abc import Mapping, Sequence, Set

from autotune.config import Value
from autotune.frozen_model import FrozenModel
from autotune.trial import NOT_THE_CONFIG, Cause, Failure, Trial

FAILURES = 2  # for the same reason, after which a value is not tried again
# Causes for which more than one value of the config is to blame, as another value of another knob would make room or
# save time, those that say nothing of the config, and the one that names the value itself.
NOT_ONE_VALUE: frozenset[Cause] = NOT_THE_CONFIG | {"out_of_memory", "timeout", "environment", "no_effect", "bad_input"}
VARYING = re.compile(r"0x[0-9a-f]+|(?<!\w)(/[\w.@+-]+)+|\d+([.,]\d+)*(e[-+]?\d+)?", re.IGNORECASE)


class FailingValue(FrozenModel):
    """A value of a knob that has failed in every trial that had it, for the same reason.

    trials  their numbers
    reason  of the first of them
    """

    knob: str
    value: Value
    trials: tuple[int, ...]
    cause: Cause
    reason: str

    def __str__(self) -> str:
        first, last = ", ".join(map(str, self.trials[:-1])), self.trials[-1]
        return f"{self.knob}={self.value} failed alike in trials {first} and {last} ({self.cause}: {self.reason})"


def failing_values(
    trials: Sequence[Trial], defaults: Mapping[str, Value], among: Trial | None = None
) -> list[FailingValue]:
    """The values that have failed in every trial, for the same reason, and are alone to blame.

    Values at their default and those of trial 0 are not to blame. Of the others, such trials must have this one alone
    in common: otherwise another one, or the pair, may be to blame, which further trials show.

    defaults  knob -> its default, which is never blamed
    among     only values of this trial; None: of any
    """
    telling = [trial for trial in trials if trial.measured or _kind(trial) is not None]
    works = {pair for trial in telling if trial.measured for pair in trial.values.items()}
    plain = {*defaults.items(), *(trials[0].values.items() if trials else ())}
    suspects = {pair for trial in ([among] if among else telling) for pair in trial.values.items()} - works - plain
    found = []
    for knob, value in sorted(suspects, key=str):
        failed = [trial for trial in telling if trial.values.get(knob) == value]
        outcome, alike = failed[0].outcome if failed else None, len({_kind(trial) for trial in failed}) == 1
        if not alike or not isinstance(outcome, Failure):
            continue
        if not in_common(failed, plain | {(knob, value)}) and len(failed) >= FAILURES:
            numbers = tuple(trial.number for trial in failed)
            of = outcome.cause, outcome.reason
            found.append(FailingValue(knob=knob, value=value, trials=numbers, cause=of[0], reason=of[1]))
    return found


def in_common(trials: Sequence[Trial], plain: Set[tuple[str, Value]]) -> Set[tuple[str, Value]]:
    """The (knob, value) pairs, but for these, that all of the trials have: each may be why they ended as they did."""
    return set.intersection(*(set(trial.values.items()) for trial in trials)) - plain


def _kind(trial: Trial) -> tuple[str, str] | None:
    """What failures for the same reason have in common: all but numbers, addresses and paths; None: nothing."""
    failure = trial.outcome
    if not isinstance(failure, Failure) or failure.cause in NOT_ONE_VALUE:
        return None
    return failure.cause, VARYING.sub("#", failure.reason)
