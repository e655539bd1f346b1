"""A running search, followed from another terminal: by what it leaves in its folder, without asking it.

It looks seldom and reads each file once: the trials are being timed on the same machine.
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
from autotune.frozen_model import read_json
from autotune.report import words
from autotune.report.summary import answer, read_summary
from autotune.report.terminal.theme import show_heading
from autotune.statistics.drift import corrected, process_spread
from autotune.study.pareto_front import pick_trial
from autotune.study.record import Record, read_record
from autotune.study_folder import StudyFolder
from autotune.trial import Anchor, Failure, Trial

EVERY_S = 5.0


@dataclass(frozen=True)
class Seen:
    """What one look has shown: a line for each trial that has finished since, and what is going on now."""

    lines: tuple[str, ...]
    now: str
    best: str
    failed: str
    done: int


class Watch:
    """The study in a folder; every look() reads what is new. Raises UserError where there is no study."""

    def __init__(self, path: Path) -> None:
        self.folder = StudyFolder(path)
        self.record: Record = read_record(self.folder)
        self._trials: dict[int, Trial] = {}
        self._anchors: dict[int, Anchor] = {}

    def look(self) -> Seen:
        new = [*self._read_trials()]
        self._read_anchors()
        anchors = sorted(self._anchors.values(), key=lambda anchor: anchor.before)
        trials = corrected([self._trials[number] for number in sorted(self._trials)], anchors)
        known = {trial.number: trial for trial in trials}
        causes = Counter(t.outcome.cause for t in trials if isinstance(t.outcome, Failure))
        return Seen(
            lines=tuple(_line(known[number], trials[0], anchors) for number in new),
            now=self._now(),
            best=self._best(trials),
            failed=", ".join(f"{count} {cause}" for cause, count in causes.most_common()) or "none",
            done=len(trials),
        )

    def _read_trials(self) -> Iterator[int]:
        for folder in self.folder.trial_folders():
            path = folder / "trial.json"
            if int(folder.name) not in self._trials and path.exists():
                self._trials[int(folder.name)] = Trial.parse(read_json(path, "trial"), f"the trial {str(path)!r}")
                yield int(folder.name)

    def _read_anchors(self) -> None:
        for folder in self.folder.anchor_folders():
            path = folder / "anchor.json"
            if int(folder.name) not in self._anchors and path.exists():
                self._anchors[int(folder.name)] = Anchor.parse(read_json(path, "anchor"), f"the anchor {str(path)!r}")

    def _now(self) -> str:
        """What the newest folder without a result is about."""
        for folder in sorted((self.folder.path / "confirm").glob("[0-9]*"), reverse=True):
            if int(folder.name) and not (folder / "confirmation.json").exists():
                return f"confirming trial {int(folder.name)} against the baseline"
        for folder in reversed(self.folder.anchor_folders()):
            if int(folder.name) not in self._anchors:
                return "measuring the baseline again"
        for folder in reversed(self.folder.trial_folders()):
            job = folder / "job.json"
            if int(folder.name) not in self._trials and job.exists():
                config = words.config(Config(read_json(job, "job")["values"]))
                return f"trial {int(folder.name)}: {config}"
        return "between two trials"

    def _best(self, trials: list[Trial]) -> str:
        best = pick_trial(trials, trials[0], self.record.goal) if trials and trials[0].measured else None
        return f"trial {best.number}: {words.outcome(best, trials[0])}" if best else "nothing yet"


def _line(trial: Trial, baseline: Trial, anchors: list[Anchor]) -> str:
    what = f"trial {trial.number} ({trial.origin}) {words.config(trial.config)}"
    spread = process_spread(baseline, anchors) if baseline.measured else 0.0
    return f"{what}: {words.outcome(trial, baseline, spread)}"


def show_watch(path: Path, *, console: Console | None = None, every_s: float = EVERY_S) -> None:
    """Show the search in this folder until it ends: live in a terminal, as plain lines elsewhere."""
    console = console or Console(highlight=False)
    watch = Watch(path)
    target = watch.record.target
    show_heading(console, "watch", f"{target.pipeline.name} on {target.device.name}, {target.workload}")
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            running = watch.folder.is_locked()  # asked first: what it left last is then read below
            seen = watch.look()
            for line in seen.lines:
                console.print(line, markup=False, soft_wrap=True)
            if not running:
                break
            if console.is_terminal:
                live.update(_state(seen), refresh=True)
            time.sleep(every_s)
    summary = read_summary(path)
    console.print(f"no search is running here (any more). {answer(summary)}", markup=False, soft_wrap=True)
    if summary.folder.report.exists():
        console.print(str(summary.folder.report), markup=False, soft_wrap=True)


def _state(seen: Seen) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for name, value in (
        ("now", seen.now),
        ("best", seen.best),
        ("failed", seen.failed),
        ("done", f"{seen.done} trials"),
    ):
        table.add_row(name, value)
    return table
