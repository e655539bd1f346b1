"""GPU watch: whether throttling or other processes disturbed the GPU during a timed call, as NVML tells it.

NVML is queried before, during and after each sample. Counters are used where NVML has them (time under a thermal
limit, energy), polls otherwise. Slowdowns by heat or by a power brake are disturbances. SwPowerCap is usual at full
load, so it is only recorded.

Energy is indicative only: the power sensors of the A100 and the H100 measure a quarter of the time (arXiv 2312.02741),
the counter changes about ten times a second, and a warm GPU draws more power.
"""

import os
import statistics
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from autotune.measure.disturbance import Disturbance, accepts_any
from autotune.measure.nvml import Card
from autotune.measurement import Health

POLL_S = 0.08  # 12 times a second; the poller shares the interpreter with the timed call
LEAST_CLOCK = 0.75  # of the highest clock of the kept samples (nvbench's throttle threshold)
OTHERS_GROWTH_BYTES = 256 * 2**20
OTHERS_UTILISATION = 5  # per cent of the multiprocessors' time
THERMAL_SHARE = 0.01  # of a sample's time: a shorter slowdown can't change it by more than this
SLOWDOWNS = ("HwSlowdown", "SwThermal", "HwThermal", "HwPowerBrake")
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

    reasons: frozenset[str]
    thermal_s: float
    energy_j: float | None
    sm_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    others_bytes: int | None
    growth_bytes: int
    utilisation: float  # of the busiest other process, per cent


