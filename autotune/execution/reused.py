"""Reused results: the quality, the compile cost and the calibrations that a trial takes over from an earlier one."""

from collections.abc import Sequence

from autotune.config import Config
from autotune.knobs import all_knobs, different
from autotune.measurement import CompiledAs, Measurement
from autotune.target import Calibrations
from autotune.trial import Trial


def with_compilation_of(measured: Measurement, compiler: Trial) -> Measurement:
    """The measurement with the compile cost of `compiler`, the trial that compiled the same graphs.

    Compiling costs the time by which a first call is longer than a later one. Memory is the larger of the two trials':
    the compiler would need as much here, and what it leaves behind stays in the calls that follow.
    """
    source = compiler.measured
    assert source is not None
    assert source.compile_s is not None, "the trial has compiled its graphs itself"
    costs = zip(measured.latencies_s, source.first_calls_s, source.latencies_s, strict=True)
    first_calls_s = tuple(own_s + first_s - later_s for own_s, first_s, later_s in costs)
    return measured.model_copy(
        update={
            "compiled_as": CompiledAs(trial=compiler.number, first_calls_s=first_calls_s, compile_s=source.compile_s),
            "run_peak_memory_bytes": max(measured.run_peak_memory_bytes, source.run_peak_memory_bytes),
            "peak_memory_bytes": max([measured.peak_memory_bytes, *_call_peaks(source)]),
        }
    )


def _call_peaks(measured: Measurement) -> list[int]:
    """Peak memory of the phases in which the pipe is called, in bytes. Loading is left out."""
    return [peak.device_bytes for phase, peak in measured.peaks.items() if phase != "load"]


def with_quality_of(measured: Measurement, source: int, earlier: Sequence[Trial]) -> Measurement:
    """The measurement with the quality of trial number `source`, which draws the same pictures."""
    judged = next(trial.judged for trial in earlier if trial.number == source)
    assert judged is not None, "a source trial has a quality"
    return measured.model_copy(update={"quality": judged.quality, "quality_of": source})


def calibrations_of(config: Config, earlier: Sequence[Trial]) -> Calibrations:
    """What earlier trials have measured for this config before their first call. Of several, the one most like it.

    Calibrating runs the pipe with nothing left out, so that the numbers belong to the picture: to the config without
    the value that is calibrated, and without the knobs that only change how a picture is computed.
    """
    found: Calibrations = {}
    for name, value in config.items():
        knob = all_knobs().get(name)
        key = knob.calibration(value) if knob is not None else None
        known = {
            trial.number: (different(config, trial.config).keys(), trial.measured.calibrations[key])
            for trial in earlier
            if key is not None and trial.measured is not None and key in trial.measured.calibrations
        }
        like = [one for one in known.values() if not any(map(_changes_the_picture, one[0] - {name}))]
        if key is not None and like:
            found[key] = min(like, key=lambda one: len(one[0]))[1]
    return found


def _changes_the_picture(name: str) -> bool:
    """Does the knob change the picture, or the one that it modifies? Unknown knobs do."""
    knob = all_knobs().get(name)
    return knob is None or knob.changes_output or (knob.modifies is not None and _changes_the_picture(knob.modifies))
