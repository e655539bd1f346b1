"""What a report says of how a study was measured: the state of the device, the memory of the parts of a call."""

from types import SimpleNamespace
from typing import Any

from made_up import changed, measured, quality

from autotune.measurement import Health, Peaks, Phases
from autotune.report.page.measured import _health, _memory_of_parts, _motion, _worst_place

GB = 10**9


def test_a_steady_slowdown_and_a_gpu_that_waits_for_its_host_are_told() -> None:
    slowed = Health(slowed_steadily=True, throttle_reasons=("SwThermal",))
    bound = Phases(early_step_s=0.04, early_step_device_s=0.01)
    trials = [
        changed(measured(0), health=slowed, phases=bound),
        changed(measured(1), health=slowed, phases=None),
        measured(2),
    ]
    line = _health([trial.measured for trial in trials if trial.measured])
    assert "SwThermal in 2 trials" in line
    assert "slowed down in every call, its steady state, in 2 trials" in line
    assert "waiting for the host to launch its work in 1 trial" in line
    quiet = measured(3).measured
    assert quiet is not None
    assert _health([quiet]) == ""


def test_the_memory_of_each_part_is_told_for_the_baseline_and_the_pick() -> None:
    peaks = {
        "run": Peaks(device_bytes=9 * GB),
        "denoising": Peaks(allocated_bytes=5 * GB, device_bytes=6 * GB),
        "vae_decode": Peaks(allocated_bytes=8 * GB, device_bytes=9 * GB),
    }
    summary: Any = SimpleNamespace(baseline=changed(measured(0), peaks=peaks), pick=measured(1))
    assert _memory_of_parts(summary) == "baseline: denoising 5.00 GB, VAE decode 8.00 GB"


def test_the_worst_place_of_the_picks_pictures_is_told_where_it_is_known() -> None:
    places = {"worst_cell_levels": (12.4, 31.0), "worst_row_levels": (60.2, 3.0), "worst_column_levels": (4.0, 5.0)}
    summary: Any = SimpleNamespace(pick=measured(1, judged=quality().model_copy(update=places)))
    assert _worst_place(summary) == (
        "of 255 levels, the pick's pictures differ from the baseline's in a cell of 16 x 16 pixels by 31, a row by 60, "
        "a column by 5 at most"
    )
    assert _worst_place(SimpleNamespace(pick=measured(1))) == ""


def test_the_motion_of_the_picks_clips_is_told_and_pictures_have_none() -> None:
    clips = quality().model_copy(update={"temporal_levels": (1.0, 2.0), "motion_levels": (7.0, 9.0)})
    assert _motion(SimpleNamespace(pick=measured(1, judged=clips))) == (
        "from frame to frame, the pick's clips change by 8.0 of 255 levels; these changes differ from the "
        "baseline's by 1.5"
    )
    assert _motion(SimpleNamespace(pick=measured(1))) == ""
