"""_calls: counts the denoiser's calls in each call of a pipe. A helper of the knob `cache`."""

from collections import deque
from typing import TYPE_CHECKING, Any

from autotune.pipelines import parts
from autotune.pipelines.running import running_pipe

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Calls:
    """Counts the denoiser's calls in the last call of the pipe, and how many of them reused blocks.

    The counts are kept as `cached_calls` of the denoiser: the last is (calls, calls that reused blocks).
    """

    def __init__(self, pipe: "DiffusionPipeline") -> None:
        self.counts: deque[tuple[int, int]] = deque(maxlen=1)
        self.timesteps: Any = None
        parts.denoiser(pipe).cached_calls = self.counts

    def is_new(self) -> bool:
        """Did a new call of the pipe begin since the last question? Each call sets new timesteps in the scheduler.

        Other pipelines may share the denoiser, and where their calls begin is not known. There each call of the
        denoiser is the first of a call, so that nothing of another picture is reused: the cache is then of no effect.
        """
        pipe = running_pipe()
        timesteps = None if pipe is None else pipe.scheduler.timesteps
        if timesteps is not None and timesteps is self.timesteps:
            return False
        self.timesteps = timesteps
        self.counts.append((0, 0))
        return True

    def count(self, *, reused: bool) -> None:
        """Count one call of the denoiser."""
        calls, with_reuse = self.counts[-1]
        self.counts[-1] = calls + 1, with_reuse + reused
