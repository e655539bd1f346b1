"""EarlierStudy: what a study keeps of an earlier one for its warm start: ratios, no absolute figures.

Each trial is kept in relation to its own baseline. No field holds seconds or bytes of another device, so none can get
into a front, a plot or an export.
"""

from typing import Annotated, Literal

from pydantic import Field

from autotune.config import Value
from autotune.frozen_model import FrozenModel

Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Loss = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EarlierTrial(FrozenModel):
    """A trial that worked, or one that failed through its config: then it has no figures.

    latency  over the baseline's, summed over all sizes
    memory   peak, over the baseline's
    loss     of quality, in the units of its study's metric; None: its pictures were not judged
    """

    values: dict[str, Value]
    latency: Ratio | None = None
    memory: Ratio | None = None
    loss: Loss | None = None

    @property
    def worked(self) -> bool:
        return self.latency is not None


class EarlierStudy(FrozenModel):
    """An earlier study or a recorded table. `digest` tells it from another one of the same name."""

    name: str
    digest: str
    device: str
    metric: Literal["clip", "likeness"]
    trials: tuple[EarlierTrial, ...]

    def __str__(self) -> str:
        return f"{self.name} ({self.digest})"
