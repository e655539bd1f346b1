"""The Pareto front of a study, and the one config to pick from it."""

from collections.abc import Callable, Iterable, Sequence

from autotune.goal import Goal, Pick
from autotune.trial import Trial


def objectives(trial: Trial, baseline: Trial) -> tuple[float, float, float]:
    """(latency in s, peak memory in bytes, quality loss) of a measured trial; all three are minimised."""
    mine, theirs = trial.measured, baseline.measured
    if mine is None or theirs is None or mine.quality is None or theirs.quality is None:
        raise ValueError(f"trial {trial.number} has no objectives: it was not measured")
    return mine.latency_s, float(mine.peak_memory_bytes), mine.quality.loss(theirs.quality)


def pareto_front(trials: Iterable[Trial], baseline: Trial) -> list[Trial]:
    """The measured trials that no other one beats in every objective, fastest first.

    Memory counts in whole MiB and quality loss in hundredths of a point: less is below what a run can tell apart.
    """
    scored = [(t, _rounded(objectives(t, baseline))) for t in trials if t.measured]
    front = [t for t, mine in scored if not any(_dominates(other, mine) for _, other in scored)]
    return sorted(front, key=lambda t: objectives(t, baseline))


def _rounded(values: tuple[float, float, float]) -> tuple[float, float, float]:
    return values[0], round(values[1] / 2**20), round(values[2], 2)


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def pick_trial(trials: Iterable[Trial], baseline: Trial, goal: Goal, how: Pick = "fastest") -> Trial | None:
    """The best trial of the front that keeps the goal's limits; None where none does.

    balanced: the least product of latency and memory, so that a tenth less of either counts the same.
    """
    # The limits come first: rounded, a config just over a limit can hide one just under it from the front.
    kept = pareto_front((t for t in trials if t.measured and keeps(t, baseline, goal)), baseline)
    keys: dict[Pick, Callable[[Trial], tuple[float, ...]]] = {
        "fastest": lambda t: objectives(t, baseline),
        "smallest": lambda t: objectives(t, baseline)[1::-1],
        "balanced": lambda t: (objectives(t, baseline)[0] * objectives(t, baseline)[1],),
    }
    return min(kept, key=keys[how], default=None)


def keeps(trial: Trial, baseline: Trial, goal: Goal) -> bool:
    """Does this measured trial keep every limit of the goal?"""
    latency_s, memory_bytes, loss = objectives(trial, baseline)
    return all(over <= 0 for over in goal.violations(latency_s, int(memory_bytes), loss).values())
