"""Trial: one config and its outcome, which is a Measurement or a Failure."""

from typing import Annotated, Literal

from pydantic import Field

from autotune.config import Config, Value
from autotune.frozen_model import FrozenModel
from autotune.measurement import Measurement, Seconds

Cause = Literal[
    "out_of_memory",
    "timeout",
    "crash",
    "unsupported",
    "no_effect",
    "broken_output",
    "error",
    "environment",  # the machine's fault (disk full, killed by a user): retried, never told to the sampler
    "throttled",  # the device slowed down while the calls were timed
    "contended",  # other processes used the device while the calls were timed
    "noisy",  # the timed calls scatter too much for a median
    "bad_input",  # the user's fault: the command ends with the reason
]

Memory = Literal["device", "host"]  # a GPU's own, or that of the machine

# Causes that may be gone at another time: such a config is tried again, and the sampler is not told of the failure.
NOT_THE_CONFIG: frozenset[Cause] = frozenset({"throttled", "contended", "noisy"})

WARM_START = "warm start"
NO_RECIPE = ("baseline", "sampler", "interrupted", WARM_START)  # every origin that is not the name of a recipe


class Failure(FrozenModel):
    """Why there is no measurement.

    knob    the knob to blame, if there is one: its value may leave the search space, see SearchSpace.learn
    memory  which memory was too small; None: it was not that, or not known
    """

    cause: Cause
    reason: str
    knob: str | None = None
    memory: Memory | None = None


class Anchor(FrozenModel):
    """The baseline measured again, to track the drift of the device.

    before   the number of the trial that follows; after the last trial, the number that would be next
    seconds  that the measurement took, with the start of the process
    card     on which it ran, of a search on several; None: on the study's one device
    """

    before: int
    outcome: Measurement | Failure
    seconds: float
    card: str | None = None

    @property
    def measured(self) -> Measurement | None:
        """The measurement; None: the trial failed."""
        return self.outcome if isinstance(self.outcome, Measurement) else None


class Rejected(FrozenModel):
    """A config that is plainer than the baseline and does not fit on the device.

    values        in which it differs from the pipeline as loaded
    weight_bytes  that its weights take on the device at the same time, predicted; it was not tried. None: it was
    limit_bytes   what they would have to fit in; None: it was tried
    reason        in words
    """

    values: dict[str, Value]
    weight_bytes: int | None = None
    limit_bytes: int | None = None
    reason: str


class BaselineChoice(FrozenModel):
    """Why the baseline of a study is the config that it is: the plainest that fits on the device.

    rejected  the plainer ones, the plainest first; empty: the pipeline as loaded fits
    """

    reason: str
    rejected: tuple[Rejected, ...] = ()


class Trial(FrozenModel):
    """One config of a study and its outcome. Trial 0 is the baseline.

    origin   where the config comes from: one of NO_RECIPE, or the name of a recipe
    seconds  that the trial took
    drift    how much slower the device was than at trial 0, as a factor; see statistics/drift.py
    card     on which it ran, of a search on several: "HOST/NAME"; None: on the study's one device
    """

    number: Annotated[int, Field(ge=0)]
    origin: str
    values: dict[str, Value]
    outcome: Measurement | Failure
    seconds: Seconds
    card: str | None = None
    drift: float = Field(default=1.0, exclude=True)

    @property
    def config(self) -> Config:
        return Config(self.values)

    @property
    def measured(self) -> Measurement | None:
        """The measurement; None: the trial failed."""
        return self.outcome if isinstance(self.outcome, Measurement) else None

    @property
    def judged(self) -> Measurement | None:
        """The measurement if it has a quality, which all objectives need. A trial that was stopped early has none."""
        return self.measured if self.measured and self.measured.quality is not None else None

    @property
    def pictures_of(self) -> int:
        """The number of the trial whose pictures show this trial's quality: its own, or that of its source."""
        source = self.measured.quality_of if self.measured else None
        return self.number if source is None else source
