"""Events: what a search tells its listener while it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.config import Config
from autotune.goal import Goal
from autotune.statistics.failing_values import FailingValue
from autotune.study.earlier import EarlierStudy
from autotune.study.record import Untried
from autotune.study.space import SearchSpace
from autotune.target import Target
from autotune.trial import Anchor, BaselineChoice, Rejected, Trial


@dataclass(frozen=True)
class Probed:
    """The pipeline and the device are known, and so is the search space. The first event of every search."""

    target: Target
    space: SearchSpace
    folder: Path
    trials: Sequence[Trial]  # finished earlier, where this search continues a study
    anchors: Sequence[Anchor] = ()
    goal: Goal | None = None  # the limits that the pick must keep; None: not known


@dataclass(frozen=True)
class BaselineRejected:
    """A config that is plainer than the baseline does not fit: predicted, or tried."""

    rejected: Rejected


@dataclass(frozen=True)
class BaselineChosen:
    """The baseline was measured, and it is not the pipeline as loaded, which does not fit."""

    config: Config
    choice: BaselineChoice


@dataclass(frozen=True)
class WarmStarted:
    """Earlier studies have ordered the first trials."""

    studies: tuple[EarlierStudy, ...]
    first: int  # the number of trials that they put first


@dataclass(frozen=True)
class TrialStarted:
    number: int
    config: Config
    origin: str


@dataclass(frozen=True)
class TrialEnded:
    trial: Trial


@dataclass(frozen=True)
class ValueDropped:
    """Every trial with this value has failed for the same reason, so that no further trial has it."""

    failing: FailingValue


@dataclass(frozen=True)
class Anchored:
    """The baseline was measured again, to see whether the device has drifted."""

    anchor: Anchor


@dataclass(frozen=True)
class CardTold:
    """What there is to say of a card, in a search on several: it joined, was refused, is slower, or is gone."""

    card: str
    says: str


@dataclass(frozen=True)
class Skipped:
    """The trials are over. The sampler has skipped these configs: they are predicted to need too much memory."""

    untried: Untried


@dataclass(frozen=True)
class Confirming:
    """A candidate for the export is being measured again."""

    trial: Trial
    round: int  # from 1; 0: its pictures are being drawn
    on_second_card: bool = False  # of a search on several


@dataclass(frozen=True)
class NotConfirmed:
    """A candidate for the export does not hold up where it is measured again, and the next best one is taken."""

    trial: Trial
    why: str  # a clause


Event = (
    Probed
    | BaselineRejected
    | BaselineChosen
    | WarmStarted
    | TrialStarted
    | TrialEnded
    | ValueDropped
    | Anchored
    | CardTold
    | Skipped
    | Confirming
    | NotConfirmed
)
Listener = Callable[[Event], None]
