"""Latency: wall-clock seconds of whole calls, with the device synchronised before and after each.

The first call (it compiles, tunes kernels, fills caches) and the warm-up are kept apart from the timed calls.

When to stop follows nvbench's "stdrel" criterion (nvbench/detail/stdrel_criterion.cxx), which was made for kernels of
microseconds. It is adapted to whole calls: fewer samples are enough to know the noise; the budget counts the timed
calls only, not the pauses; a search stops once the median is known better than processes of one config agree
(autotune/reuse.py).
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from autotune.measure.disturbance import Disturbance, accepts_any
from autotune.measure.watch import Watch
from autotune.measurement import REJECTED, Discarded, spread
from autotune.statistics.drift import median_error

T = TypeVar("T")
Enough = Literal["spread", "plateau", "precision", "budget"]

WARMUP_CALLS = 3  # the warm-up ends when so many calls in a row ...
WARMUP_AGREES = 0.02  # ... differ by no more than this share of their median
WARMUP_MOST_CALLS = 10

LEAST_CALLS = 5  # timed calls, however few the prompts; fewer don't tell the noise
QUIET = 0.005  # noise: the standard deviation over the mean
QUIET_AFTER_S = 0.5  # of timed calls
PLATEAU_CALLS = 16  # the noise is on a plateau if over so many calls ...
PLATEAU = 0.05  # ... its standard deviation over its mean is smaller than this
BUDGET_S = 10.0  # of timed calls, beyond those whose results are kept
BUSY_BUDGET_S = 1.0  # where noise is accepted: a machine that is never idle never gets quiet
BUDGET_CALLS = 100
PRECISE_CALLS = 10  # fewer calls don't tell the error of their median, nor that they scatter by more than REJECTED

PAUSE_S, PAUSE_GROWS, PAUSE_MOST_S = 0.05, 1.5, 0.5  # after a discarded sample, as nvbench pauses


class NoCleanSamples(Exception):
    """The device was disturbed for too long to time it. `why` becomes the cause of the Failure."""

    def __init__(self, why: Literal["throttled", "contended", "noisy"], reason: str) -> None:
        super().__init__(f"{reason}; AUTOTUNE_BUSY=accept accepts such timings")
        self.why, self.reason = why, reason


@dataclass(frozen=True)
class Sampled(Generic[T]):
    """The timed calls."""

    samples_s: tuple[float, ...]  # seconds of each undisturbed call
    discarded: tuple[Discarded, ...]
    stopped_by: Enough | Literal["race"]
    results: tuple[T, ...]  # of the calls whose results are kept, in order; fewer after "race"


def synchronise(device: str) -> None:
    """Wait until the device has finished all its work."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def timed(call: Callable[[], T], device: str) -> tuple[float, T]:
    """Returns (seconds, result of the call)."""
    synchronise(device)
    start = time.perf_counter()
    result = call()
    synchronise(device)
    return time.perf_counter() - start, result


def warm_up(call: Callable[[], object], device: str, budget_s: float | None = None) -> list[float]:
    """Call until WARMUP_CALLS in a row agree, at most WARMUP_MOST_CALLS times. Returns the seconds of each call.

    budget_s  seconds after which no call is added to the first WARMUP_CALLS; None: no limit
    """
    seconds: list[float] = []
    while len(seconds) < WARMUP_MOST_CALLS:
        seconds.append(timed(call, device)[0])
        last = seconds[-WARMUP_CALLS:]
        if len(last) == WARMUP_CALLS and max(last) - min(last) <= WARMUP_AGREES * statistics.median(last):
            break
        if budget_s is not None and len(seconds) >= WARMUP_CALLS and sum(seconds) >= budget_s:
            break
    return seconds


def sample(
    call: Callable[[int], T],
    watch: Watch,
    *,
    keep: int,
    device: str,
    dominated: Callable[[Sequence[float]], bool] | None = None,
    precision: float = 0.0,
    budget_s: float | None = None,
    patience_s: float = 0.0,
) -> Sampled[T]:
    """Time call(0), call(1) ... until their noise is known, at least LEAST_CALLS of them.

    watch      tells which calls were disturbed; these are timed again, though their results are kept
    keep       return the results of calls 0 to keep - 1, and time at least as many
    device     torch's name of the device
    dominated  called once, with the seconds of the first calls: LEAST_CALLS, or as many as it takes until they scatter
               by less than REJECTED. True ends the timing ("race")
    precision  the standard error of the median, as a share of it, that is good enough
    budget_s   seconds of calls beyond those that are kept; None: BUDGET_S
    patience_s where NoCleanSamples would be raised within so many seconds, all calls are discarded and taken again: a
               new process would need as long to get here

    Where the watch says that the device has settled in another state, the calls so far don't count. Raises
    NoCleanSamples where more calls are disturbed than clean, or where the clean ones scatter by more than REJECTED.
    """
    began, discarded = time.perf_counter(), list[Discarded]()
    while True:
        watch.start()
        sampling = _Sampling(call, watch, keep, device, dominated, precision, budget_s)
        try:
            stopped_by = sampling.run()
        except NoCleanSamples as error:
            if time.perf_counter() - began >= patience_s:
                raise
            discarded += sampling.all_discarded(error)
            dominated = sampling.dominated  # None where it was called
            continue
        results = tuple(sampling.results[number] for number in range(keep) if number in sampling.results)
        return Sampled(tuple(sampling.samples_s), (*discarded, *sampling.discarded), stopped_by, results)


