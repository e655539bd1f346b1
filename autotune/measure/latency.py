"""Latency: the wall clock around whole calls, with the device synchronised on both sides.

Calls before the steady state are kept apart: the first (it compiles, tunes kernels, fills caches) and the warm-up.
How long to go on is nvbench's rule (its "stdrel" criterion, nvbench/detail/stdrel_criterion.cxx), made for kernels of
microseconds; adapted to whole calls: the noise is known from fewer samples, the budget is not a wall clock's, and where
processes of one config differ by more than the median's error, a search need not know it better (see reuse.py).
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

WARMUP_CALLS = 3  # so many in a row ...
WARMUP_AGREES = 0.02  # ... that differ by no more than this share of their median are steady
WARMUP_MOST_CALLS = 10

LEAST_CALLS = 5  # timed calls, whatever the number of prompts; the noise is not known from fewer
QUIET = 0.005  # standard deviation over the mean
QUIET_AFTER_S = 0.5  # of timed calls
PLATEAU_CALLS = 16  # the noise has not changed over so many calls ...
PLATEAU = 0.05  # ... by more than this: standard deviation of the noise over its mean
BUDGET_S = 10.0  # of timed calls beyond those that are wanted anyway
BUSY_BUDGET_S = 1.0  # where the noise is accepted: a machine that is never idle never gets quiet
BUDGET_CALLS = 100
PRECISE_CALLS = 10  # so many at least, before the error of their median is believed

PAUSE_S, PAUSE_GROWS, PAUSE_MOST_S = 0.05, 1.5, 0.5  # after a discarded sample, as nvbench pauses


class NoCleanSamples(Exception):
    """The device was not at itself for long enough to be timed. `why` is the cause of the Failure that it becomes."""

    def __init__(self, why: Literal["throttled", "contended", "noisy"], reason: str) -> None:
        super().__init__(f"{reason}; AUTOTUNE_BUSY=accept would take such numbers")
        self.why = why


@dataclass(frozen=True)
class Sampled(Generic[T]):
    samples_s: tuple[float, ...]
    discarded: tuple[Discarded, ...]
    stopped_by: Enough | Literal["race"]
    made: tuple[T, ...]  # what the wanted calls returned, in their order; after a race, those that were made by then


def synchronise(device: str) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def timed(call: Callable[[], T], device: str) -> tuple[float, T]:
    """(seconds, what the call returned)."""
    synchronise(device)
    start = time.perf_counter()
    result = call()
    synchronise(device)
    return time.perf_counter() - start, result


def warm_up(call: Callable[[], object], device: str) -> list[float]:
    """Call until WARMUP_CALLS in a row agree, at most WARMUP_MOST_CALLS times. Returns every call's seconds."""
    seconds: list[float] = []
    while len(seconds) < WARMUP_MOST_CALLS:
        seconds.append(timed(call, device)[0])
        last = seconds[-WARMUP_CALLS:]
        if len(last) == WARMUP_CALLS and max(last) - min(last) <= WARMUP_AGREES * statistics.median(last):
            break
    return seconds


def sample(
    call: Callable[[int], T],
    watch: Watch,
    *,
    wanted: int,
    device: str,
    dominated: Callable[[Sequence[float]], bool] | None = None,
    precision: float = 0.0,
) -> Sampled[T]:
    """Time `call(0)`, `call(1)` ... on a device that is at itself: LEAST_CALLS at least, and all that are wanted.

    A disturbed call is timed again; what it returned is good all the same. `dominated` is asked once, as soon as there
    are LEAST_CALLS: where it says so, they are all. Raises NoCleanSamples where more calls are disturbed than clean, or
    where the clean ones scatter by more than REJECTED.

    precision  the standard error of the median, as a share of it, that is good enough
    """
    sampling = _Sampling(call, watch, wanted, device, dominated, precision)
    while (stopped_by := sampling.stopped_by()) is None:
        sampling.take()
    scatter = spread(sampling.samples_s)
    if scatter > REJECTED and not accepts_any():
        calls = f"the interquartile range of {len(sampling.samples_s)} calls is {scatter:.0%} of their median"
        raise NoCleanSamples("noisy", f"the times scatter: {calls}, and {REJECTED:.0%} is too much")
    made = tuple(sampling.made[number] for number in range(wanted) if number in sampling.made)
    return Sampled(tuple(sampling.samples_s), tuple(sampling.discarded), stopped_by, made)


