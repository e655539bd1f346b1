"""Show: runs a search and shows it live in a terminal, as plain lines elsewhere, or as JSON lines."""

import json
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from autotune.goal import Minimise, read_minimise
from autotune.report import words
from autotune.report.searched import search
from autotune.report.summary import next_steps, read_summary
from autotune.report.terminal.live import LiveView
from autotune.report.terminal.search import front_table, header, search_result
from autotune.report.terminal.theme import show_steps
from autotune.statistics.drift import process_spread
from autotune.trial import Anchor, Trial
from autotune.tuning.confirm import ConfirmationPlan
from autotune.tuning.events import (
    Anchored,
    BaselineChosen,
    BaselineRejected,
    CardTold,
    Confirming,
    Event,
    NotConfirmed,
    Probed,
    Skipped,
    TrialEnded,
    TrialStarted,
    ValueDropped,
    WarmStarted,
)
from autotune.tuning.search import Result


def show_search(*, as_json: bool, **arguments: Any) -> Result:
    """Run search(**arguments) and print its progress and its result."""
    if as_json:
        result = search(**arguments, listen=lambda event: print(json.dumps(as_data(event)), flush=True))
        ended = {"event": "finished", "folder": str(result.folder), "best": result.tuned.to_json(), "held": result.held}
        print(json.dumps(ended), flush=True)
        return result
    console, lines = Console(highlight=False), PlainLines()
    show = _live if console.is_terminal else _plain
    try:
        result = show(console, lines, arguments)
    except KeyboardInterrupt:
        if lines.trials:
            console.print(lines.front(read_minimise(arguments.get("minimise", "sum"))))
        raise
    console.print(search_result(result))
    show_steps(console, next_steps(read_summary(result.folder)))
    return result


def _live(console: Console, lines: "PlainLines", arguments: dict[str, Any]) -> Result:
    rounds, quick = arguments["confirm_rounds"], arguments.get("quick", False)
    plan = ConfirmationPlan.of(rounds, None, quick=quick)
    view = LiveView(arguments["budget"], arguments["time_budget_s"], plan.rounds)

    # Once a second and no more often: a trial is being timed on the same machine.
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
    """Turns events into lines: one for each finished trial, and for each that compiles. Keeps trials and anchors."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self.anchors: list[Anchor] = []

    def front(self, minimise: Minimise) -> RenderableType:
        return front_table(self.trials, spread=process_spread(self.trials[0], self.anchors), minimise=minimise)

    def hear(self, event: Event) -> list[str]:
        """The lines to print for this event; none for most."""
        if isinstance(event, Probed):
            self.trials, self.anchors = list(event.trials), list(event.anchors)
            done = [f"going on after {len(event.trials)} finished trials"] if event.trials else []
            return [*header(event).splitlines(), *done]
        if isinstance(event, TrialStarted):
            compiling = words.compiling(event.config, self.trials)
            return [f"trial {event.number}: {compiling}"] if compiling else []
        if isinstance(event, TrialEnded):
            trial = event.trial
            self.trials.append(trial)
            what = f"trial {trial.number} ({trial.origin}) {words.config(trial.config)}"
            spread = process_spread(self.trials[0], self.anchors)
            return [f"{what}: {words.outcome(trial, self.trials[0], spread)}"]
        if isinstance(event, ValueDropped):
            return [f"{event.failing}: no further trial has this value"]
        if isinstance(event, Anchored):
            self.anchors.append(event.anchor)
            return [f"baseline again: {words.anchor(event.anchor, self.trials[0])}"]
        if isinstance(event, BaselineRejected):
            return [f"baseline: {event.rejected.reason}"]
        if isinstance(event, BaselineChosen):
            return [f"baseline: {words.config(event.config)} is the plainest config that fits"]
        if isinstance(event, WarmStarted):
            return [words.warm_start(event.studies, event.first)]
        if isinstance(event, CardTold):
            return [f"{event.card}: {event.says}"]
        if isinstance(event, Skipped):
            return [words.untried(event.untried)]
        if isinstance(event, Confirming) and event.round == 1:
            where = "on a second card" if event.on_second_card else "in fresh processes"
            return [f"confirming trial {event.trial.number} against the baseline {where}"]
        if isinstance(event, Confirming) and event.round == 0:
            return [f"drawing more pictures of trial {event.trial.number} and of the baseline"]
        if isinstance(event, NotConfirmed):
            return [f"trial {event.trial.number} is not confirmed: {event.why}"]
        return []


def as_data(event: Event) -> dict[str, Any]:
    """An event as JSON. The names of the events are part of the command line's interface."""
    if isinstance(event, Probed):
        return {"event": "probed", "folder": str(event.folder), "target": event.target.to_json()}
    if isinstance(event, TrialStarted):
        return {"event": "started", "trial": event.number, "origin": event.origin, "config": dict(event.config)}
    if isinstance(event, TrialEnded):
        return {"event": "ended", **event.trial.to_json()}
    if isinstance(event, ValueDropped):
        return {"event": "value_dropped", **event.failing.to_json()}
    if isinstance(event, Anchored):
        return {"event": "anchored", **event.anchor.to_json()}
    if isinstance(event, BaselineRejected):
        return {"event": "baseline_rejected", **event.rejected.to_json()}
    if isinstance(event, BaselineChosen):
        return {"event": "baseline_chosen", "config": dict(event.config), **event.choice.to_json()}
    if isinstance(event, WarmStarted):
        studies = [
            {"name": s.name, "digest": s.digest, "device": s.device, "trials": len(s.trials)} for s in event.studies
        ]
        return {"event": "warmed", "first": event.first, "studies": studies}
    if isinstance(event, CardTold):
        return {"event": "card", "card": event.card, "says": event.says}
    if isinstance(event, Skipped):
        return {"event": "left_alone", **event.untried.to_json()}
    if isinstance(event, NotConfirmed):
        return {"event": "not_confirmed", "trial": event.trial.number, "why": event.why}
    return {"event": "confirming", "trial": event.trial.number, "round": event.round}