def enough(
    samples_s: Sequence[float],
    noises: Sequence[float],
    least: int,
    *,
    precision: float = 0.0,
    budget_s: float = BUDGET_S,
) -> Enough | None:
    """Why no more samples are needed; None: more are needed.

    noises     noise() of the first n samples, for each n from LEAST_CALLS on
    least      time at least so many calls
    precision  the standard error of the median, as a share of it, that is good enough
    budget_s   seconds of calls beyond the first `least`, the next call included
    """
    if len(samples_s) < least or (len(samples_s) < PRECISE_CALLS and scattered(samples_s)):
        return None
    if sum(samples_s) >= QUIET_AFTER_S:
        if noises[-1] < QUIET:
            return "spread"
        last = noises[-PLATEAU_CALLS:]
        if len(last) == PLATEAU_CALLS and statistics.stdev(last) < PLATEAU * statistics.fmean(last):
            return "plateau"
        if len(samples_s) >= PRECISE_CALLS and median_error(samples_s) < precision:
            return "precision"
    extra_s = sum(samples_s[least:]) + statistics.median(samples_s)  # with the next call
    return "budget" if extra_s > budget_s or len(samples_s) >= BUDGET_CALLS else None


def scattered(samples_s: Sequence[float]) -> bool:
    """Do so many of these calls differ that no latency is to be told by them?"""
    return spread(samples_s) > REJECTED and not accepts_any()


def noise(samples_s: Sequence[float]) -> float:
    """Standard deviation over the mean."""
    return statistics.stdev(samples_s) / statistics.fmean(samples_s)


def calls_needed(samples_s: Sequence[float], keep: int = 0, precision: float = 0.0) -> int:
    """How many of these calls sample() would have timed with this `keep` and this precision."""
    noises: list[float] = []
    for count in range(LEAST_CALLS, len(samples_s)):
        noises.append(noise(samples_s[:count]))
        if enough(samples_s[:count], noises, max(keep, LEAST_CALLS), precision=precision):
            return count
    return len(samples_s)


class _Sampling(Generic[T]):
    """The samples so far."""

    def __init__(
        self,
        call: Callable[[int], T],
        watch: Watch,
        keep: int,
        device: str,
        dominated: Callable[[Sequence[float]], bool] | None,
        precision: float,
        budget_s: float | None,
    ) -> None:
        self.call, self.watch, self.device, self.dominated, self.precision = call, watch, device, dominated, precision
        self.budget_s = BUDGET_S if budget_s is None else budget_s
        self.keep, self.least = keep, max(keep, LEAST_CALLS)
        self.samples_s: list[float] = []
        self.discarded: list[Discarded] = []
        self.results: dict[int, T] = {}
        self.noises: list[float] = []  # after each sample from the LEAST_CALLS-th on
        self.settled_after = 0  # of `discarded`: those of the state that the device has left for good
        self.pause_s = PAUSE_S

    def run(self) -> Enough | Literal["race"]:
        """Take calls until they are enough. What has ended it. Raises NoCleanSamples."""
        while (stopped_by := self.stopped_by()) is None:
            self.take()
        if scattered(self.samples_s):
            scatter = spread(self.samples_s)
            calls = f"the interquartile range of {len(self.samples_s)} calls is {scatter:.0%} of their median"
            raise NoCleanSamples("noisy", f"the times scatter: {calls}, more than the limit of {REJECTED:.0%}")
        return stopped_by

    def all_discarded(self, error: NoCleanSamples) -> list[Discarded]:
        """Every call so far. The clean ones, too, are discarded for the error's reason."""
        clean = [Discarded(latency_s=sample_s, why=error.why, reason=error.reason) for sample_s in self.samples_s]
        return [*self.discarded, *clean]

    def stopped_by(self) -> Enough | Literal["race"] | None:
        """What ends the timing; None: nothing so far."""
        if self.dominated is not None and len(self.samples_s) >= LEAST_CALLS and not scattered(self.samples_s):
            dominated, self.dominated = self.dominated, None  # called once: repeated tests would find it by chance
            if dominated(self.samples_s):
                return "race"
        budget_s = min(BUSY_BUDGET_S, self.budget_s) if accepts_any() else self.budget_s
        return enough(self.samples_s, self.noises, self.least, precision=self.precision, budget_s=budget_s)

    def take(self) -> None:
        """Time one more call, or as many as the watch needs to judge them."""
        seconds: list[float] = []
        self.watch.begin()
        while not seconds or sum(seconds) < self.watch.window_s:
            number = len(self.samples_s) + len(seconds)
            taken_s, result = timed(lambda number=number: self.call(number), self.device)  # type: ignore[misc]
            seconds.append(taken_s)
            if number < self.keep:
                self.results.setdefault(number, result)
        disturbance = self.watch.end(sum(seconds))
        if disturbance is None:
            self._accept(seconds)
        else:
            self._discard(seconds, disturbance)

    def _accept(self, seconds: list[float]) -> None:
        self.pause_s = PAUSE_S
        for sample_s in seconds:
            self.samples_s.append(sample_s)
            if len(self.samples_s) >= LEAST_CALLS:
                self.noises.append(noise(self.samples_s))

    def _discard(self, seconds: list[float], disturbance: Disturbance) -> None:
        """Raises NoCleanSamples when more calls were disturbed than clean."""
        why, reason, settled = disturbance
        discarded = [*self.samples_s, *seconds] if settled else seconds
        self.discarded += [Discarded(latency_s=sample_s, why=why, reason=reason) for sample_s in discarded]
        if settled:
            self.samples_s, self.noises, self.settled_after = [], [], len(self.discarded)
        disturbed = len(self.discarded) - self.settled_after
        if disturbed > max(self.least, len(self.samples_s)):
            count = f"{disturbed} of {disturbed + len(self.samples_s)} timed calls were disturbed"
            raise NoCleanSamples(why, f"{count}, most recently because {reason}")
        time.sleep(self.pause_s)
        self.pause_s = min(self.pause_s * PAUSE_GROWS, PAUSE_MOST_S)