def enough(
    samples_s: Sequence[float],
    noises: Sequence[float],
    least: int,
    *,
    precision: float = 0.0,
    budget_s: float = BUDGET_S,
) -> Enough | None:
    """Why no more samples are needed, None where they are. `noises`: see noise(), after each sample that has one."""
    if len(samples_s) < least:
        return None
    if sum(samples_s) >= QUIET_AFTER_S:
        if noises[-1] < QUIET:
            return "spread"
        last = noises[-PLATEAU_CALLS:]
        if len(last) == PLATEAU_CALLS and statistics.stdev(last) < PLATEAU * statistics.fmean(last):
            return "plateau"
        if len(samples_s) >= PRECISE_CALLS and median_error(samples_s) < precision:
            return "precision"
    beyond_s = sum(samples_s[least:]) + statistics.median(samples_s)  # with the next call
    return "budget" if beyond_s > budget_s or len(samples_s) >= BUDGET_CALLS else None


def noise(samples_s: Sequence[float]) -> float:
    """Standard deviation over the mean; known from the LEAST_CALLS-th sample on."""
    return statistics.stdev(samples_s) / statistics.fmean(samples_s)


def calls_needed(samples_s: Sequence[float], wanted: int = 0, precision: float = 0.0) -> int:
    """How many of these calls would have been timed, had so many been wanted, and no better precision."""
    noises: list[float] = []
    for count in range(LEAST_CALLS, len(samples_s)):
        noises.append(noise(samples_s[:count]))
        if enough(samples_s[:count], noises, max(wanted, LEAST_CALLS), precision=precision):
            return count
    return len(samples_s)


class _Sampling(Generic[T]):
    """The samples so far, and whether they are enough."""

    def __init__(
        self,
        call: Callable[[int], T],
        watch: Watch,
        wanted: int,
        device: str,
        dominated: Callable[[Sequence[float]], bool] | None,
        precision: float,
    ) -> None:
        self.call, self.watch, self.device, self.dominated, self.precision = call, watch, device, dominated, precision
        self.wanted, self.least = wanted, max(wanted, LEAST_CALLS)
        self.samples_s: list[float] = []
        self.discarded: list[Discarded] = []
        self.made: dict[int, T] = {}
        self.noises: list[float] = []  # standard deviation over the mean, after each sample from the LEAST_CALLS-th on
        self.pause_s = PAUSE_S

    def stopped_by(self) -> Enough | Literal["race"] | None:
        """None: go on."""
        if self.dominated is not None and len(self.samples_s) >= LEAST_CALLS:
            ask, self.dominated = self.dominated, None  # asked again and again, chance would say so at last
            if ask(self.samples_s):
                return "race"
        budget_s = BUSY_BUDGET_S if accepts_any() else BUDGET_S
        return enough(self.samples_s, self.noises, self.least, precision=self.precision, budget_s=budget_s)

    def take(self) -> None:
        """One call more, or as many as the watch needs to judge them."""
        seconds: list[float] = []
        self.watch.begin()
        while not seconds or sum(seconds) < self.watch.window_s:
            number = len(self.samples_s) + len(seconds)
            taken_s, result = timed(lambda number=number: self.call(number), self.device)  # type: ignore[misc]
            seconds.append(taken_s)
            if number < self.wanted:
                self.made.setdefault(number, result)
        disturbance = self.watch.end(sum(seconds))
        if disturbance is None:
            self._keep(seconds)
        else:
            self._discard(seconds, disturbance)

    def _keep(self, seconds: list[float]) -> None:
        self.pause_s = PAUSE_S
        for one in seconds:
            self.samples_s.append(one)
            if len(self.samples_s) >= LEAST_CALLS:
                self.noises.append(noise(self.samples_s))

    def _discard(self, seconds: list[float], disturbance: Disturbance) -> None:
        """Raises NoCleanSamples where there is no hope left."""
        why, reason = disturbance
        self.discarded += [Discarded(latency_s=one, why=why, reason=reason) for one in seconds]
        if len(self.discarded) > max(self.least, len(self.samples_s)):
            count = f"{len(self.discarded)} of {len(self.discarded) + len(self.samples_s)} timed calls were disturbed"
            raise NoCleanSamples(why, f"{count}, lastly as {reason}")
        time.sleep(self.pause_s)
        self.pause_s = min(self.pause_s * PAUSE_GROWS, PAUSE_MOST_S)
