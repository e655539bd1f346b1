"""What a trial is spared, decided where it is measured: the pictures that an earlier trial has drawn, and those of a
config that can't reach the front any more. See thrift.py.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from autotune.drift import median_error
from autotune.measure.quality import look_at
from autotune.thrift import Thrift
from autotune.workload import Workload

Check = Callable[[Sequence[Image.Image], int], None]  # (pictures, the prompt of the first): raises BrokenOutput


def wanted(workload: Workload, thrift: Thrift, *, pictures: bool) -> dict[str, Any]:
    """What measure_pipe() is to draw while it times.

    Of several sizes, all are timed before it can be known whether the pictures are worth drawing.
    """
    found: dict[str, Any] = {"pictures": pictures, "precision": thrift.precision}
    if pictures and thrift.giver is not None:
        found["look"] = thrift.giver.prompt // workload.batch
    elif workload.also and thrift.rivals:
        found["pictures"] = False
    if pictures and thrift.rivals and not workload.also:
        found["hopeless"] = lambda samples_s, memory_bytes: _beaten(thrift, [samples_s], memory_bytes) is not None
    return found


def spared(
    workload: Workload,
    thrift: Thrift,
    fields: dict[str, Any],
    images: list[Image.Image],
    draw: Callable[[], list[Image.Image]],
    check: Check,
) -> tuple[dict[str, Any], list[Image.Image], int]:
    """(what a Measurement says of what was spared, the pictures to keep, the prompt of the first of them).

    images  those that the timed calls have made; `draw` makes all of them

    Raises BrokenOutput for pictures that are none, whether they are to be kept or not.
    """
    giver = thrift.giver
    first = 0 if giver is None else giver.prompt // workload.batch * workload.batch
    images = images[: len(workload.prompts) - first]
    check(images, first)
    sizes_s = [fields["latency_samples_s"], *(cost["latency_samples_s"] for cost in fields["also"])]
    stopped = _beaten(thrift, sizes_s, fields["peak_memory_bytes"])
    if stopped is not None:
        return {"stopped": stopped}, [], 0
    look = look_at(images, first, giver) if giver is not None else None
    if look is not None and look.same:
        return {"look": look.to_json()}, images, first
    if look is not None or len(images) < len(workload.prompts):
        images = draw()
        check(images, 0)
    return {"look": look.to_json() if look else None}, images, 0


def _beaten(thrift: Thrift, sizes_s: Sequence[Sequence[float]], memory_bytes: int) -> str | None:
    """Why it can't reach the front, by its calls at each size."""
    latencies_s = [statistics.median(samples_s) for samples_s in sizes_s]
    return thrift.hopeless(latencies_s, median_error(sizes_s[0]), memory_bytes)
