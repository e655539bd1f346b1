"""Earlier studies, as a new one remembers them: shapes, not numbers.

Of each trial there is what it was beside its own baseline. Another device's seconds and bytes are in no field, and so
can get into no front, no plot and no export.
"""

from typing import Annotated, Literal

from pydantic import Field

from autotune.config import Value
from autotune.frozen_model import FrozenModel

Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Loss = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EarlierTrial(FrozenModel):
    """One that worked, or one that failed by its config's fault: then it has no figures."""

    values: dict[str, Value]
    latency: Ratio | None = None  # over the baseline's, all sizes together
    memory: Ratio | None = None
    loss: Loss | None = None  # of quality, in the units of its study's metric; None: its pictures were not judged

    @property
    def worked(self) -> bool:
        return self.latency is not None


class EarlierStudy(FrozenModel):
    """A study or a recorded table; `digest` tells it from another of the same name."""

    name: str
    digest: str
    device: str
    metric: Literal["clip", "likeness"]
    trials: tuple[EarlierTrial, ...]

    def __str__(self) -> str:
        return f"{self.name} ({self.digest})"
