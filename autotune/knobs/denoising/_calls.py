"""The calls of a pipe, and of its denoiser within each. Not a knob: `cache` counts with it what it skips."""

from collections import deque
from typing import Any

from autotune.pipelines import parts


class Calls:
    """Counts the denoiser's calls within each of the last calls of the pipe, and those that reused blocks."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.seen: deque[tuple[int, int]] = deque(maxlen=2)  # (calls, calls that reused blocks)
        self.timesteps: Any = None
        parts.denoiser(pipe).cached_calls = self.seen

    def new(self) -> bool:
        """Has the pipe been called since this was asked last? Each call sets the scheduler's timesteps anew."""
        if self.pipe.scheduler.timesteps is self.timesteps:
            return False
        self.timesteps = self.pipe.scheduler.timesteps
        self.seen.append((0, 0))
        return True

    def count(self, *, reused: bool) -> None:
        calls, before = self.seen[-1]
        self.seen[-1] = calls + 1, before + reused
