"""selftest(): an A/A test: the baseline measured against itself, to see how noisy this machine is.

Each pair is two fresh processes of the same config, so every difference is noise. The false alarms of a comparison of
ROUNDS pairs are counted over all choices of ROUNDS of the measured pairs.
"""

import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution.probe import probe
from autotune.execution.runner import Runner
from autotune.execution.scratch import scratch
from autotune.frozen_model import FrozenModel
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.pipeline import Weights
from autotune.pipelines import resolve
from autotune.statistics.interleaved import Pair
from autotune.statistics.verdict import GAP, half_width, t_quantile
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Failure
from autotune.tuning.probe_space import default_prompts
from autotune.workload import request_workload

ROUNDS = 3  # pairs of a comparison: the default of a search's confirmation
MOST_CHOICES = 2000  # choices of ROUNDS pairs; where there are more, so many are drawn at random
POWER = 0.8  # a speedup is detectable if at least this share of the comparisons finds it
STEP = 0.0025  # speedups are tried in steps of this size, from STEP ...
LARGEST = 1.0  # ... to this gain, which is 2x


class SelfTest(FrozenModel):
    """Result of an A/A test: a latency for each process, two processes a pair; and what disturbed them."""

    device: str
    workload: str
    first_latency_s: tuple[float, ...]
    second_latency_s: tuple[float, ...]
    disturbed: dict[str, int]  # reason -> number of timed calls that were discarded for it
    noisy: int  # number of processes whose calls differ by more than a tenth
    calls: int  # number of timed calls that count, over all processes
    failed: tuple[str, ...] = ()  # why pairs are missing

    @property
    def logs(self) -> tuple[float, ...]:
        """The log of the latency ratio of each pair; 0 on a perfect machine."""
        pairs = zip(self.first_latency_s, self.second_latency_s, strict=True)
        return tuple(math.log(first / second) for first, second in pairs)

    @property
    def judged_different(self) -> tuple[int, ...]:
        """The outliers, as numbers from 0: beyond the 95 % interval of the other pairs, and beyond 1 %."""
        return tuple(i for i, log in enumerate(self.logs) if abs(log) > max(GAP, self._usual(i)))

    def _usual(self, left_out: int) -> float:
        others = [log for i, log in enumerate(self.logs) if i != left_out]
        return t_quantile(len(others)) * math.sqrt(statistics.fmean(log**2 for log in others))

    @property
    def worst(self) -> float:
        """The largest difference between the two processes of a pair, as a share of the latency."""
        return math.exp(max(map(abs, self.logs))) - 1

    @property
    def typical(self) -> float:
        """The median difference between the two processes of a pair, as a share of the latency."""
        return math.exp(statistics.median(map(abs, self.logs))) - 1

    @property
    def false_alarms(self) -> float:
        """The share of comparisons of ROUNDS pairs that call the config faster or slower than itself."""
        comparisons = list(_comparisons(self.logs))
        return sum(_says_different(logs) for logs in comparisons) / len(comparisons)

    @property
    def smallest_speedup(self) -> float | None:
        """The smallest speedup that a comparison of ROUNDS pairs detects in POWER of the cases; None: above 2x."""
        intervals = [(statistics.fmean(logs), half_width(logs)) for logs in _comparisons(self.logs)]
        for step in range(1, int(LARGEST / STEP) + 1):
            gain = math.log(1 + step * STEP)
            detected = sum(middle + gain - half > math.log(1 + GAP) for middle, half in intervals)
            if detected >= POWER * len(intervals):
                return 1 + step * STEP
        return None


def _comparisons(logs: Sequence[float]) -> Iterator[list[float]]:
    """Choices of ROUNDS pairs, at most MOST_CHOICES. A coin decides which process of a pair counts as the first."""
    rng = random.Random(0)
    choices = list(combinations(logs, ROUNDS))
    for chosen in choices if len(choices) <= MOST_CHOICES else rng.sample(choices, MOST_CHOICES):
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
    guidance: float | None = None,
    strength: float | None = None,
    frames: int | None = None,
    negative_prompt: str | None = None,
    call: Mapping[str, Any] | None = None,
    weights: Weights = "pretrained",
    device: str | None = None,
    timeout_s: float = 1800.0,
    listen: Callable[[int, float, float], None] = lambda number, first_s, second_s: None,
    **loaded: Any,
) -> SelfTest:
    """Measure the baseline of a pipeline against itself, `pairs` times, in fresh processes.

    pipeline   a preset, a hub id or a local folder
    pairs      pairs of processes, at least ROUNDS + 2
    steps      denoising steps of a call; None: the pipeline's default. Fewer steps make a shorter test
    size       (width, height) in pixels; None: the pipeline's default
    batch      pictures a call; None: 1
    weights    "pretrained", or "random": the full architecture with random weights
    device     "cuda", "cuda:N" or "cpu"; None: the first GPU, else the CPU
    timeout_s  the longest that a run may take
    listen     is called with (number of the pair from 1, its two latencies in seconds)
    loaded     task, controlnet, lora ..., see resolve()
    guidance, negative_prompt, call, frames  see Workload

    Raises UserError for input that can't be used, and where too many runs of the baseline fail.
    """
    if pairs < ROUNDS + 2:
        raise UserError(f"{pairs} pairs say too little: give --pairs {ROUNDS + 2} or more.")
    described = resolve(pipeline, weights, **loaded).model_copy(update={"scorer": None})
    with scratch("autotune-selftest-") as temporary:
        folder = StudyFolder(Path(temporary))
        prompts = default_prompts(described).first(1)
        how: dict[str, Any] = {"guidance": guidance, "negative_prompt": negative_prompt}
        how |= {"call": call, "strength": strength, "frames": frames}
        request = request_workload(prompts, steps=steps, size=size, batch=batch, **how)
        target = probe(folder.probe, described, find_device(device), request, timeout_s=timeout_s)
        runner = Runner(folder, target, timeout_s, isolation="spawn")  # as compare() does
        measured, failed = _measure_pairs(runner, folder, pairs, listen)
    if len(measured) < ROUNDS + 2:
        raise UserError(f"only {len(measured)} of {pairs} pairs could be measured ({failed[0]}).")
    return _result(target, measured, failed)


def _measure_pairs(
    runner: Runner, folder: StudyFolder, pairs: int, listen: Callable[[int, float, float], None]
) -> tuple[list[Pair], list[str]]:
    """The pairs of which both runs succeeded, and why the other runs failed."""
    measured, failed = list[Pair](), list[str]()
    for number in range(pairs):
        places = (folder.trial(2 * number), folder.trial(2 * number + 1))
        first, second = (runner.run(place, complete({}), pictures=False, earlier=()) for place in places)
        failed += [f"{run.cause}: {run.reason}" for run in (first, second) if isinstance(run, Failure)]
        if isinstance(first, Measurement) and isinstance(second, Measurement):
            measured.append((first, second))
            listen(number + 1, first.latency_s, second.latency_s)
    return measured, failed


def _result(target: Target, measured: Sequence[Pair], failed: Sequence[str]) -> SelfTest:
    runs = [run for pair in measured for run in pair]
    return SelfTest(
        device=target.device.name,
        workload=str(target.workload),
        first_latency_s=tuple(first.latency_s for first, _ in measured),
        second_latency_s=tuple(second.latency_s for _, second in measured),
        disturbed=dict(Counter(call.reason for run in runs for call in run.discarded)),
        noisy=sum(run.is_noisy for run in runs),
        calls=sum(len(run.latency_samples_s) for run in runs),
        failed=tuple(failed),
    )
