"""A running search, shown in one of three ways: live in a terminal, as plain lines elsewhere, or as JSON lines.

A ladder is shown as lines everywhere.
"""

import json
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from autotune import ladder as ladders
from autotune.confirm import Confirming
from autotune.drift import process_spread
from autotune.explore import Anchored, Ended, Event, LeftAlone, Probed, Started, Warmed
from autotune.goal import Minimise, read_minimise
from autotune.ladder_record import LadderRecord
from autotune.report import words
from autotune.report.ladder import ladder_steps, ladder_table
from autotune.report.look import heading_words, show_steps
from autotune.report.story import next_steps, read_story
from autotune.report.terminal import LiveView, front_table, header, summary
from autotune.trial import Anchor, Failure, Trial
from autotune.tuner import Result, search


def show_search(*, as_json: bool, **arguments: Any) -> Path:
    """Run autotune.search(**arguments) and show it; returns the study's folder."""
    if as_json:
        result = search(**arguments, listen=lambda event: print(json.dumps(as_data(event)), flush=True))
        print(json.dumps({"event": "finished", "folder": str(result.folder), "best": result.tuned.to_json()}))
        return result.folder
    console, lines = Console(highlight=False), PlainLines()
    show = _live if console.is_terminal else _plain
    try:
        result = show(console, lines, arguments)
    except KeyboardInterrupt:
        if lines.trials:
            console.print(lines.front(read_minimise(arguments.get("minimise", "sum"))))
        raise
    console.print(summary(result))
    show_steps(console, next_steps(read_story(result.folder)))
    return result.folder


def _live(console: Console, lines: "PlainLines", arguments: dict[str, Any]) -> Result:
    view = LiveView(arguments["budget"], arguments["time_budget_s"], arguments["confirm_rounds"])

    # Drawn once a second: the trial is being timed on the same machine.
    with Live(view, console=console, refresh_per_second=1) as live:

        def listen(event: Event) -> None:
            view.hear(event)
            for line in lines.hear(event):
                live.console.print(line, markup=False)

        return search(**arguments, listen=listen)


def _plain(console: Console, lines: "PlainLines", arguments: dict[str, Any]) -> Result:
    def listen(event: Event) -> None:
        for line in lines.hear(event):
            console.print(line, markup=False, soft_wrap=True)

    return search(**arguments, listen=listen)


