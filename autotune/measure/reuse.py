"""Reuse while measuring: decides by the measured figures which pictures need not be drawn.

Pictures are skipped if an earlier trial drew the same ones, or if the config can't reach the Pareto front. See
autotune/reuse.py.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from autotune.measure.quality import spot_check_of
from autotune.pictures.video import Picture
from autotune.reuse import Reuse
from autotune.statistics.dominance import dominated
from autotune.statistics.drift import median_error
from autotune.workload import Workload

Check = Callable[[Sequence[Picture], int], None]  # (pictures, prompt index of the first one)


def measure_options(workload: Workload, reuse: Reuse, *, pictures: bool) -> dict[str, Any]:
    """The keyword arguments of measure_pipe(): which pictures to draw while timing, and how precisely to time.

    A workload of several sizes is timed at all sizes before it is known whether the pictures are worth drawing.
    """
    options: dict[str, Any] = {"pictures": pictures, "precision": reuse.precision}
    if pictures and reuse.source is not None:
        options["spot_check"] = reuse.source.prompt // workload.batch
    elif workload.also and reuse.incumbents:
        options["pictures"] = False
    if pictures and reuse.incumbents and not workload.also:
        options["dominated"] = lambda samples_s, memory_bytes: _dominated(reuse, [samples_s], memory_bytes) is not None
    return options


def complete_pictures(
    workload: Workload,
    reuse: Reuse,
    fields: dict[str, Any],
    images: list[Picture],
    draw: Callable[[], list[Picture]],
    check: Check,
) -> tuple[dict[str, Any], list[Picture], int]:
    """Draw the pictures that are still needed, if any.

    fields  of the Measurement so far
    images  the pictures that the timed calls drew
    draw    draws all pictures
    check   raises BrokenOutput for a broken picture

    Returns (further fields of the Measurement, the pictures to keep, the prompt index of the first one). Raises
    BrokenOutput for a broken picture, also for one that is not kept.
    """
    source = reuse.source
    first = 0 if source is None else source.prompt // workload.batch * workload.batch
    images = images[: len(workload.prompts) - first]
    check(images, first)
    sizes_s = [fields["latency_samples_s"], *(cost["latency_samples_s"] for cost in fields["also"])]
    stopped = _dominated(reuse, sizes_s, fields["peak_memory_bytes"])
    if stopped is not None:
        return {"stopped": stopped}, [], 0
    spot_check = spot_check_of(images, first, source) if source is not None else None
    if spot_check is not None and spot_check.same:
        return {"spot_check": spot_check.to_json()}, images, first
    if spot_check is not None or len(images) < len(workload.prompts):
        images = draw()
        check(images, 0)
    return {"spot_check": spot_check.to_json() if spot_check else None}, images, 0


def _dominated(reuse: Reuse, sizes_s: Sequence[Sequence[float]], memory_bytes: int) -> str | None:
    """Why the config can't reach the Pareto front; None: it might. `sizes_s`: seconds of the calls at each size."""
    latencies_s = [statistics.median(samples_s) for samples_s in sizes_s]
    return dominated(reuse, latencies_s, median_error(sizes_s[0]), memory_bytes)