class GpuWatch:
    """Watches one GPU by NVML."""

    window_s = 0.0  # each call is judged by itself, however short

    def __init__(self, device: str) -> None:
        """`device` is torch's name of a GPU. Raises pynvml.NVMLError where NVML doesn't know it."""
        self._device, self._card = device, Card(device)
        nvml = self._card.nvml
        self._bits = {name: getattr(nvml, f"nvmlClocksThrottleReason{suffix}") for name, suffix in REASONS.items()}
        self._max_clock = self._card.query("MaxClockInfo", nvml.NVML_CLOCK_SM)
        self._others_before: dict[int | None, int] | None = None
        self._started_at_us, self._before = 0, _Counters(None, None, None)
        self._polls: list[_Poll] = []
        self._kept: list[_Observed] = []

    def begin(self) -> None:
        if self._others_before is None:  # at the first sample, when this process's memory no longer grows
            self._others_before = self._others()
        self._before, self._started_at_us, self._polls = self._counters(), time.time_ns() // 1000, []
        self._ended = threading.Event()
        self._poller = threading.Thread(target=self._poll_until_ended, daemon=True)
        self._poller.start()

    def end(self, seconds: float) -> Disturbance | None:
        self._ended.set()
        self._poller.join()
        if not self._polls:  # the sample was shorter than POLL_S
            self._polls.append(self._poll())
        observed = self._observe()
        disturbance = None if accepts_any() else self._throttled(observed, seconds) or self._contended(observed)
        if disturbance is None:
            self._kept.append(observed)
        return disturbance

    def health(self) -> Health:
        others = [sample.others_bytes for sample in self._kept if sample.others_bytes is not None]
        return Health(
            load_average=os.getloadavg()[0],
            sm_clock_mhz=_mean(sample.sm_clock_mhz for sample in self._kept),
            sm_clock_max_mhz=self._max_clock,
            temperature_c=max((s.temperature_c for s in self._kept if s.temperature_c is not None), default=None),
            power_w=_mean(sample.power_w for sample in self._kept),
            throttle_reasons=tuple(sorted({reason for sample in self._kept for reason in sample.reasons})),
            others_memory_bytes=max(others, default=None),
            not_told=tuple(sorted(self._card.not_told)),
        )

    def energy_j(self) -> float | None:
        known = [sample.energy_j for sample in self._kept if sample.energy_j is not None]
        return sum(known) if known and len(known) == len(self._kept) else None

    def _throttled(self, observed: _Observed, seconds: float) -> Disturbance | None:
        slowdowns = [reason for reason in SLOWDOWNS if reason in observed.reasons]
        if slowdowns:
            return Disturbance("throttled", f"the GPU slowed itself down: {', '.join(slowdowns)}")
        if observed.thermal_s > THERMAL_SHARE * seconds:
            return Disturbance("throttled", f"heat held the GPU's clocks down for {observed.thermal_s:.3f} s")
        reference = max((s.sm_clock_mhz for s in self._kept if s.sm_clock_mhz is not None), default=None)
        clock = observed.sm_clock_mhz
        if clock is not None and reference is not None and clock < LEAST_CLOCK * reference:
            return Disturbance("throttled", f"the GPU ran at {clock:.0f} MHz, {clock / reference:.0%} of its best")
        return None

    def _contended(self, observed: _Observed) -> Disturbance | None:
        if observed.growth_bytes > OTHERS_GROWTH_BYTES:
            mebibytes = observed.growth_bytes / 2**20
            return Disturbance("contended", f"others took {mebibytes:.0f} MiB more of the GPU's memory")
        if observed.utilisation > OTHERS_UTILISATION:
            return Disturbance("contended", f"another process used {observed.utilisation:.0f}% of the GPU")
        return None

    def _observe(self) -> _Observed:
        """The card since begin()."""
        after, others = self._counters(), self._others()
        before = self._others_before or {}
        reasons = {reason for reason, bit in self._bits.items() if any(poll.reasons & bit for poll in self._polls)}
        if _grown(self._before.power_cap_s, after.power_cap_s):
            reasons.add("SwPowerCap")
        energy_known = self._before.energy_j is not None and after.energy_j is not None
        return _Observed(
            reasons=frozenset(reasons),
            thermal_s=_grown(self._before.thermal_s, after.thermal_s),
            energy_j=_grown(self._before.energy_j, after.energy_j) if energy_known else None,
            sm_clock_mhz=_mean(poll.sm_clock_mhz for poll in self._polls),
            temperature_c=max((p.temperature_c for p in self._polls if p.temperature_c is not None), default=None),
            power_w=_mean(poll.power_w for poll in self._polls),
            others_bytes=None if None in others else sum(others.values()),
            growth_bytes=max((now - before.get(who, 0) for who, now in others.items()), default=0),
            utilisation=self._others_utilisation(),
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

    def _others(self) -> dict[int | None, int]:
        """Process id -> bytes on the card, of each process but this one.

        In a container NVML may list this process by another id, so that others can't be told from it. Then the only
        key is None, with all bytes on the card outside this process's allocator. Their growth still comes from others.
        """
        import torch

        known, reserved = self._card.processes(), torch.cuda.memory_reserved(self._device)
        if _lists_this_process(known, reserved):
            return {pid: held for pid, held in known.items() if pid != os.getpid()}
        used = self._card.used_bytes()
        return {None: 0 if used is None else used - reserved}

    def _others_utilisation(self) -> float:
        """Of the busiest other process since begin(), per cent; 0 where others can't be told from this process."""
        try:
            samples = self._card.nvml.nvmlDeviceGetProcessUtilization(self._card.handle, self._started_at_us)
        except self._card.nvml.NVMLError as error:
            if error.value not in (self._card.nvml.NVML_SUCCESS, self._card.nvml.NVML_ERROR_NOT_FOUND):
                self._card.not_told.add("ProcessUtilization")
            return 0.0  # NVML has no sample since begin()
        if None in self._others():
            return 0.0
        by_process: dict[int, list[int]] = {}
        for sample in samples:
            by_process.setdefault(sample.pid, []).append(sample.smUtil)
        return max((statistics.fmean(u) for pid, u in by_process.items() if pid != os.getpid()), default=0.0)


def _lists_this_process(processes: dict[int, int], reserved_bytes: int) -> bool:
    """Is this process's id listed, and does it mean this process? In a container it may be a host process's id."""
    held = processes.get(os.getpid())
    return held is not None and (held == 0 or held >= reserved_bytes)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _grown(before: float | None, after: float | None) -> float:
    return after - before if before is not None and after is not None else 0.0
