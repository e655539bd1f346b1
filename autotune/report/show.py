"""A running search, shown in one of three ways: live in a terminal, as plain lines elsewhere, or as JSON lines."""

import json
from typing import Any

from rich.console import Console
from rich.live import Live

from autotune.report import words
from autotune.report.terminal import LiveView, front_table, header, summary
from autotune.trial import Trial
from autotune.tuner import Confirming, Ended, Event, Probed, Result, Started, search


def show_search(*, as_json: bool, **arguments: Any) -> None:
    """Run autotune.search(**arguments) and show it."""
    if as_json:
        result = search(**arguments, listen=lambda event: print(json.dumps(as_data(event)), flush=True))
        print(json.dumps({"event": "finished", "folder": str(result.folder), "best": result.tuned.to_json()}))
        return
    console, lines = Console(highlight=False), PlainLines()
    show = _live if console.is_terminal else _plain
    try:
        result = show(console, lines, arguments)
    except KeyboardInterrupt:
        if lines.trials:
            console.print(front_table(lines.trials))
        raise
    console.print(summary(result))


def _live(console: Console, lines: "PlainLines", arguments: dict[str, Any]) -> Result:
    view = LiveView(arguments["budget"], arguments["time_budget_s"])

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
    """Events -> lines: one for each finished trial. Keeps the trials."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []

    def hear(self, event: Event) -> list[str]:
        if isinstance(event, Probed):
            self.trials = list(event.trials)
            done = [f"going on after {len(event.trials)} finished trials"] if event.trials else []
            return [*header(event).splitlines(), *done]
        if isinstance(event, Ended):
            trial = event.trial
            self.trials.append(trial)
            what = f"trial {trial.number} ({trial.origin}) {words.config(trial.config)}"
            return [f"{what}: {words.outcome(trial, self.trials[0])}"]
        if isinstance(event, Confirming) and event.round == 1:
            return [f"confirming trial {event.trial.number} against the baseline in fresh processes"]
        return []


def as_data(event: Event) -> dict[str, Any]:
    """An event as JSON."""
    if isinstance(event, Probed):
        return {"event": "probed", "folder": str(event.folder), "target": event.target.to_json()}
    if isinstance(event, Started):
        return {"event": "started", "trial": event.number, "origin": event.origin, "config": dict(event.config)}
    if isinstance(event, Ended):
        return {"event": "ended", **event.trial.to_json()}
    return {"event": "confirming", "trial": event.trial.number, "round": event.round}
