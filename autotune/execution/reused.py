"""Reused results: the quality and the compile cost that a measurement takes over from an earlier trial."""

from collections.abc import Sequence

from autotune.measurement import CompiledAs, Measurement
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
