"""Peak memory of a CPU is this process's own, by phase, above what it was before.

Each figure is taken in a fresh process, as every measurement is: in this one, what earlier tests have left may be
given back to the system in the middle of a phase.
"""

import json
import subprocess
import sys

from autotune.measure.memory import ResidentMeter, meter_for

MIB = 2**20


def peaks(story: str) -> dict[str, int]:
    """The peaks of a process that does what `story` says; `touch(n)` makes n MiB resident."""
    script = f"""
import json, numpy
from autotune.measure.memory import ResidentMeter
touch = lambda mib: numpy.ones(mib * {MIB}, dtype=numpy.uint8)
touch(1)
{story}
print(json.dumps(meter.peaks))
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
