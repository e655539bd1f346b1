"""AutoSampler for a study: candidates, knobs that can't change the quality, the memory limit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from autotune.config import Config
from autotune.sampler import AutoSampler, Ceiling, TransferredTrial
from autotune.study.candidates import Candidates
from autotune.study.optuna_view import Parameters
from autotune.study.record import Record, Untried
from autotune.study.reuse_plan import changes_the_picture, distrusted_knobs
from autotune.study.space import SearchSpace
from autotune.trial import Trial


def make_auto_sampler(
    record: Record,
    candidates: Candidates,
    trials: Sequence[Trial],
    tried: set[Config],
    seed: int,
    earlier: Callable[[], Sequence[Sequence[TransferredTrial]]],
    pending: Callable[[], Sequence[Mapping[str, Any]]] = lambda: (),
) -> AutoSampler:
    """The sampler of a new study, or of one that goes on.

    trials   of the study so far
    tried    configs that are not proposed: the set of the study itself, which grows
    earlier  returns the trials of earlier studies; called only when there is a baseline
    pending  returns the parameters of the trials that run now
    """

    def untried_params(best: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        return candidates.params(tried, best)

    memory, limit = record.latencies, record.memory_limit_bytes
    hit = _ran_out_of_memory if record.target.device.is_gpu else _never
    return AutoSampler(
        seed=seed,
        candidates=untried_params,
        irrelevant=irrelevant_knobs(record, candidates.space, trials),
        fails_count=False,
        earlier=earlier,
        pending=pending,
        ceilings={memory: Ceiling(limit, hit, "max_vram")} if limit else None,
        primary=range(record.latencies),  # the fastest config that keeps the limits is picked
        cost="seconds",  # a user attribute, see optuna_view.py
        conditions=candidates.parameters.conditions,
    )


def irrelevant_knobs(record: Record, space: SearchSpace, trials: Sequence[Trial]) -> dict[int | str, list[str]]:
    """Objective or constraint -> the parameters of the knobs without effect on it.

    Knobs that don't change the picture have no effect on the quality, unless the trials show that they do.
    """
    distrusted = distrusted_knobs(trials)
    idle = [name for name in space.free if not changes_the_picture(name, {}, distrusted)]
    parameters = Parameters(space.free, space.ranges)
    irrelevant = [parameter for name in idle for parameter in parameters.names_of(name)]
    limited = ["max_worst_place"] if record.goal.max_worst_place_levels is not None else []
    return dict.fromkeys([record.latencies + 1, "max_quality_drop", *limited], irrelevant)


def untried(sampler: AutoSampler, record: Record, measured: int) -> Untried | None:
    """The configs that the last proposal left out, because they are predicted not to fit in memory. None: none.

    measured  the number of trials that the prediction is made from
    """
    excluded, limit = sampler.excluded.get(record.latencies), record.memory_limit_bytes
    if excluded is None or limit is None:
        return None
    return Untried(
        count=excluded.count, of=excluded.of, limit_bytes=limit, least_bytes=int(excluded.least), trials=measured
    )


def _ran_out_of_memory(trial: FrozenTrial) -> bool:
    """Did this Optuna trial fail for lack of GPU memory? Then its config needs more than the GPU has."""
    attributes = trial.user_attrs
    return bool(attributes.get("outcome") == "out_of_memory" and attributes.get("memory") != "host")


def _never(trial: FrozenTrial) -> bool:
    """On a CPU no trial is held to the limit, and one may run out of memory because other processes use it."""
    return False
