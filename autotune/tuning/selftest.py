"""selftest(): the baseline against itself (an A/A test). How far can this machine be trusted today?

Each pair is two fresh processes of the same config, so that every difference that shows is noise. What a comparison of
`rounds` pairs would have said is read off all choices of so many of the pairs that were measured.
"""

import math
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution.probe import probe
from autotune.execution.runner import Runner
from autotune.frozen_model import FrozenModel
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.pipeline import Weights
from autotune.pipelines import resolve
from autotune.statistics.verdict import GAP, half_width, t_quantile
from autotune.study_folder import StudyFolder
from autotune.trial import Failure
from autotune.tuning.probe_space import default_prompts
from autotune.workload import request_workload

ROUNDS = 3  # of the comparisons that are judged: the search's default
MOST_CHOICES = 2000  # of pairs; more than these are drawn at random
POWER = 0.8  # a speedup is seen if this share of the comparisons call it one
FINEST = 0.0025  # steps in which the smallest speedup is looked for
LARGEST = 1.0


class SelfTest(FrozenModel):
    """What was measured: a latency for each process, two of them a pair, and what stood in the way."""

    device: str
    workload: str
    first_latency_s: tuple[float, ...]
    second_latency_s: tuple[float, ...]
    disturbed: dict[str, int]  # calls that were thrown away -> how many, by the reason
    noisy: int  # processes whose calls differ by more than a tenth
    calls: int  # timed and kept, all processes together
    failed: tuple[str, ...] = ()  # why a pair is missing

    @property
    def logs(self) -> tuple[float, ...]:
        """The log ratio of each pair; 0 is what a perfect machine shows."""
        return tuple(math.log(a / b) for a, b in zip(self.first_latency_s, self.second_latency_s, strict=True))

    @property
    def judged_different(self) -> tuple[int, ...]:
        """The pairs (from 0) that stand out: beyond the 95 % interval that the other pairs draw, and beyond 1 %."""
        return tuple(i for i, log in enumerate(self.logs) if abs(log) > max(GAP, self._usual(i)))

    def _usual(self, left_out: int) -> float:
        others = [log for i, log in enumerate(self.logs) if i != left_out]
        return t_quantile(len(others)) * math.sqrt(statistics.fmean(log**2 for log in others))

    @property
    def worst(self) -> float:
        """The largest difference within a pair, as a share."""
        return math.exp(max(map(abs, self.logs))) - 1

    @property
    def typical(self) -> float:
        return math.exp(statistics.median(map(abs, self.logs))) - 1

    @property
    def false_alarms(self) -> float:
        """The share of comparisons of ROUNDS pairs that would have called equals different."""
        seen = list(_comparisons(self.logs))
        return sum(_says_different(logs) for logs in seen) / len(seen)

    @property
    def smallest_speedup(self) -> float | None:
        """The smallest speedup that a comparison of ROUNDS pairs calls one in POWER of the cases; None: over 2x."""
        seen = [(statistics.fmean(logs), half_width(logs)) for logs in _comparisons(self.logs)]
        for step in range(1, int(LARGEST / FINEST) + 1):
            gain = math.log(1 + step * FINEST)
            found = sum(middle + gain - half > math.log(1 + GAP) for middle, half in seen)
            if found >= POWER * len(seen):
                return 1 + step * FINEST
        return None


def _comparisons(logs: Sequence[float]) -> Iterator[list[float]]:
    """All choices of ROUNDS pairs, or MOST_CHOICES of them; which side of a pair is called first is a coin's choice."""
    rng = random.Random(0)
    every = list(combinations(logs, ROUNDS))
    for chosen in every if len(every) <= MOST_CHOICES else rng.sample(every, MOST_CHOICES):
        yield [log * rng.choice((-1, 1)) for log in chosen]


def _says_different(logs: Sequence[float]) -> bool:
    middle, half = statistics.fmean(logs), half_width(logs)
    return middle - half > math.log(1 + GAP) or middle + half < -math.log(1 + GAP)


def selftest(
    pipeline: str = "demo",
    *,
    pairs: int = 20,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    weights: Weights = "pretrained",
    device: str | None = None,
    timeout_s: float = 1800.0,
    listen: Callable[[int, float, float], None] = lambda number, first_s, second_s: None,
) -> SelfTest:
    """Measure the baseline of a pipeline against itself so many times, in fresh processes.

    steps, size, batch  of the workload, where it is not the pipeline's own: fewer steps make a shorter test
    listen  hears (number of the pair from 1, its two latencies)

    Raises UserError for input that can't be used, and where the baseline can't be measured at all.
    """
    if pairs < ROUNDS + 2:
        raise UserError(f"{pairs} pairs say too little: give --pairs {ROUNDS + 2} or more.")
    described = resolve(pipeline, weights).model_copy(update={"scorer": None})
    with tempfile.TemporaryDirectory(prefix="autotune-selftest-") as temporary:
        folder = StudyFolder(Path(temporary))
        prompts = default_prompts(described).first(1)
        request = request_workload(prompts, steps=steps, size=size, batch=batch)
        target = probe(folder.probe, described, find_device(device), request)
        runner = Runner(folder, target, timeout_s, isolation="spawn")  # as compare() does
        found, failed = list[tuple[Measurement, Measurement]](), list[str]()
        for number in range(pairs):
            both = [_measure(runner, folder, number, side) for side in (0, 1)]
            failed += [f"{one.cause}: {one.reason}" for one in both if isinstance(one, Failure)]
            first, second = both
            if isinstance(first, Measurement) and isinstance(second, Measurement):
                found.append((first, second))
                listen(number + 1, first.latency_s, second.latency_s)
    if len(found) < ROUNDS + 2:
        raise UserError(f"only {len(found)} of {pairs} pairs could be measured ({failed[0]}).")
    return _result(target.device.name, str(target.workload), found, failed)


def _measure(runner: Runner, folder: StudyFolder, number: int, side: int) -> Measurement | Failure:
    return runner.run(folder.trial(2 * number + side), complete({}), pictures=False, earlier=())


def _result(
    device: str, workload: str, found: Sequence[tuple[Measurement, Measurement]], failed: Sequence[str]
) -> SelfTest:
    both = [one for pair in found for one in pair]
    return SelfTest(
        device=device,
        workload=workload,
        first_latency_s=tuple(first.latency_s for first, _ in found),
        second_latency_s=tuple(second.latency_s for _, second in found),
        disturbed=dict(Counter(gone.reason for one in both for gone in one.discarded)),
        noisy=sum(one.is_noisy for one in both),
        calls=sum(len(one.latency_samples_s) for one in both),
        failed=tuple(failed),
    )
