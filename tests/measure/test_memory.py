"""Peak memory of a CPU is this process's own, by phase, above what it was before; of a GPU, what the process holds.

Each figure of the CPU is taken in a fresh process, as every measurement is: in this one, what earlier tests have left
may be given back to the system in the middle of a phase. The GPU is one that is not there, see tests/machines.py.
"""

import json
import os
import subprocess
import sys

import machines
import pytest
from machines import Card, FakeCuda

from autotune.measure.memory import CudaMeter, ResidentMeter, cap, meter_for
from autotune.worker.classify import classify

MIB = 2**20


def peaks(story: str) -> dict[str, int]:
    """The peaks of a process that does what `story` says; `touch(n)` makes n MiB resident."""
    script = f"""
import json, numpy
from autotune.measure.memory import ResidentMeter
touch = lambda mib: numpy.ones(mib * {MIB}, dtype=numpy.uint8)
touch(1)
{story}
print(json.dumps({{phase: peak.device_bytes for phase, peak in meter.peaks.items()}}))
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    seen: dict[str, int] = json.loads(done.stdout)
    return seen


def test_a_peak_is_seen_although_it_is_over_when_it_is_asked_for() -> None:
    seen = peaks("meter = ResidentMeter(); meter.start('load'); block = touch(300); del block; meter.stop()")
    assert 290 * MIB < seen["load"] < 330 * MIB


def test_each_phase_has_a_peak_of_its_own() -> None:
    seen = peaks(
        "meter = ResidentMeter(); meter.start('load'); block = touch(300); del block\n"
        "meter.start('run'); small = touch(50); meter.stop()"
    )
    assert seen["run"] < 100 * MIB < 290 * MIB < seen["load"]


def test_what_was_there_before_is_not_counted() -> None:
    seen = peaks("before = touch(300); meter = ResidentMeter(); meter.start('run'); meter.stop()")
    assert seen["run"] < 50 * MIB


def test_a_cpu_is_measured_by_its_resident_memory() -> None:
    assert isinstance(meter_for("cpu"), ResidentMeter)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> tuple[Card, FakeCuda]:
    cuda = machines.h100().install(monkeypatch)[1]
    return cuda.card(), cuda


@pytest.mark.parametrize("container", [False, True])
def test_promise_11_a_gpus_peaks_are_of_tensors_allocator_and_device(
    gpu: tuple[Card, FakeCuda], container: bool
) -> None:
    """The device's is what the allocator held and the context beside it, whether NVML knows us by our number or not."""
    card, cuda = gpu
    card.listed_as = None if container else os.getpid()
    meter = meter_for("cuda:0")
    assert isinstance(meter, CudaMeter)
    meter.start("load")
    cuda.allocate(1000 * MIB, keep=True)
    cuda.allocate(2000 * MIB)
    meter.start("run")
    cuda.allocate(300 * MIB)
    meter.stop()
    load, run = meter.peaks["load"], meter.peaks["run"]
    assert (load.allocated_bytes, load.reserved_bytes, load.device_bytes) == (3000 * MIB, 3000 * MIB, 3500 * MIB)
    assert (run.allocated_bytes, run.reserved_bytes, run.device_bytes) == (1300 * MIB, 3000 * MIB, 3500 * MIB)


def test_promise_11_what_others_held_before_is_not_ours(gpu: tuple[Card, FakeCuda]) -> None:
    card, cuda = gpu
    card.compute = {4_000_000: 20_000 * MIB}
    meter = meter_for("cuda:0")
    meter.start("run")
    cuda.allocate(100 * MIB)
    meter.stop()
    assert meter.peaks["run"].device_bytes == 600 * MIB


@pytest.mark.parametrize("container", [False, True])
def test_a_cap_leaves_the_allocator_what_the_context_leaves(gpu: tuple[Card, FakeCuda], container: bool) -> None:
    """8 GiB on a card of 80: a tenth of it, less the context."""
    card = gpu[0]
    card.listed_as = None if container else os.getpid()
    cap("cuda:0", 8192 * MIB)
    assert card.fraction == pytest.approx((8192 - 500) * MIB / card.cuda_bytes)


def test_a_cap_above_the_card_is_the_card(gpu: tuple[Card, FakeCuda]) -> None:
    cap("cuda:0", 2**60)
    assert gpu[0].fraction == 1.0


def test_a_cap_under_the_context_is_out_of_memory(gpu: tuple[Card, FakeCuda]) -> None:
    with pytest.raises(MemoryError) as raised:
        cap("cuda:0", 400 * MIB)
    assert classify(raised.value).cause == "out_of_memory"


def test_on_a_cpu_nothing_is_capped(gpu: tuple[Card, FakeCuda]) -> None:
    cap("cpu", 1)
    assert gpu[0].fraction is None
