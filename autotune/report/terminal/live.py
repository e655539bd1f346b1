"""Live: the view of a running search in a terminal: its phase, what it does, the best so far beside the baseline."""

import time
from collections import Counter

from rich.console import RenderableType
from rich.table import Table

from autotune.goal import Goal
from autotune.report import words
from autotune.study.pareto_front import pick_trial
from autotune.study.time_left import confirming_s, exploring_s
from autotune.trial import Anchor, Failure, Trial
from autotune.tuning.events import Anchored, Confirming, Event, Probed, TrialEnded, TrialStarted

PHASES = ("looking at the pipeline and the device", "measuring the baseline", "trying configs", "confirming the best")
BAR = 24  # characters of the longest bar


class LiveView:
    """The state of a running search as one small table. Takes the events; rich renders it.

    rounds  of the confirmation
    """

    def __init__(self, budget: int, time_budget_s: float | None, rounds: int) -> None:
        self.budget, self.time_budget_s = budget, time_budget_s
        self.phase, self.rounds, self.rounds_in_all = 0, rounds, rounds
        self.started = self.since = time.monotonic()
        self.trials: list[Trial] = []
        self.anchors: list[Anchor] = []
        self.doing = "a child process loads the libraries and looks at the model's classes"
        self.goal = Goal(max_quality_drop=float("inf"))

    @property
    def exploring(self) -> bool:
        """Are there trials to come?"""
        return self.phase < len(PHASES) - 1

    def hear(self, event: Event) -> None:
        self.since = time.monotonic()
        if isinstance(event, Probed):
            self.trials, self.anchors = list(event.trials), list(event.anchors)
            self.goal = event.goal or self.goal
            if not event.space.ranges:
                self.budget = min(self.budget, event.space.combinations())  # the budget of `record --all` has no limit
            self.phase, self.doing = 2 if self.trials else 1, "starting"
        elif isinstance(event, TrialStarted):
            self.doing = f"trial {event.number} ({event.origin}): {words.config(event.config)}"
            compiling = words.compiling(event.config, self.trials)
            self.doing += f" ({compiling})" if compiling else ""
        elif isinstance(event, TrialEnded):
            self.trials.append(event.trial)
            self.phase, self.doing = 2, "choosing the next config, or measuring the baseline again"
        elif isinstance(event, Anchored):
            self.anchors.append(event.anchor)
            self.doing = "choosing the next config"
        elif isinstance(event, Confirming):
            what = f"round {event.round}" if event.round else "more pictures"
            self.phase, self.rounds = 3, max(0, self.rounds_in_all + 1 - event.round) if event.round else 0
            self.doing = f"confirming trial {event.trial.number} against the baseline, {what}"

    def __rich__(self) -> RenderableType:
        now = time.monotonic()
        table = Table.grid(padding=(0, 1))
        table.add_row("phase", f"{self.phase + 1} of {len(PHASES)}: {PHASES[self.phase]}")
        table.add_row("now", f"{self.doing}  [{words.seconds(now - self.since)}]")
        for name, told in self._speeds():
            table.add_row(name, told)
        causes = Counter(t.outcome.cause for t in self.trials if isinstance(t.outcome, Failure))
        if causes:
            table.add_row("failed", ", ".join(f"{count} {cause}" for cause, count in causes.items()))
        table.add_row("done", f"{len(self.trials)} of {self.budget} trials, {self._left(now)}")
        return table

    def _speeds(self) -> list[tuple[str, str]]:
        """The baseline's speed and that of the best so far, each with a bar; none before the baseline is measured."""
        baseline = self.trials[0].measured if self.trials else None
        if baseline is None:
            return [("best", "nothing yet")]
        best = pick_trial(self.trials, self.trials[0], self.goal)
        if best is None or best.measured is None or best.number == 0:
            return [
                ("baseline", f"{bar(1, 1)} {words.outcome(self.trials[0], self.trials[0])}"),
                ("best", "nothing yet"),
            ]
        ratio = baseline.latency_s / (best.measured.latency_s / best.drift)
        fastest = max(1.0, ratio)
        return [
            ("baseline", f"{bar(1, fastest)} {words.seconds(baseline.latency_s)}"),
            ("best", f"{bar(ratio, fastest)} trial {best.number}: {words.outcome(best, self.trials[0])}"),
        ]

    def _left(self, now: float) -> str:
        """The estimated time left of the trials and the confirmation."""
        exploring = exploring_s(self.trials, self.anchors, self.budget) if self.exploring else 0.0
        confirming = confirming_s(self.trials, self.anchors, self.rounds)
        if exploring is None or confirming is None:
            return "time left unknown"
        if self.time_budget_s is not None:
            exploring = min(exploring, max(0.0, self.time_budget_s - (self.since - self.started)))
        left = exploring + confirming - (now - self.since)
        return f"about {words.seconds(max(left, 0))} left"


def bar(speed: float, fastest: float) -> str:
    """A bar of a speed beside the fastest: "######------------------"."""
    filled = max(1, round(BAR * speed / fastest))
    return "#" * filled + "-" * (BAR - filled)
