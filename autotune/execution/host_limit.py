"""Host limit: a child on a GPU is killed when it holds more of the host's memory than was free when it began.

A child on a processor lives under a limit of the kernel's (worker/host.py), which nobody has seen beside CUDA. So the
parent looks at one line of the kernel's, twice a second, from another process than the one that is timed. What a driver
keeps outside of the process is not seen here; the kernel, which kills the child first, has the last word.
"""

from autotune.devices.host_memory import free_bytes, held_bytes

LOOK_EVERY_S = 0.5
SPARED = 0.05  # share of what is free that is left to others: a child takes gigabytes between two looks


class TooLarge(Exception):
    """The child holds more than it may. The message is a clause."""


class HostLimit:
    """The limit of one child, counted from its first look at the process.

    bytes  of memory in use or swapped out that no file on the disk holds; None: the system does not tell, no limit
    """

    def __init__(self, pid: int) -> None:
        free, held = free_bytes(), held_bytes(pid)
        self.pid = pid
        self.bytes = None if free is None or held is None else held + int(free * (1 - SPARED))

    def check(self) -> None:
        """Raises TooLarge where the process holds more."""
        held = held_bytes(self.pid)
        if self.bytes is not None and held is not None and held > self.bytes:
            raise TooLarge(
                f"it held {held / 1e9:.1f} GB of host memory, and {self.bytes / 1e9:.1f} GB is what there was for "
                "it when it began"
            )
