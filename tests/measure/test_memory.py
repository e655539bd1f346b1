"""Peak memory of a CPU is this process's own, by phase, above what it was before."""

import numpy as np

from autotune.measure.memory import ResidentMeter, meter_for

MIB = 2**20


def touch(mib: int) -> np.ndarray:
    return np.ones(mib * MIB, dtype=np.uint8)


def test_a_peak_is_seen_although_it_is_over_when_it_is_asked_for() -> None:
    meter = ResidentMeter()
    meter.start("load")
    block = touch(300)
    del block
    meter.stop()
    assert 290 * MIB < meter.peaks["load"] < 400 * MIB


def test_each_phase_has_a_peak_of_its_own() -> None:
    meter = ResidentMeter()
    meter.start("load")
    block = touch(300)
    del block
    meter.start("run")
    small = touch(50)
    meter.stop()
    assert small.size
    assert meter.peaks["run"] < 150 * MIB < meter.peaks["load"]


def test_what_was_there_before_is_not_counted() -> None:
    before = touch(300)
    meter = ResidentMeter()
    meter.start("run")
    meter.stop()
    assert before.size
    assert meter.peaks["run"] < 50 * MIB


def test_a_cpu_is_measured_by_its_resident_memory() -> None:
    assert isinstance(meter_for("cpu"), ResidentMeter)
