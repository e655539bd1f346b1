"""What a measurement takes over from an earlier trial that has done the same: the quality of its pictures, and what its
graphs cost to compile."""

from collections.abc import Sequence

from autotune.measurement import CompiledAs, Measurement
from autotune.trial import Trial


def with_compilation_of(measured: Measurement, compiler: Trial) -> Measurement:
    """With what it would cost to compile: what it has cost the trial that has compiled the same graphs.

    What a first call takes longer than a later one is the compiler's. The memory is the most that it was of the two:
    what the compiler needs is as there, and what it leaves behind stays in the calls after it.
    """
    theirs = compiler.measured
    assert theirs is not None
    assert theirs.compile_s is not None, "whose code it is has compiled it"
    costs = zip(measured.latencies_s, theirs.first_calls_s, theirs.latencies_s, strict=True)
    firsts_s = tuple(mine_s + first_s - later_s for mine_s, first_s, later_s in costs)
    return measured.model_copy(
        update={
            "compiled_as": CompiledAs(trial=compiler.number, first_calls_s=firsts_s, compile_s=theirs.compile_s),
            "run_peak_memory_bytes": max(measured.run_peak_memory_bytes, theirs.run_peak_memory_bytes),
            "peak_memory_bytes": max([measured.peak_memory_bytes, *_of_calls(theirs)]),
        }
    )


def _of_calls(measured: Measurement) -> list[int]:
    """The peaks of its calls: what loading needs is another matter."""
    return [peak.device_bytes for phase, peak in measured.peaks.items() if phase != "load"]


def with_quality_of(measured: Measurement, source: int, earlier: Sequence[Trial]) -> Measurement:
    """With the quality of the trial of this number, whose pictures it draws."""
    theirs = next(trial.judged for trial in earlier if trial.number == source)
    assert theirs is not None, "a source has been judged"
    return measured.model_copy(update={"quality": theirs.quality, "quality_of": source})
