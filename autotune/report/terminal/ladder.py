"""Ladder: runs a ladder and shows it; its table in a terminal and in ladder.md; its events as JSON."""

import json
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotune.report import words
from autotune.report.terminal.theme import Step, heading_words, plain_console, show_steps
from autotune.research.ladder import ladder as ladders
from autotune.research.ladder.record import LadderFolder, LadderRecord, Row
from autotune.trial import Failure

LEAST_COLUMNS = 110  # the width of the table in a pipe, where no terminal gives one
COLUMNS = ("", "rung", "latency", "speed", "step", "memory", "quality", "published")
DOUBTFUL = 1.05  # both ratios of a rung are shown where they differ by more than this factor


def ladder_table(record: LadderRecord) -> RenderableType:
    """One row a rung so far, then notes on single rungs and the meaning of the columns."""
    table = Table(box=None, pad_edge=False)
    names = columns(record)
    for name in names:
        is_text = name in ("rung", "quality")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name != "rung")
    for row in record.rows():
        table.add_row(*(Text(cell) for cell in cells(row, newline="\n")[: len(names)]))
    return Group(table, Text("\n".join(["", *notes(record), *legend(record)])))


def columns(record: LadderRecord) -> tuple[str, ...]:
    """The names of the columns; without the published figures where no rung has one."""
    return COLUMNS if any(rung.published for rung in record.recipe.rungs) else COLUMNS[:-1]


def write_ladder_table(folder: Path, record: LadderRecord) -> None:
    """Write the rungs so far to ladder.md in the ladder's folder."""
    LadderFolder(folder).table.write_text(markdown(record), encoding="utf-8")


