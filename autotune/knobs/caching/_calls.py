"""_calls: counts the denoiser's calls in each call of a pipe. A helper of the knob `cache`."""

from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING, Any

from autotune.pipelines import parts
from autotune.pipelines.rehearsal.caches import count_steps, step_of
from autotune.pipelines.running import running_pipe

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Calls:
    """Counts the denoiser's calls in the last call of the pipe, and how many modules each of them took from the cache.

    The counts are kept as `cached_calls` of the denoiser: the last is a list with one number for each of its calls.

    step     the step of the call in which the denoiser is called; None: not known, or before the first
    of_step  which of the step's calls it is: "0", and "1" where the negative prompt has a call of its own
    """

    def __init__(self, pipe: "DiffusionPipeline") -> None:
        self.counts: deque[list[int]] = deque(maxlen=1)
        self.timesteps: Any = None
        self.step: int | None = None
        self._of_step = 0
        parts.denoiser(pipe).cached_calls = self.counts
        count_steps(pipe)

    def is_new(self) -> bool:
        """Did a new call of the pipe begin since the last question? Each call sets new timesteps in the scheduler.

        Other pipelines may share the denoiser, and where their calls begin is not known. There each call of the
        denoiser is the first of a call, so that nothing of another picture is reused: the cache is then of no effect.
        """
        pipe = running_pipe()
        timesteps = None if pipe is None else pipe.scheduler.timesteps
        step = None if pipe is None else step_of(pipe.scheduler)
        if timesteps is not None and timesteps is self.timesteps:
            self._of_step = self._of_step + 1 if step == self.step else 0
            self.step = step
            return False
        self.timesteps, self.step, self._of_step = timesteps, step, 0
        self.counts.append([])
        return True

    @property
    def of_step(self) -> str:
        return str(self._of_step)

    def count(self, *, reused: int) -> None:
        """Count one call of the denoiser, in which so many of its modules were not computed."""
        self.counts[-1].append(reused)


def as_text(skipped: list[int]) -> str:
    """What each call skipped, runs of equal numbers as one: "0 0 0 57 57" is "3x0 2x57"."""
    runs = [(number, len(list(run))) for number, run in groupby(skipped)]
    return " ".join(f"{length}x{number}" if length > 1 else str(number) for number, length in runs)
