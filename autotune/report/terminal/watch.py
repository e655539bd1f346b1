"""Watch: follows a running search from another terminal, by reading the files in its study's folder.

It reads seldom, and each file once: trials are being timed on the same machine.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table

from autotune.config import Config
from autotune.report import words
from autotune.report.summary import answer, read_summary
from autotune.report.terminal.theme import plain_console, show_heading
from autotune.statistics.drift import corrected, process_spread
from autotune.study.pareto_front import pick_trial
from autotune.study.record import (
    Record,
    read_anchor,
    read_job_values,
    read_record,
    read_trial,
    require_baseline,
    usable,
)
from autotune.study_folder import StudyFolder
from autotune.trial import Anchor, Failure, Trial

EVERY_S = 5.0


@dataclass(frozen=True)
class State:
    """The state of the search: a line for each trial that has ended since the last look, and what runs now."""

    lines: tuple[str, ...]
    now: str
    best: str
    failed: str
    done: int


class Watch:
    """The study in a folder. Each look() reads the files that are new. Raises UserError where there is no study."""

    def __init__(self, path: Path) -> None:
        self.folder = StudyFolder(path)
        self.record: Record = read_record(self.folder)
        self._trials: dict[int, Trial] = {}
        self._anchors: dict[int, Anchor] = {}

    def look(self) -> State:
        """Read the new files and describe the state of the search."""
        new = [*self._read_trials()]
        self._read_anchors()
        anchors = sorted(self._anchors.values(), key=lambda anchor: anchor.before)
        trials = corrected([self._trials[number] for number in sorted(self._trials)], anchors)
        require_baseline(self.folder, trials)
        known = {trial.number: trial for trial in trials}
        causes = Counter(t.outcome.cause for t in trials if isinstance(t.outcome, Failure))
        return State(
            lines=tuple(_line(known[number], trials[0], anchors) for number in new),
            now=self._now(trials),
            best=self._best(trials),
            failed=", ".join(f"{count} {cause}" for cause, count in causes.most_common()) or "none",
            done=len(trials),
        )

    def _read_trials(self) -> Iterator[int]:
        """Read the trials that have ended since the last look; yields their numbers."""
        for folder in self.folder.trial_folders():
            trial = usable(read_trial, folder) if int(folder.name) not in self._trials else None
            if trial is not None:
                self._trials[trial.number] = trial
                yield trial.number

    def _read_anchors(self) -> None:
        for folder in self.folder.anchor_folders():
            anchor = usable(read_anchor, folder) if int(folder.name) not in self._anchors else None
            if anchor is not None:
                self._anchors[anchor.before] = anchor

    def _now(self, trials: list[Trial]) -> str:
        """What is being run now: that is the newest folder without a result."""
        for folder in reversed(self.folder.confirmation_folders()):
            if int(folder.name) and not (folder / "confirmation.json").exists():
                return f"confirming trial {int(folder.name)} against the baseline"
        for folder in reversed(self.folder.anchor_folders()):
            if int(folder.name) not in self._anchors:
                return "measuring the baseline again"
        for folder in reversed(self.folder.trial_folders()):
            if int(folder.name) not in self._trials and (values := read_job_values(folder)):
                compiling = words.compiling(Config(values), trials)
                config = words.config(Config(values))
                return f"trial {int(folder.name)}: {config}{f' ({compiling})' if compiling else ''}"
        return "between two trials"

    def _best(self, trials: list[Trial]) -> str:
        best = pick_trial(trials, trials[0], self.record.goal) if trials and trials[0].measured else None
        return f"trial {best.number}: {words.outcome(best, trials[0])}" if best else "nothing yet"


def _line(trial: Trial, baseline: Trial, anchors: list[Anchor]) -> str:
    what = f"trial {trial.number} ({trial.origin}) {words.config(trial.config)}"
    spread = process_spread(baseline, anchors) if baseline.measured else 0.0
    return f"{what}: {words.outcome(trial, baseline, spread)}"


def show_watch(path: Path, *, console: Console | None = None, every_s: float = EVERY_S) -> None:
    """Show the search in this folder until it ends: live in a terminal, as plain lines elsewhere.

    Raises UserError where the folder is no study.
    """
    console = console or plain_console()
    watch = Watch(path)
    target = watch.record.target
    show_heading(console, "watch", f"{target.pipeline.name} on {target.device.name}, {target.calls}")
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            running = watch.folder.is_locked()  # before the look, so that the last look sees all files
            state = watch.look()
            for line in state.lines:
                console.print(line, markup=False, soft_wrap=True)
            if not running:
                break
            if console.is_terminal:
                live.update(_table(state), refresh=True)
            time.sleep(every_s)
    summary = read_summary(path)
    console.print(f"no search is running in this study. {answer(summary)}", markup=False, soft_wrap=True)
    if summary.folder.report.exists():
        console.print(str(summary.folder.report), markup=False, soft_wrap=True)


def _table(state: State) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_row("now", state.now)
    table.add_row("best", state.best)
    table.add_row("failed", state.failed)
    table.add_row("done", f"{state.done} trials")
    return table
