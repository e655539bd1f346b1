"""Is the GPU at itself? Asked of NVML before, during and after each sample.

Integrals where there are any (the time spent below its clocks by thermal limits, the energy counter), polls otherwise.
SwPowerCap is usual at full load: it is recorded. Slowdowns by heat or by a brake on the power are not the config's.

Energy is indicative only: the sensors of the A100 and the H100 look a quarter of the time (arXiv 2312.02741), the
counter moves about ten times a second, and whoever runs on a warm GPU draws more.
"""

import os
import statistics
import threading
import time
from typing import Any, NamedTuple

from autotune.measure.disturbance import Disturbance, accepts_any
from autotune.measure.nvml import Card
from autotune.measurement import Health

POLL_S = 0.08  # 12 times a second; the call that is timed shares the interpreter with us
LEAST_CLOCK = 0.75  # of the reference (nvbench's throttle threshold)
OTHERS_GROWTH_BYTES = 256 * 2**20
OTHERS_UTILISATION = 5  # per cent of the multiprocessors' time
THERMAL_SHARE = 0.01  # of a sample: what is shorter can't move it by more
SLOWDOWNS = ("HwSlowdown", "SwThermal", "HwThermal", "HwPowerBrake")
REASONS = {  # our word -> NVML's constant nvmlClocksThrottleReason...
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
    reasons: int  # bits
    sm_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None


class _Counters(NamedTuple):
    """What only grows, at one moment; None: not told."""

    thermal_s: float | None
    power_cap_s: float | None
    energy_j: float | None


class _Seen(NamedTuple):
    """A sample as the card lived through it."""

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
    window_s = 0.0  # NVML needs no long look: every sample is judged by itself

    def __init__(self, device: str) -> None:
        """`device` is torch's name of a GPU. Raises pynvml.NVMLError where NVML doesn't know it."""
        self._device, self._card = device, Card(device)
        nvml = self._card.nvml
        self._bits = {word: getattr(nvml, f"nvmlClocksThrottleReason{name}") for word, name in REASONS.items()}
        self._max_clock = self._card.ask("MaxClockInfo", nvml.NVML_CLOCK_SM)
        self._others_before: dict[int | None, int] | None = None
        self._begun_at_us, self._before = 0, _Counters(None, None, None)
        self._polls: list[_Poll] = []
        self._kept: list[_Seen] = []

    def begin(self) -> None:
        if self._others_before is None:  # not before the first sample: by then our own memory has stopped growing
            self._others_before = self._others()
        self._before, self._begun_at_us, self._polls = self._counters(), time.time_ns() // 1000, []
        self._ended = threading.Event()
        self._poller = threading.Thread(target=self._poll_until_ended, daemon=True)
        self._poller.start()

    def end(self, seconds: float) -> Disturbance | None:
        self._ended.set()
        self._poller.join()
        if not self._polls:  # a short sample
            self._polls.append(self._poll())
        seen = self._look_back()
        disturbance = None if accepts_any() else self._throttled(seen, seconds) or self._contended(seen)
        if disturbance is None:
            self._kept.append(seen)
        return disturbance

    def health(self) -> Health:
        others = [seen.others_bytes for seen in self._kept if seen.others_bytes is not None]
        return Health(
            load_average=os.getloadavg()[0],
            sm_clock_mhz=_mean(seen.sm_clock_mhz for seen in self._kept),
            sm_clock_max_mhz=self._max_clock,
            temperature_c=max((s.temperature_c for s in self._kept if s.temperature_c is not None), default=None),
            power_w=_mean(seen.power_w for seen in self._kept),
            throttle_reasons=tuple(sorted({word for seen in self._kept for word in seen.reasons})),
            others_memory_bytes=max(others, default=None),
            not_told=tuple(sorted(self._card.not_told)),
        )

    def energy_j(self) -> float | None:
        known = [seen.energy_j for seen in self._kept if seen.energy_j is not None]
        return sum(known) if known and len(known) == len(self._kept) else None

    def _throttled(self, seen: _Seen, seconds: float) -> Disturbance | None:
        slowed = [word for word in SLOWDOWNS if word in seen.reasons]
        if slowed:
            return Disturbance("throttled", f"the GPU slowed itself down: {', '.join(slowed)}")
        if seen.thermal_s > THERMAL_SHARE * seconds:
            return Disturbance("throttled", f"heat held the GPU's clocks down for {seen.thermal_s:.3f} s")
        reference = max((s.sm_clock_mhz for s in self._kept if s.sm_clock_mhz is not None), default=None)
        clock = seen.sm_clock_mhz
        if clock is not None and reference is not None and clock < LEAST_CLOCK * reference:
            return Disturbance("throttled", f"the GPU ran at {clock:.0f} MHz, {clock / reference:.0%} of before")
        return None

    def _contended(self, seen: _Seen) -> Disturbance | None:
        if seen.growth_bytes > OTHERS_GROWTH_BYTES:
            return Disturbance("contended", f"others took {seen.growth_bytes / 2**20:.0f} MiB more of the GPU's memory")
        if seen.utilisation > OTHERS_UTILISATION:
            return Disturbance("contended", f"another process used {seen.utilisation:.0f}% of the GPU")
        return None

    def _look_back(self) -> _Seen:
        """All that was seen since `begin`."""
        after, others = self._counters(), self._others()
        before = self._others_before or {}
        reasons = {word for word, bit in self._bits.items() if any(poll.reasons & bit for poll in self._polls)}
        if _grown(self._before.power_cap_s, after.power_cap_s):
            reasons.add("SwPowerCap")
        energy_known = self._before.energy_j is not None and after.energy_j is not None
        return _Seen(
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
        ask, nvml = self._card.ask, self._card.nvml
        reasons = ask("CurrentClocksEventReasons")
        if reasons is None:  # an older driver's name for the same
            reasons = ask("CurrentClocksThrottleReasons")
        idle = bool((reasons or 0) & nvml.nvmlClocksThrottleReasonGpuIdle)  # a low clock then says nothing
        clock = None if idle else ask("ClockInfo", nvml.NVML_CLOCK_SM)
        power_mw = ask("PowerUsage")
        temperature = ask("Temperature", nvml.NVML_TEMPERATURE_GPU)
        return _Poll(reasons or 0, clock, temperature, None if power_mw is None else power_mw / 1e3)

    def _counters(self) -> _Counters:
        nvml = self._card.nvml
        thermal, power = (
            self._card.ask("ViolationStatus", policy)
            for policy in (nvml.NVML_PERF_POLICY_THERMAL, nvml.NVML_PERF_POLICY_POWER)
        )
        energy_mj = self._card.ask("TotalEnergyConsumption")
        return _Counters(
            None if thermal is None else thermal.violationTime / 1e9,
            None if power is None else power.violationTime / 1e9,
            None if energy_mj is None else energy_mj / 1e3,
        )

    def _others(self) -> dict[int | None, int]:
        """Process id -> bytes on the card, of every process but ours.

        Where NVML doesn't know us by our own number (in a container) nobody can be told apart: then, under None,
        everything on the card beyond what our allocator holds. Its growth is others' all the same.
        """
        import torch

        known, reserved = self._card.processes(), torch.cuda.memory_reserved(self._device)
        if _knows_us(known, reserved):
            return {pid: held for pid, held in known.items() if pid != os.getpid()}
        used = self._card.used_bytes()
        return {None: 0 if used is None else used - reserved}

    def _others_utilisation(self) -> float:
        """Of the busiest other process since `begin`, per cent; 0 where NVML doesn't know which one is us."""
        try:
            samples = self._card.nvml.nvmlDeviceGetProcessUtilization(self._card.handle, self._begun_at_us)
        except self._card.nvml.NVMLError as error:
            if error.value not in (self._card.nvml.NVML_SUCCESS, self._card.nvml.NVML_ERROR_NOT_FOUND):
                self._card.not_told.add("ProcessUtilization")
            return 0.0  # found none since then
        if None in self._others():
            return 0.0
        by_process: dict[int, list[int]] = {}
        for one in samples:
            by_process.setdefault(one.pid, []).append(one.smUtil)
        return max((statistics.fmean(u) for pid, u in by_process.items() if pid != os.getpid()), default=0.0)


def _knows_us(processes: dict[int, int], reserved_bytes: int) -> bool:
    """Is our number among them, and really ours? In a container another's on the host may be the same."""
    held = processes.get(os.getpid())
    return held is not None and (held == 0 or held >= reserved_bytes)


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _grown(before: float | None, after: float | None) -> float:
    return after - before if before is not None and after is not None else 0.0
