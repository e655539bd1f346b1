"""Explorer: the loop of a search (ask, run, tell), and the events by which it is heard."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autotune.config import Config
from autotune.errors import UserError
from autotune.execution.runner import Outcome
from autotune.goal import Budget
from autotune.reuse import Reuse
from autotune.statistics.drift import due
from autotune.study.earlier import EarlierStudy
from autotune.study.record import Untried
from autotune.study.reuse_plan import plan_reuse
from autotune.study.space import SearchSpace
from autotune.study.study import Study
from autotune.study.time_left import next_s
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Anchor, Failure, Trial
from autotune.tuning.confirm import Confirming


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
        reuse: Reuse | None = None,
    ) -> Outcome: ...


class Explorer:
    """The loop of a search: what it asks, what it runs, whom it tells.

    reuse  are trials spared what those before them have done or have made dominated? The baseline never is
    """

    def __init__(
        self,
        folder: StudyFolder,
        study: Study,
        runner: Runs,
        listen: Listener,
        *,
        clock: Callable[[], float] = time.monotonic,
        reuse: bool = True,
    ) -> None:
        self.folder, self.study, self.runner, self.listen, self.clock = folder, study, runner, listen, clock
        self.reuse = reuse

    def explore(self, budget: Budget) -> bool:
        """Ask, run, tell, until the trials, the time or the space is used up (True: the space).

        Trial 0 is the baseline. Raises UserError where it fails: there is nothing to compare with then.
        """
        exhausted = self._explore(budget)
        if self.study.untried is not None:
            self.listen(LeftAlone(self.study.untried))
        return exhausted

    def _explore(self, budget: Budget) -> bool:
        end = self.clock() + (budget.time_s or float("inf"))
        if not self.study.trials:
            self._run_next()
        warm_start = self.study.record.warm_start
        while len(self.study.trials) < budget.trials and self.has_time(end):
            if warm_start:
                self.listen(Warmed(warm_start, len(self.study.warm.first)))
                warm_start = ()
            if not self._run_next():
                return True
        return False

    def _run_next(self) -> bool:
        """The next trial, from the question to the answer; False where every allowed config was tried."""
        asked = self.study.ask()
        if asked is None:
            return False
        number, config, origin = asked
        self.anchor()
        self.listen(Started(number, config, origin))
        started = self.clock()
        outcome = self._run(number, config)
        seconds = self.clock() - started
        if number == 0 and isinstance(outcome, Failure):
            log = self.folder.trial(0) / "log.txt"
            raise UserError(f"the baseline itself failed ({outcome.cause}): {outcome.reason}; see {log}.")
        trial = Trial(number=number, origin=origin, values=dict(config), outcome=outcome, seconds=seconds)
        self.study.tell(trial)
        self.listen(Ended(self.study.trials[-1]))
        return True

    def _run(self, number: int, config: Config) -> Outcome:
        place, trials = self.folder.trial(number), self.study.trials
        if not self.reuse or number == 0:
            return self.runner.run(place, config, pictures=True, earlier=trials)
        reuse = plan_reuse(number, config, trials, self.study.anchors, self.study.record)
        return self.runner.run(place, config, pictures=True, earlier=trials, reuse=reuse)

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
