"""A running search, shown in one of three ways: live in a terminal, as plain lines elsewhere, or as JSON lines."""

import json
from typing import Any

from rich.console import Console
from rich.live import Live

from autotune.report import words
from autotune.report.terminal import LiveView, header, summary
from autotune.trial import Trial
from autotune.tuner import Confirming, Ended, Event, Probed, Result, Started, search


def show_search(*, as_json: bool, **arguments: Any) -> None:
    """Run autotune.search(**arguments) and show it."""
    if as_json:
        result = search(**arguments, listen=lambda event: print(json.dumps(as_data(event)), flush=True))
        print(json.dumps({"event": "finished", "folder": str(result.folder), "best": result.tuned.to_json()}))
        return
    console = Console(highlight=False)
    result = _live(console, arguments) if console.is_terminal else _plain(console, arguments)
    console.print(summary(result))


def _live(console: Console, arguments: dict[str, Any]) -> Result:
    view, lines = LiveView(arguments["budget"], arguments["time_budget_s"]), PlainLines()

    # Drawn once a second: the trial is being timed on the same machine.
    with Live(view, console=console, refresh_per_second=1) as live:

        def listen(event: Event) -> None:
            view.hear(event)
            for line in lines.hear(event):
                live.console.print(line, markup=False)

        return search(**arguments, listen=listen)


def _plain(console: Console, arguments: dict[str, Any]) -> Result:
    lines = PlainLines()

    def listen(event: Event) -> None:
        for line in lines.hear(event):
            console.print(line, markup=False, soft_wrap=True)

    return search(**arguments, listen=listen)


class PlainLines:
    """Events -> lines: one for each finished trial."""

    def __init__(self) -> None:
        self.baseline: Trial | None = None

    def hear(self, event: Event) -> list[str]:
        if isinstance(event, Probed):
            self.baseline = event.trials[0] if event.trials else None
            done = [f"going on after {len(event.trials)} finished trials"] if event.trials else []
            return [*header(event).splitlines(), *done]
        if isinstance(event, Ended):
            trial = event.trial
            self.baseline = self.baseline or trial
            what = "baseline" if trial.number == 0 else words.config(trial.config)
            return [f"trial {trial.number} ({trial.origin}) {what}: {words.outcome(trial, self.baseline)}"]
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