class PlainLines:
    """Events -> lines: one for each finished trial. Keeps the trials, and what has been seen of the device's drift."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self.anchors: list[Anchor] = []

    def front(self, minimise: Minimise) -> RenderableType:
        return front_table(self.trials, spread=process_spread(self.trials[0], self.anchors), minimise=minimise)

    def hear(self, event: Event) -> list[str]:
        if isinstance(event, Probed):
            self.trials, self.anchors = list(event.trials), list(event.anchors)
            done = [f"going on after {len(event.trials)} finished trials"] if event.trials else []
            return [*header(event).splitlines(), *done]
        if isinstance(event, Ended):
            trial = event.trial
            self.trials.append(trial)
            what = f"trial {trial.number} ({trial.origin}) {words.config(trial.config)}"
            spread = process_spread(self.trials[0], self.anchors)
            return [f"{what}: {words.outcome(trial, self.trials[0], spread)}"]
        if isinstance(event, Anchored):
            self.anchors.append(event.anchor)
            return [f"baseline again: {words.anchor(event.anchor, self.trials[0])}"]
        if isinstance(event, Warmed):
            return [words.warm_start(event.studies, event.first)]
        if isinstance(event, LeftAlone):
            return [words.untried(event.untried)]
        if isinstance(event, Confirming) and event.round == 1:
            return [f"confirming trial {event.trial.number} against the baseline in fresh processes"]
        if isinstance(event, Confirming) and event.round == 0:
            return [f"drawing more pictures of trial {event.trial.number} and of the baseline"]
        return []


def as_data(event: Event) -> dict[str, Any]:
    """An event as JSON."""
    if isinstance(event, Probed):
        return {"event": "probed", "folder": str(event.folder), "target": event.target.to_json()}
    if isinstance(event, Started):
        return {"event": "started", "trial": event.number, "origin": event.origin, "config": dict(event.config)}
    if isinstance(event, Ended):
        return {"event": "ended", **event.trial.to_json()}
    if isinstance(event, Anchored):
        return {"event": "anchored", **event.anchor.to_json()}
    if isinstance(event, Warmed):
        studies = [
            {"name": s.name, "digest": s.digest, "device": s.device, "trials": len(s.trials)} for s in event.studies
        ]
        return {"event": "warmed", "first": event.first, "studies": studies}
    if isinstance(event, LeftAlone):
        return {"event": "left_alone", **event.untried.to_json()}
    return {"event": "confirming", "trial": event.trial.number, "round": event.round}


LEAST_COLUMNS = 110  # of a ladder's table where no terminal says how wide it is


def show_ladder(*, as_json: bool, **arguments: Any) -> None:
    """Run autotune.ladder.ladder(**arguments) and show it."""
    if as_json:
        result = ladders.ladder(**arguments, listen=lambda event: print(json.dumps(ladder_data(event)), flush=True))
        print(json.dumps({"event": "finished", "folder": str(result.folder), **result.record.to_file()}))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(console.width, LEAST_COLUMNS))
    records: list[LadderRecord] = []

    def listen(event: ladders.Event) -> None:
        records.extend([event.record] if isinstance(event, ladders.Begun | ladders.Reached) else [])
        for line in ladder_lines(event):
            console.print(line, markup=False, soft_wrap=True)

    try:
        result = ladders.ladder(**arguments, listen=listen)
    except KeyboardInterrupt:
        if records and records[-1].runs:
            console.print(ladder_table(records[-1]))
        raise
    console.print()
    console.print(ladder_table(result.record))
    console.print(f"\nladder in {result.folder}: ladder.md is this table, ladder.json everything", soft_wrap=True)
    show_steps(console, ladder_steps(result.record))


def ladder_lines(event: ladders.Event) -> list[str]:
    """Events -> lines: one for each run that has ended."""
    if isinstance(event, ladders.Begun):
        target, recipe = event.record.target, event.record.recipe
        done = len({run.rung for run in event.record.runs})
        about = f"{target.pipeline.name} ({target.pipeline.known.class_name}) on {target.device.name}"
        return [
            heading_words("ladder", f"{about}, {target.workload}"),
            f"{recipe.name}: {recipe.description}",
            f"ladder of {len(recipe.rungs)} rungs in {event.folder}",
            *([f"going on after {done} rungs"] if done else []),
        ]
    if isinstance(event, ladders.Climbing):
        return []
    run = event.run
    what = f"rung {run.rung}{' again' if event.again else f' ({event.record.recipe.rungs[run.rung].name})'}"
    if run.trial is None:
        return [f"{what}: can't act here: {run.why_not}"]
    if isinstance(run.trial.outcome, Failure):
        return [f"{what}: {run.trial.outcome.cause}: {run.trial.outcome.reason}"]
    latency = f"{words.seconds(run.trial.outcome.latency_s)} +-{run.trial.outcome.latency_spread / 2:.1%}"
    if event.again:
        return [f"{what}: {latency}"]
    first = event.record.run_of(0)
    judged = words.quality(run.trial, first.trial) if first and first.trial else "not judged"
    memory = words.memory(run.trial.outcome.peak_memory_bytes)
    return [f"{what} {words.config(run.trial.config)}: {latency}, {memory}, {judged}"]


def ladder_data(event: ladders.Event) -> dict[str, Any]:
    """An event of a ladder as JSON."""
    if isinstance(event, ladders.Begun):
        return {"event": "begun", "folder": str(event.folder), "target": event.record.target.to_json()}
    if isinstance(event, ladders.Climbing):
        return {"event": "started", "rung": event.number, "name": event.name, "config": dict(event.config)}
    return {"event": "ended", "again": event.again, **event.run.to_json()}
