"""Room: a wish whose pictures alone are larger than the memory is refused before a process starts.

The bounds are what diffusers surely allocates at the end of a call (its image processor), whatever the pipeline: on the
device, the decoded picture and its rescaled copy in 16 bits; on the host, the picture as 32-bit numbers, its product
with 255, and the 8-bit picture. A wish that passes may still not fit: then it is an out-of-memory trial.
"""

from collections.abc import Iterable

from autotune.device import Device
from autotune.devices.host_memory import total_bytes
from autotune.errors import UserError
from autotune.workload import Shape

DEVICE_BYTES_PER_PIXEL = 2 * 3 * 2
HOST_BYTES_PER_PIXEL = 2 * 3 * 4 + 3
LEAST_SIDE = 64  # in pixels, where the size is not known yet


def require_room(shapes: Iterable[Shape], device: Device, *, host: bool = True, frames: int | None = None) -> None:
    """Raises UserError for a shape whose pictures can't fit.

    host    also compare with this machine's memory; False: the device is another machine's
    frames  of each clip; None: these are pictures, or it is not known yet
    """
    has = {f"{device.name} has": (device.memory_bytes if device.is_gpu else 0, DEVICE_BYTES_PER_PIXEL)}
    if host:
        has["this machine has"] = (total_bytes() or 0, HOST_BYTES_PER_PIXEL)
    for shape in shapes:
        pixels = shape.width * shape.height * shape.batch * (frames or 1)
        for whose, (memory_bytes, per_pixel) in has.items():
            needed = pixels * per_pixel
            if memory_bytes and needed > memory_bytes:
                what = f"{shape} with {frames} frames" if frames else str(shape)
                smaller = "--size, --batch or --frames" if frames else "--size or --batch"
                raise UserError(
                    f"a call of {what} can't fit: its finished pictures alone take {needed / 1e9:,.0f} GB, and "
                    f"{whose} {memory_bytes / 1e9:.0f} GB; take a smaller {smaller}."
                )
