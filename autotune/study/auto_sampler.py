"""Our sampler for a study: told which knobs don't change the picture, what memory there is, and what is allowed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autotune.config import Config
from autotune.sampler import AutoSampler, Ceiling, Earlier
from autotune.study.candidates import Candidates
from autotune.study.record import Record, Untried
from autotune.study.reuse_plan import changes_the_picture, found_out
from autotune.study.space import SearchSpace
from autotune.trial import Trial


def our_sampler(
    record: Record,
    pool: Candidates,
    trials: Sequence[Trial],
    tried: set[Config],
    seed: int,
    earlier: Callable[[], Sequence[Sequence[Earlier]]],
) -> AutoSampler:
    """It chooses from the pool, less what was tried: a set that grows with the study.

    trials   of the study so far, where it goes on
    earlier  what it is told of earlier studies, asked for once there is a baseline
    """

    def choices(best: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        return pool.params(tried, best)

    memory, limit = record.latencies, record.memory_limit_bytes
    hit = _ran_out if record.target.device.kind == "cuda" else _is_anybody_s
    return AutoSampler(
        seed=seed,
        pool=choices,
        silent=silent(record, pool.space, trials),
        fails_count=False,
        earlier=earlier,
        ceilings={memory: Ceiling(limit, hit, "max_vram")} if limit else None,
        primary=range(record.latencies),  # the fastest that keeps the limits is picked
        cost="seconds",  # see optuna_view.py
    )


def silent(record: Record, space: SearchSpace, trials: Sequence[Trial]) -> dict[int | str, list[str]]:
    """What has no effect on the quality: what doesn't change the picture, and was not found out here."""
    distrusted = found_out(trials)
    mute = [name for name in space.free if not changes_the_picture(name, {}, distrusted)]
    return {record.latencies + 1: mute, "max_quality_drop": mute}


def untried(sampler: AutoSampler, record: Record, measured: int) -> Untried | None:
    """What the sampler left alone when it was asked last, because it is predicted not to fit. None: nothing.

    measured  trials that it predicted from
    """
    beyond, limit = sampler.beyond.get(record.latencies), record.memory_limit_bytes
    if beyond is None or limit is None:
        return None
    return Untried(count=beyond.count, of=beyond.of, limit_bytes=limit, least_bytes=int(beyond.least), trials=measured)


def _ran_out(trial: Any) -> bool:
    """Did an Optuna trial of ours fail for lack of the GPU's memory? Then its config needs more than there is."""
    return bool(trial.user_attrs.get("outcome") == "out_of_memory")


def _is_anybody_s(trial: Any) -> bool:
    """On a CPU no trial is held to the limit, and who runs out may have had little, beside others that had much."""
    return False
