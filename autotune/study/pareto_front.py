"""The Pareto front of a study, and the one config to pick from it."""

from collections.abc import Callable, Iterable, Sequence

from autotune.goal import Goal, Minimise, Pick
from autotune.trial import Trial


def costs(trial: Trial, minimise: Minimise = "sum") -> tuple[float, ...]:
    """What a measured trial takes: latency in s, peak memory in bytes.

    Latency is of one call at each size of the workload, all together; with "each", a number a size, the main one first.
    It is what the trial would have taken when the baseline was measured, see drift.py.
    """
    mine = trial.measured
    if mine is None:
        raise ValueError(f"trial {trial.number} has no costs: it was not measured")
    latencies_s = mine.latencies_s if minimise == "each" else (mine.latency_s,)
    return *(latency_s / trial.drift for latency_s in latencies_s), float(mine.peak_memory_bytes)


def objectives(trial: Trial, baseline: Trial, minimise: Minimise = "sum") -> tuple[float, ...]:
    """What is minimised of a judged trial: its costs, and the quality loss."""
    mine, theirs = trial.judged, baseline.judged
    if mine is None or theirs is None or mine.quality is None or theirs.quality is None:
        raise ValueError(f"trial {trial.number} has no objectives: its pictures were not judged")
    return *costs(trial, minimise), mine.quality.loss(theirs.quality)


def pareto_front(trials: Iterable[Trial], baseline: Trial, minimise: Minimise = "sum") -> list[Trial]:
    """The judged trials that no other one beats in every objective, fastest first: the least sum over the sizes.

    Memory counts in whole MiB and quality loss in hundredths of a point: less is below what a run can tell apart.
    """
    scored = [(t, _rounded(objectives(t, baseline, minimise))) for t in trials if t.judged]
    front = [t for t, mine in scored if not any(_dominates(other, mine) for _, other in scored)]
    return sorted(front, key=lambda t: objectives(t, baseline))


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    *latencies_s, memory_bytes, loss = values
    return *latencies_s, round(memory_bytes / 2**20), round(loss, 2)


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def pick_trial(trials: Iterable[Trial], baseline: Trial, goal: Goal, how: Pick = "fastest") -> Trial | None:
    """The best trial of the front that keeps the goal's limits; None where none does.

    fastest: the least latency, summed over the workload's sizes (whatever the goal minimises).
    balanced: the least product of latency and memory, so that a tenth less of either counts the same.
    """
    # The limits come first: rounded, a config just over a limit can hide one just under it from the front.
    allowed = [t for t in trials if t.judged and keeps(t, baseline, goal)]
    kept = pareto_front(allowed, baseline, goal.minimise)
    keys: dict[Pick, Callable[[Trial], tuple[float, ...]]] = {
        "fastest": lambda t: objectives(t, baseline),
        "smallest": lambda t: objectives(t, baseline)[1::-1],
        "balanced": lambda t: (objectives(t, baseline)[0] * objectives(t, baseline)[1],),
    }
    return min(kept, key=keys[how], default=None)


def keeps(trial: Trial, baseline: Trial, goal: Goal) -> bool:
    """Does this judged trial keep every limit of the goal?"""
    return all(over <= 0 for over in violations(objectives(trial, baseline, goal.minimise), goal).values())


def violations(objectives: Sequence[float], goal: Goal) -> dict[str, float]:
    """Limit of the goal -> by which share these objectives overstep it."""
    *latencies_s, memory_bytes, loss = objectives
    return goal.violations(max(latencies_s), int(memory_bytes), loss)
