"""Explorer: the loop of a search (ask, run, tell), and the events by which it is heard."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autotune.config import Config
from autotune.confirm import Confirming
from autotune.drift import due
from autotune.earlier import EarlierStudy
from autotune.errors import UserError
from autotune.folders import StudyFolder
from autotune.record import Untried
from autotune.runner import Outcome
from autotune.schedule import next_s
from autotune.space import SearchSpace
from autotune.sparing import thrift_for
from autotune.study import Study
from autotune.target import Target
from autotune.thrift import Thrift
from autotune.trial import Anchor, Failure, Trial


@dataclass(frozen=True)
class Probed:
    target: Target
    space: SearchSpace
    folder: Path
    trials: tuple[Trial, ...]  # of an earlier run that this one continues
    anchors: tuple[Anchor, ...] = ()


@dataclass(frozen=True)
class Started:
    number: int
    config: Config
    origin: str


@dataclass(frozen=True)
class Ended:
    trial: Trial


@dataclass(frozen=True)
class Anchored:
    """The baseline was measured again, to see whether the device has drifted."""

    anchor: Anchor


@dataclass(frozen=True)
class LeftAlone:
    """Trials are over, and these configs were not among them because they are predicted not to fit."""

    untried: Untried


@dataclass(frozen=True)
class Warmed:
    """Earlier studies have put so many trials first."""

    studies: tuple[EarlierStudy, ...]
    first: int


Event = Probed | Warmed | Started | Ended | Anchored | LeftAlone | Confirming
Listener = Callable[[Event], None]


class Runs(Protocol):
    """What a search needs of a Runner while it explores; a replay has another one, which looks its outcomes up."""

    def run(
        self,
        place: Path,
        config: Config,
        *,
        pictures: bool,
        earlier: Sequence[Trial],
        thrift: Thrift | None = None,
    ) -> Outcome: ...


class Explorer:
    """The loop of a search: what it asks, what it runs, whom it tells.

    thrift  are trials spared what those before them have done or have made hopeless? The baseline never is
    """

    def __init__(
        self,
        folder: StudyFolder,
        study: Study,
        runner: Runs,
        listen: Listener,
        *,
        clock: Callable[[], float] = time.monotonic,
        thrift: bool = True,
    ) -> None:
        self.folder, self.study, self.runner, self.listen, self.clock = folder, study, runner, listen, clock
        self.thrift = thrift

    def explore(self, budget: int, time_budget_s: float | None) -> bool:
        """Ask, run, tell, until the budget, the time or the space is used up (True: the space)."""
        exhausted = self._explore(budget, time_budget_s)
        if self.study.untried is not None:
            self.listen(LeftAlone(self.study.untried))
        return exhausted

    def _explore(self, budget: int, time_budget_s: float | None) -> bool:
        end, said = self.clock() + (time_budget_s or float("inf")), False
        while len(self.study.trials) < budget and self.has_time(end):
            asked = self.study.ask()
            if asked is None:
                return True
            number, config, origin = asked
            if number and self.study.record.warm_start and not said:
                said = True
                self.listen(Warmed(self.study.record.warm_start, len(self.study.warm.first)))
            self.anchor()
            self.listen(Started(number, config, origin))
            started = self.clock()
            outcome = self._run(number, config)
            seconds = self.clock() - started
            trial = Trial(number=number, origin=origin, values=dict(config), outcome=outcome, seconds=seconds)
            if number == 0 and isinstance(outcome, Failure):
                log = self.folder.trial(0) / "log.txt"
                raise UserError(f"the baseline itself failed ({outcome.cause}): {outcome.reason}; see {log}.")
            self.study.tell(trial)
            self.listen(Ended(self.study.trials[-1]))
        return False

    def _run(self, number: int, config: Config) -> Outcome:
        place, trials = self.folder.trial(number), self.study.trials
        if not self.thrift or number == 0:
            return self.runner.run(place, config, pictures=True, earlier=trials)
        thrift = thrift_for(number, config, trials, self.study.anchors, self.study.record)
        return self.runner.run(place, config, pictures=True, earlier=trials, thrift=thrift)

    def has_time(self, end: float) -> bool:
        """Will the next trial be over by then, as far as those before it tell? The first is made anyway."""
        seconds = next_s(self.study.trials, self.study.anchors)
        return seconds is None or self.clock() + seconds <= end

    def anchor(self, *, last: bool = False) -> None:
        """Measure the baseline again where it is time to; at the `last`, where a trial came after the one before."""
        trials, anchors = self.study.trials, self.study.anchors
        if not (due(trials, anchors) or (last and len(trials) > max((a.before for a in anchors), default=1))):
            return
        started, before = self.clock(), len(trials)
        place = self.folder.anchor(before)
        # The first one draws its pictures again: how far two runs of one config lie apart is the floor of likeness.
        outcome = self.runner.run(place, self.study.baseline.config, pictures=not anchors, earlier=trials)
        anchor = Anchor(before=before, outcome=outcome, seconds=self.clock() - started)
        self.study.tell_anchor(anchor)
        self.listen(Anchored(anchor))
