"""What a trial is spared, decided where it is measured: the pictures that an earlier trial has drawn, and those of a
config that can't reach the front any more. See reuse.py.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from autotune.measure.quality import spot_check_of
from autotune.reuse import Reuse
from autotune.statistics.dominance import dominated
from autotune.statistics.drift import median_error
from autotune.workload import Workload

Check = Callable[[Sequence[Image.Image], int], None]  # (pictures, the prompt of the first): raises BrokenOutput


def wanted(workload: Workload, reuse: Reuse, *, pictures: bool) -> dict[str, Any]:
    """What measure_pipe() is to draw while it times.

    Of several sizes, all are timed before it can be known whether the pictures are worth drawing.
    """
    found: dict[str, Any] = {"pictures": pictures, "precision": reuse.precision}
    if pictures and reuse.source is not None:
        found["spot_check"] = reuse.source.prompt // workload.batch
    elif workload.also and reuse.incumbents:
        found["pictures"] = False
    if pictures and reuse.incumbents and not workload.also:
        found["dominated"] = lambda samples_s, memory_bytes: _beaten(reuse, [samples_s], memory_bytes) is not None
    return found


def reused(
    workload: Workload,
    reuse: Reuse,
    fields: dict[str, Any],
    images: list[Image.Image],
    draw: Callable[[], list[Image.Image]],
    check: Check,
) -> tuple[dict[str, Any], list[Image.Image], int]:
    """(what a Measurement says of what was spared, the pictures to keep, the prompt of the first of them).

    images  those that the timed calls have made; `draw` makes all of them

    Raises BrokenOutput for pictures that are none, whether they are to be kept or not.
    """
    source = reuse.source
    first = 0 if source is None else source.prompt // workload.batch * workload.batch
    images = images[: len(workload.prompts) - first]
    check(images, first)
    sizes_s = [fields["latency_samples_s"], *(cost["latency_samples_s"] for cost in fields["also"])]
    stopped = _beaten(reuse, sizes_s, fields["peak_memory_bytes"])
    if stopped is not None:
        return {"stopped": stopped}, [], 0
    spot_check = spot_check_of(images, first, source) if source is not None else None
    if spot_check is not None and spot_check.same:
        return {"spot_check": spot_check.to_json()}, images, first
    if spot_check is not None or len(images) < len(workload.prompts):
        images = draw()
        check(images, 0)
    return {"spot_check": spot_check.to_json() if spot_check else None}, images, 0


def _beaten(reuse: Reuse, sizes_s: Sequence[Sequence[float]], memory_bytes: int) -> str | None:
    """Why it can't reach the front, by its calls at each size."""
    latencies_s = [statistics.median(samples_s) for samples_s in sizes_s]
    return dominated(reuse, latencies_s, median_error(sizes_s[0]), memory_bytes)
