"""Slowdown: whether a GPU's throttling is its steady state, which is measured, or changes, which spoils the timing.

A passively cooled T4 runs under SwThermalSlowdown for as long as it works, a power-limited card at a lower clock than
when it was cool: production sees nothing else. Such a state shows in calls that take the same time at the same clock.
"""

from collections.abc import Sequence
from typing import NamedTuple

from autotune.measure.disturbance import Disturbance

LEAST_CLOCK = 0.75  # of the highest clock of the kept samples (nvbench's throttle threshold)
THERMAL_SHARE = 0.01  # of a sample's time: a shorter slowdown can't change it by more than this
SLOWDOWNS = ("HwSlowdown", "SwThermal", "HwThermal", "HwPowerBrake")
STEADY_SAMPLES = 5  # a state is steady if so many samples in a row ...
STEADY = 0.05  # ... differ by no more than this share of their median, in clock and in seconds


class State(NamedTuple):
    """The GPU during one sample."""

    reasons: frozenset[str]
    thermal_s: float  # under a thermal limit, by NVML's counter
    sm_clock_mhz: float | None  # mean; None: not known
    seconds: float  # that the sample took


class Slowdowns:
    """Judges the samples of one series in turn. `steady`: the slowed-down state that the series is in, if it is."""

    def __init__(self) -> None:
        self.steady: tuple[State, ...] = ()
        self._recent: list[State] = []
        self._best_mhz = 0.0

    def judge(self, state: State) -> Disturbance | None:
        """What is wrong with this sample; None: it can be kept.

        Where a slowed-down state turns out to be steady, the Disturbance says `settled`: this sample and those before
        do not count, those that follow do.
        """
        if self.steady:
            if _alike([*self.steady, state]):
                return None
            return Disturbance("throttled", f"the GPU left the slowed-down state that it was in: {_clock(state)}")
        self._recent = [*self._recent, state][-STEADY_SAMPLES:]
        slowed = self._slowed(state)
        if slowed is None:
            self._best_mhz = max(self._best_mhz, state.sm_clock_mhz or 0.0)
            return None
        if len(self._recent) == STEADY_SAMPLES and _alike(self._recent):
            self.steady = tuple(self._recent)
            return Disturbance("throttled", f"{slowed}, and stays in that state", settled=True)
        return Disturbance("throttled", slowed)

    def _slowed(self, state: State) -> str | None:
        reasons = [reason for reason in SLOWDOWNS if reason in state.reasons]
        if reasons:
            return f"the GPU slowed itself down: {', '.join(reasons)}"
        if state.thermal_s > THERMAL_SHARE * state.seconds:
            return f"heat held the GPU's clocks down for {state.thermal_s:.3f} s"
        clock = state.sm_clock_mhz
        if clock is not None and clock < LEAST_CLOCK * self._best_mhz:
            return f"the GPU ran at {clock:.0f} MHz, {clock / self._best_mhz:.0%} of its best"
        return None


def _clock(state: State) -> str:
    clock = "unknown clock" if state.sm_clock_mhz is None else f"{state.sm_clock_mhz:.0f} MHz"
    return f"{clock}, {state.seconds:.3f} s"


def _alike(states: Sequence[State]) -> bool:
    """Do these samples agree in clock, where it is known, and in seconds?"""
    clocks = [state.sm_clock_mhz for state in states if state.sm_clock_mhz is not None]
    return _close(clocks) and _close([state.seconds for state in states])


def _close(values: Sequence[float]) -> bool:
    if not values:
        return True
    middle = sorted(values)[len(values) // 2]
    return max(values) - min(values) <= STEADY * middle
