"""GPU watch: whether throttling or other processes disturbed the GPU during a timed call, as NVML or amdsmi tells it.

NVML is queried before, during and after each sample. Counters are used where NVML has them (time under a thermal
limit, energy), polls otherwise. Slowdowns by heat or by a power brake are disturbances unless they are steady, see
slowdown.py. SwPowerCap is usual at full load, so it is only recorded. Each size of the workload is a series of samples
of its own, because a larger one is slower, hotter and takes more memory.

Energy is indicative only: the power sensors of the A100 and the H100 measure a quarter of the time (arXiv 2312.02741),
the counter changes about ten times a second, and a warm GPU draws more power.
"""

import statistics
import threading
from collections.abc import Iterable
from typing import NamedTuple

from autotune.devices.amd_card import AmdCard
from autotune.measure.disturbance import Disturbance, accepts_any
from autotune.measure.nvml import Card
from autotune.measure.others_gpu import OthersOnGpu, Use, disturbance_by
from autotune.measure.slowdown import Slowdowns, State
from autotune.measure.watch_cpu import HostLoad, kept_waiting
from autotune.measurement import Health

POLL_S = 0.08  # 12 times a second; the poller shares the interpreter with the timed call
REASONS = {  # name in throttle_reasons -> NVML's constant nvmlClocksThrottleReason...
    "ApplicationsClocks": "ApplicationsClocksSetting",
    "SwPowerCap": "SwPowerCap",
    "HwSlowdown": "HwSlowdown",
    "SyncBoost": "SyncBoost",
    "SwThermal": "SwThermalSlowdown",
    "HwThermal": "HwThermalSlowdown",
    "HwPowerBrake": "HwPowerBrakeSlowdown",
    "DisplayClocks": "DisplayClockSetting",
}


class _Poll(NamedTuple):
    """The card at one moment; None: not known."""

    reasons: int  # bits
    sm_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None


class _Counters(NamedTuple):
    """Counters that only grow, at one moment; None: not known."""

    thermal_s: float | None
    power_cap_s: float | None
    energy_j: float | None


class _Observed(NamedTuple):
    """The card during one sample."""

    state: State
    energy_j: float | None
    temperature_c: float | None
    power_w: float | None
    others: Use


class GpuWatch:
    """Watches one GPU by its counters, and the processor that launches its work."""

    window_s = 0.0  # each call is judged by itself, however short

    def __init__(self, device: str, card: Card | AmdCard) -> None:
        """`device` is torch's name of the GPU, `card` its counters.

        Make it before this process puts work on the GPU: what others use by then is their usual load.
        """
        self._card = card
        nvml = self._card.nvml
        self._bits = {name: getattr(nvml, f"nvmlClocksThrottleReason{suffix}") for name, suffix in REASONS.items()}
        self._max_clock = self._card.query("MaxClockInfo", nvml.NVML_CLOCK_SM)
        self._others, self._host = OthersOnGpu(self._card, device), HostLoad()
        self._before = _Counters(None, None, None)
        self._polls: list[_Poll] = []
        self.start()

    def start(self) -> None:
        self._slowdowns = Slowdowns()
        self._kept: list[_Observed] = []
        self._others.start()
        self._host.start()

    def begin(self) -> None:
        self._others.begin()
        self._before, self._polls = self._counters(), []
        self._ended = threading.Event()
        self._poller = threading.Thread(target=self._poll_until_ended, daemon=True)
        self._poller.start()
        self._host.begin()

    def end(self, seconds: float) -> Disturbance | None:
        host = self._host.end()
        self._ended.set()
        self._poller.join()
        if not self._polls:  # the sample was shorter than POLL_S
            self._polls.append(self._poll())
        observed = self._observe(seconds)
        throttled = self._slowdowns.judge(observed.state)
        disturbance = throttled or disturbance_by(observed.others) or kept_waiting(host)
        if throttled and throttled.settled:
            self._kept = []
            self._host.start()
        if disturbance is None or accepts_any():
            self._kept.append(observed)
            self._host.keep(host)
            return None
        return disturbance

    def health(self) -> Health:
        kept = self._kept
        host = self._host.health()
        others = [sample.others.held_bytes for sample in kept if sample.others.held_bytes is not None]
        return host.model_copy(
            update={
                "sm_clock_mhz": _mean(sample.state.sm_clock_mhz for sample in kept),
                "sm_clock_max_mhz": self._max_clock,
                "temperature_c": max((s.temperature_c for s in kept if s.temperature_c is not None), default=None),
                "power_w": _mean(sample.power_w for sample in kept),
                "throttle_reasons": tuple(sorted({reason for sample in kept for reason in sample.state.reasons})),
                "slowed_steadily": bool(self._slowdowns.steady),
                "others_memory_bytes": max(others, default=None),
                "others_utilisation": _mean(sample.others.utilisation for sample in kept),
                "not_told": tuple(sorted(self._card.not_told)),
            }
        )

    def energy_j(self) -> float | None:
        known = [sample.energy_j for sample in self._kept if sample.energy_j is not None]
        return sum(known) if known and len(known) == len(self._kept) else None

    def _observe(self, seconds: float) -> _Observed:
        """The card since begin()."""
        after = self._counters()
        reasons = {reason for reason, bit in self._bits.items() if any(poll.reasons & bit for poll in self._polls)}
        if _grown(self._before.power_cap_s, after.power_cap_s):
            reasons.add("SwPowerCap")
        thermal_s = _grown(self._before.thermal_s, after.thermal_s)
        energy_known = self._before.energy_j is not None and after.energy_j is not None
        return _Observed(
            state=State(frozenset(reasons), thermal_s, _mean(poll.sm_clock_mhz for poll in self._polls), seconds),
            energy_j=_grown(self._before.energy_j, after.energy_j) if energy_known else None,
            temperature_c=max((p.temperature_c for p in self._polls if p.temperature_c is not None), default=None),
            power_w=_mean(poll.power_w for poll in self._polls),
            others=self._others.end(),
        )

    def _poll_until_ended(self) -> None:
        while not self._ended.wait(POLL_S):
            self._polls.append(self._poll())

    def _poll(self) -> _Poll:
        query, nvml = self._card.query, self._card.nvml
        reasons = query("CurrentClocksEventReasons")
        if reasons is None:  # older drivers know it by this name
            reasons = query("CurrentClocksThrottleReasons")
        idle = bool((reasons or 0) & nvml.nvmlClocksThrottleReasonGpuIdle)  # an idle GPU lowers its clock
        clock = None if idle else query("ClockInfo", nvml.NVML_CLOCK_SM)
        power_mw = query("PowerUsage")
        temperature = query("Temperature", nvml.NVML_TEMPERATURE_GPU)
        return _Poll(reasons or 0, clock, temperature, None if power_mw is None else power_mw / 1e3)

    def _counters(self) -> _Counters:
        nvml = self._card.nvml
        thermal, power = (
            self._card.query("ViolationStatus", policy)
            for policy in (nvml.NVML_PERF_POLICY_THERMAL, nvml.NVML_PERF_POLICY_POWER)
        )
        energy_mj = self._card.query("TotalEnergyConsumption")
        return _Counters(
            None if thermal is None else thermal.violationTime / 1e9,
            None if power is None else power.violationTime / 1e9,
            None if energy_mj is None else energy_mj / 1e3,
        )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _grown(before: float | None, after: float | None) -> float:
    return after - before if before is not None and after is not None else 0.0
