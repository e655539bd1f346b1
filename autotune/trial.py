"""Trial: one config and what became of it. An Outcome is a Measurement or a Failure: a failure is a value, too."""

from typing import Literal

from pydantic import Field

from autotune.config import Config, Value
from autotune.frozen_model import FrozenModel
from autotune.measurement import Measurement

Cause = Literal[
    "out_of_memory",
    "timeout",
    "crash",
    "unsupported",
    "no_effect",
    "broken_output",
    "error",
    "environment",  # not the config's fault (disk full, killed by a user): retried, never told to the sampler
    "throttled",  # the device slowed itself down while it was timed
    "contended",  # others used the device while it was timed
    "noisy",  # the timed calls scatter too much to have a median
    "bad_input",  # the user's fault: ends the command with its sentence
]

# A quieter hour may measure the same config: retried, and never told to the sampler.
NOT_THE_CONFIG: frozenset[Cause] = frozenset({"throttled", "contended", "noisy"})


WARM_START = "warm start"
NO_RECIPE = ("baseline", "sampler", "interrupted", WARM_START)  # origins that are no recipe's name


class Failure(FrozenModel):
    """Why there is no measurement. `knob` is set where one knob is to blame: its value then leaves the space."""

    cause: Cause
    reason: str
    knob: str | None = None


class Anchor(FrozenModel):
    """The baseline measured again, before the trial of number `before` (or after the last one)."""

    before: int
    outcome: Measurement | Failure
    seconds: float

    @property
    def measured(self) -> Measurement | None:
        return self.outcome if isinstance(self.outcome, Measurement) else None


class Trial(FrozenModel):
    """Trial 0 is the baseline. `origin` is one of NO_RECIPE, or a recipe's name."""

    number: int
    origin: str
    values: dict[str, Value]
    outcome: Measurement | Failure
    seconds: float
    drift: float = Field(default=1.0, exclude=True)  # how much slower the device was than at trial 0, see drift.py

    @property
    def config(self) -> Config:
        return Config(self.values)

    @property
    def measured(self) -> Measurement | None:
        return self.outcome if isinstance(self.outcome, Measurement) else None

    @property
    def judged(self) -> Measurement | None:
        """With a quality: only then it has all objectives. What was stopped early has none."""
        return self.outcome if isinstance(self.outcome, Measurement) and self.outcome.quality is not None else None

    @property
    def pictures_of(self) -> int:
        """The trial whose pictures stand for this one's."""
        source = self.measured.quality_of if self.measured else None
        return self.number if source is None else source