def markdown(record: LadderRecord) -> str:
    """The table, with what was measured, where, and by which command."""
    target = record.target
    versions = ", ".join(f"{name} {version}" for name, version in target.versions.items())
    names = columns(record)
    header = [
        f"| {' | '.join(names)} |",
        "|" + "|".join("---" if c in ("rung", "quality") else "--:" for c in names) + "|",
    ]
    rows = (cells(row, newline=", ")[: len(names)] for row in record.rows())
    lines = [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    parts = [
        f"# {record.recipe.name}: {target.pipeline.name} on {target.device.name}",
        record.recipe.description,
        f"{target.pipeline.known.class_name}, {target.pipeline.weights} weights, {target.calls}  \n"
        f"{versions}{f', driver {target.device.driver}' if target.device.driver else ''}  \n"
        f"begun {record.created}: `{record.command}`",
        "\n".join([*header, *lines]),
        "\n".join(f"- {line}" for line in [*notes(record), *legend(record)]),
    ]
    return "\n\n".join(parts) + "\n"


def cells(row: Row, *, newline: str) -> tuple[str, ...]:
    """The cells of one row; unknown ones are empty. `newline` separates the parts of a cell."""
    ratio = f"{newline}{_times(row.published_speedup)}" if row.published_speedup else ""
    published = f"{row.published}{ratio}" if row.published else ""
    if row.trial is None:
        return (str(row.number), row.name, "not available", "", "", "", "", published)
    outcome = row.trial.outcome
    if isinstance(outcome, Failure):
        return (str(row.number), row.name, outcome.cause, "", "", "", "", published)
    quality = words.quality_lines(row.trial, row.first) if row.first else []
    return (
        str(row.number),
        row.name,
        words.seconds(outcome.latency_s),
        "~1x" if row.is_noise and row.number else _times(row.speedup),
        "~1x" if row.step_is_noise else _times(row.speedup_over_below),
        words.memory(outcome.peak_memory_bytes),
        newline.join(quality).replace(", (", " ("),
        published,
    )


def notes(record: LadderRecord) -> list[str]:
    """Notes on single rungs: substitutes, rungs that are not available or failed and why, and doubtful speeds."""
    return [f"rung {row.number}: {note}" for row in record.rows() for note in (*row.notes, *_doubt(row))]


def _doubt(row: Row) -> list[str]:
    if len(row.ratios) < 2 or max(row.ratios) < DOUBTFUL * min(row.ratios):
        return []
    before, after = map(_times, row.ratios)
    return [f"{before} relative to the run of rung 0 before it, {after} relative to the one after it"]


def legend(record: LadderRecord) -> list[str]:
    """What the columns mean, and how far to trust them."""
    lines = [
        "speed: relative to rung 0, the mean of the ratios to its runs just before and just after; "
        "step: relative to the rung that it builds on; quality: relative to rung 0's pictures"
    ]
    count = sum(run.rung == 0 and run.measured is not None for run in record.runs)
    if record.moved is not None:
        lines.append(f"the latency of rung 0 itself varied by {record.moved:.1%} over the ladder ({count} runs)")
    if any((row.is_noise and row.number) or row.step_is_noise for row in record.rows()):
        lines.append("~1x: within the noise between processes of one config")
    if record.published_setting:
        source = f"{record.published_setting} ({record.recipe.published})"
        lines.append(f"published: {source}; the speed is relative to the published rung 0")
    return lines


def ladder_steps(record: LadderRecord) -> list[Step]:
    """A search tries combinations of all settings, where a ladder tries one sequence of some."""
    pipeline = record.target.pipeline
    weights = ["--weights", pipeline.weights] if pipeline.weights != "pretrained" else []
    line = ["autotune", "search", *words.naming(pipeline), *weights]
    return [(shlex.join(line), "the best combination of all settings here")]


def _times(ratio: float | None) -> str:
    return f"{ratio:.2f}x" if ratio is not None else ""


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def show_ladder(*, as_json: bool, **arguments: Any) -> None:
    """Run ladder(**arguments), print its progress and its table, and write the table to ladder.md."""
    if as_json:
        result = written_ladder(lambda event: print(json.dumps(ladder_data(event)), flush=True), arguments)
        print(json.dumps({"event": "finished", "folder": str(result.folder), **result.record.to_file()}))
        return
    console = plain_console()
    if not console.is_terminal:
        console = Console(highlight=False, width=max(console.width, LEAST_COLUMNS))
    records: list[LadderRecord] = []

    def listen(event: ladders.Event) -> None:
        records.extend([event.record] if isinstance(event, ladders.Begun | ladders.RungEnded) else [])
        for line in ladder_lines(event):
            console.print(line, markup=False, soft_wrap=True)

    try:
        result = written_ladder(listen, arguments)
    except KeyboardInterrupt:
        if records and records[-1].runs:
            console.print(ladder_table(records[-1]))
        raise
    console.print()
    console.print(ladder_table(result.record))
    console.print(f"\nladder in {result.folder}: ladder.md is this table, ladder.json everything", soft_wrap=True)
    show_steps(console, ladder_steps(result.record))


def written_ladder(listen: ladders.Listener, arguments: dict[str, Any]) -> ladders.Result:
    """Run ladder(**arguments); write the table before each event is passed on."""
    folders: list[Path] = []

    def hear(event: ladders.Event) -> None:
        if isinstance(event, ladders.Begun):
            folders.append(event.folder)
        if isinstance(event, ladders.RungEnded):
            write_ladder_table(folders[0], event.record)
        listen(event)

    result = ladders.ladder(**arguments, listen=hear)
    write_ladder_table(result.folder, result.record)
    return result


def ladder_lines(event: ladders.Event) -> list[str]:
    """The lines to print for an event: one for each run that has ended."""
    if isinstance(event, ladders.Begun):
        target, recipe = event.record.target, event.record.recipe
        done = len({run.rung for run in event.record.runs})
        about = f"{target.pipeline.name} ({target.pipeline.known.class_name}) on {target.device.name}"
        return [
            heading_words("ladder", f"{about}, {target.calls}"),
            ": ".join(filter(None, (recipe.name, recipe.description))),
            f"ladder of {len(recipe.rungs)} rungs in {event.folder}",
            *([f"going on after {done} rungs"] if done else []),
        ]
    if isinstance(event, ladders.RungStarted):
        return []
    run = event.run
    what = f"rung {run.rung}{' again' if event.again else f' ({event.record.recipe.rungs[run.rung].name})'}"
    if run.trial is None:
        return [f"{what}: not available here: {run.why_not}"]
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
    if isinstance(event, ladders.RungStarted):
        return {"event": "started", "rung": event.number, "name": event.name, "config": dict(event.config)}
    return {"event": "ended", "again": event.again, **event.run.to_json()}
