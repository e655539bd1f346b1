"""The Pareto front of a study, and the config that is picked from it."""

from collections.abc import Callable, Iterable, Sequence

from autotune.goal import Goal, Minimise, Pick
from autotune.trial import Trial


def costs(trial: Trial, minimise: Minimise = "sum") -> tuple[float, ...]:
    """(latency in s, peak memory in bytes) of a measured trial. Raises ValueError if it was not measured.

    The latency is of one call at each size of the workload, summed. With "each" there is a latency for each size, the
    main one first. Latencies are divided by the drift: they are what the trial would have taken when the baseline was
    measured (statistics/drift.py).
    """
    measured = trial.measured
    if measured is None:
        raise ValueError(f"trial {trial.number} has no costs: it was not measured")
    latencies_s = measured.latencies_s if minimise == "each" else (measured.latency_s,)
    return *(latency_s / trial.drift for latency_s in latencies_s), float(measured.peak_memory_bytes)


def objectives(trial: Trial, baseline: Trial, minimise: Minimise = "sum") -> tuple[float, ...]:
    """What is minimised: the costs of a trial, then its quality loss in the metric's units.

    Raises ValueError if the pictures of one of the two were not judged.
    """
    judged, reference = trial.judged, baseline.judged
    if judged is None or reference is None or judged.quality is None or reference.quality is None:
        raise ValueError(f"trial {trial.number} has no objectives: its pictures were not judged")
    return *costs(trial, minimise), judged.quality.loss(reference.quality)


def pareto_front(trials: Iterable[Trial], baseline: Trial, minimise: Minimise = "sum") -> list[Trial]:
    """The judged trials that no other one dominates, ordered by the latency summed over the sizes.

    Memory counts in whole MiB and quality loss in hundredths of a point: a run can't tell smaller differences apart.
    """
    scored = [(t, _rounded(objectives(t, baseline, minimise))) for t in trials if t.judged]
    front = [t for t, own in scored if not any(_dominates(other, own) for _, other in scored)]
    return sorted(front, key=lambda t: objectives(t, baseline))


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    *latencies_s, memory_bytes, loss = values
    return *latencies_s, round(memory_bytes / 2**20), round(loss, 2)


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def pick_trial(trials: Iterable[Trial], baseline: Trial, goal: Goal, how: Pick = "fastest") -> Trial | None:
    """The best trial of the front that keeps the goal's limits; None if none does.

    fastest   the smallest latency, summed over the workload's sizes (whatever the goal minimises)
    smallest  the smallest peak memory
    balanced  the smallest product of latency and memory: a tenth less of either counts the same
    """
    # Limits first: the front rounds, so a config just over a limit could hide one just under it.
    allowed = [t for t in trials if t.judged and keeps(t, baseline, goal)]
    front = pareto_front(allowed, baseline, goal.minimise)
    keys: dict[Pick, Callable[[Trial], tuple[float, ...]]] = {
        "fastest": lambda t: objectives(t, baseline),
        "smallest": lambda t: objectives(t, baseline)[1::-1],
        "balanced": lambda t: (objectives(t, baseline)[0] * objectives(t, baseline)[1],),
    }
    return min(front, key=keys[how], default=None)


def keeps(trial: Trial, baseline: Trial, goal: Goal) -> bool:
    """Does this judged trial keep every limit of the goal?"""
    own = objectives(trial, baseline, goal.minimise)
    return all(over <= 0 for over in violations(own, goal, worst_place_levels(trial), host_bytes(trial)).values())


def worst_place_levels(trial: Trial) -> float | None:
    """The difference to the baseline's pictures at the worst place of the trial's; None: not known."""
    quality = trial.measured.quality if trial.measured else None
    return quality.worst_place_levels if quality else None


def host_bytes(trial: Trial) -> int | None:
    """The peak of the host's memory that the trial's process took; None: not known."""
    host = trial.measured.host if trial.measured else None
    return host.peak_bytes if host else None


def violations(
    objectives: Sequence[float], goal: Goal, worst_place: float | None = None, host_bytes: int | None = None
) -> dict[str, float]:
    """Limit of the goal -> by which share these objectives exceed it; 0 or less: it is kept."""
    *latencies_s, memory_bytes, loss = objectives
    return goal.violations(max(latencies_s), int(memory_bytes), loss, worst_place, host_bytes)
