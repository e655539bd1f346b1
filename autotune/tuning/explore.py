"""Explorer: the loop of a search: ask the study for a config, run it, tell the study the outcome."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from autotune.config import Config
from autotune.errors import UserError
from autotune.execution.isolate import ChildHeld
from autotune.execution.runner import Outcome, Runner
from autotune.goal import Budget
from autotune.reuse import Reuse
from autotune.statistics.drift import due
from autotune.study.noise_floor import unlike_itself
from autotune.study.reuse_plan import plan_reuse
from autotune.study.study import Study
from autotune.study.time_left import next_s
from autotune.study_folder import StudyFolder
from autotune.trial import Anchor, Failure, Trial
from autotune.tuning.events import Anchored, Listener, Skipped, TrialEnded, TrialStarted, ValueDropped, WarmStarted


class TrialRunner(Protocol):
    """What a search needs of a Runner while it explores. A replay passes one that looks the outcomes up in a table."""

    def run(
        self,
        place: Path,
        config: Config,
        *,
        pictures: bool,
        earlier: Sequence[Trial],
        reuse: Reuse | None = None,
    ) -> Outcome: ...


class Team(Protocol):
    """Workers that run the trials of a search at the same time, each on a card of its own; see autotune/cluster."""

    def explorer(
        self, folder: StudyFolder, study: Study, runner: Runner, listen: Listener, *, reuse: bool
    ) -> "Explorer":
        """What explores with the workers."""
        ...

    def confirming(self, runner: Runner) -> Runner:
        """A runner that confirms on one of the cards, in turn."""
        ...


class Explorer:
    """Runs trials until the budget is used up, and tells the listener about each.

    clock  seconds from any start, as time.monotonic gives them
    reuse  may trials reuse the work of earlier ones, and stop early where they are dominated? The baseline never does
    """

    def __init__(
        self,
        folder: StudyFolder,
        study: Study,
        runner: TrialRunner,
        listen: Listener,
        *,
        clock: Callable[[], float] = time.monotonic,
        reuse: bool = True,
    ) -> None:
        self.folder, self.study, self.runner, self.listen, self.clock = folder, study, runner, listen, clock
        self.reuse = reuse

    def explore(self, budget: Budget, *, began: float | None = None) -> bool:
        """Ask, run, tell until the trials, the time or the space is used up. True: the space is.

        Trial 0 is the baseline. Raises UserError where it fails: there is then nothing to compare with. Raises
        ChildHeld where a child can't be ended.

        began  when the time of the budget began, by the clock; None: now
        """
        end = (self.clock() if began is None else began) + (budget.time_s or float("inf"))
        failure = self.run_baseline()
        if failure is not None:
            raise self.baseline_failed(failure)
        self._require_likeness()
        exhausted = self._explore(budget, end)
        if self.study.untried is not None:
            self.listen(Skipped(self.study.untried))
        return exhausted

    def _explore(self, budget: Budget, end: float) -> bool:
        warm_start = self.study.record.warm_start
        while len(self.study.trials) < budget.trials and self._has_time(end):
            if warm_start:
                self.listen(WarmStarted(warm_start, len(self.study.warm.first)))
                warm_start = ()
            if self._run_next() is None:
                return True
        return False

    def run_baseline(self) -> Failure | None:
        """Run trial 0, unless it is measured already. Returns why it could not be measured: it is then no trial."""
        outcome = None if self.study.trials else self._run_next()
        return outcome if isinstance(outcome, Failure) else None

    def baseline_failed(self, failure: Failure, more: str = "") -> UserError:
        """The error that ends the search. `more`: further sentences."""
        log = str(self.folder.trial(0) / "log.txt")
        see = "" if log in failure.reason else f"; see {log}"
        return UserError(f"the baseline itself failed ({failure.cause}): {failure.reason}{see}.{more}")

    def _run_next(self) -> Outcome | None:
        """Ask for the next config, run it and tell the outcome, which is returned. None: every config was tried.

        A baseline that fails is not told. A config whose process can't be ended is told as a crash, so that it is not
        run again when the search goes on; then ChildHeld is raised.
        """
        proposal = self.study.ask()
        if proposal is None:
            return None
        number, config, origin = proposal
        self.anchor()
        self.listen(TrialStarted(number, config, origin))
        started = self.clock()
        held: ChildHeld | None = None
        outcome: Outcome
        try:
            outcome = self._run(number, config)
        except ChildHeld as error:
            if number == 0 or error.config is None:
                raise
            held, outcome = error, Failure(cause="crash", reason=error.reason)
        seconds = self.clock() - started
        if number == 0 and isinstance(outcome, Failure):
            return outcome
        self.tell(Trial(number=number, origin=origin, values=dict(config), outcome=outcome, seconds=seconds))
        if held is not None:
            raise held
        return outcome

    def tell(self, trial: Trial) -> None:
        """Keep the trial, and tell the listener of it and of the values that leave the space by it."""
        dropped = set(self.study.space.failing)
        self.study.tell(trial)
        self.listen(TrialEnded(next(each for each in self.study.trials if each.number == trial.number)))
        for pair in self.study.space.failing.keys() - dropped:
            self.listen(ValueDropped(self.study.space.failing[pair]))

    def _run(self, number: int, config: Config) -> Outcome:
        place, trials = self.folder.trial(number), self.study.trials
        if not self.reuse or number == 0:
            return self.runner.run(place, config, pictures=True, earlier=trials)
        reuse = plan_reuse(number, config, trials, self.study.anchors, self.study.record)
        return self.runner.run(place, config, pictures=True, earlier=trials, reuse=reuse)

    def _has_time(self, end: float) -> bool:
        """Is the next trial expected to end by then? Without any trial to estimate from: yes."""
        seconds = next_s(self.study.trials, self.study.anchors)
        return seconds is None or self.clock() + seconds <= end

    def _require_likeness(self) -> None:
        """Raises UserError where the baseline has become unlike itself: no later trial could be compared with it."""
        device = self.study.record.target.device
        for anchor in self.study.anchors:
            drawn = self.folder.anchor(anchor.before) / "images"
            unlike = unlike_itself(self.study.baseline, anchor, device) if drawn.is_dir() else None  # no replay
            if unlike is not None:
                raise UserError(f"{unlike}; compare {drawn} with trials/0000/images, then begin another --study.")

    def anchor(self, *, last: bool = False) -> None:
        """Measure the baseline again if it is due; as the `last` one, if any trial has ended since the one before."""
        trials, anchors = self.study.trials, self.study.anchors
        before = self.study.next_number
        if not (due(trials, anchors) or (last and before > max((a.before for a in anchors), default=1))):
            return
        started = self.clock()
        place = self.folder.anchor(before)
        # The first anchor draws its pictures again: how far two runs of one config differ is the noise floor of SSIM.
        outcome = self.runner.run(place, self.study.baseline.config, pictures=not anchors, earlier=trials)
        anchor = Anchor(before=before, outcome=outcome, seconds=self.clock() - started)
        self.study.tell_anchor(anchor)
        self._require_likeness()
        self.listen(Anchored(anchor))
