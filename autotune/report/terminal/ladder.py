"""A ladder: its progress as lines, its table in a terminal and in ladder.md."""

import json
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotune.pipelines import requested_options
from autotune.report import words
from autotune.report.terminal.theme import Step, heading_words, show_steps
from autotune.research.ladder import ladder as ladders
from autotune.research.ladder.record import LadderFolder, LadderRecord, Row
from autotune.trial import Failure

COLUMNS = ("", "rung", "latency", "speed", "step", "memory", "quality", "published")
DOUBTFUL = 1.05  # where its two ratios are so far apart, both are shown


def ladder_table(record: LadderRecord) -> RenderableType:
    """The rungs so far, what is to be said of single ones, and what the columns mean."""
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        words_in_it = name in ("rung", "quality")
        table.add_column(name, justify="left" if words_in_it else "right", no_wrap=name != "rung")
    for row in record.rows():
        table.add_row(*(Text(cell) for cell in cells(row, newline="\n")))
    return Group(table, Text("\n".join(["", *notes(record), *legend(record)])))


def write_ladder_table(folder: Path, record: LadderRecord) -> None:
    """ladder.md in the ladder's folder: the rungs so far."""
    LadderFolder(folder).table.write_text(markdown(record), encoding="utf-8")


def markdown(record: LadderRecord) -> str:
    """The table with all that is needed to read and to repeat it."""
    target = record.target
    versions = ", ".join(f"{name} {version}" for name, version in target.versions.items())
    header = [
        f"| {' | '.join(COLUMNS)} |",
        "|" + "|".join("---" if c in ("rung", "quality") else "--:" for c in COLUMNS) + "|",
    ]
    lines = [f"| {' | '.join(_escaped(c) for c in cells(row, newline=', '))} |" for row in record.rows()]
    return (
        "\n\n".join(
            [
                f"# {record.recipe.name}: {target.pipeline.name} on {target.device.name}",
                record.recipe.description,
                f"{target.pipeline.known.class_name}, {target.pipeline.weights} weights, {target.workload}  \n"
                f"{versions}{f', driver {target.device.driver}' if target.device.driver else ''}  \n"
                f"begun {record.created}: `{record.command}`",
                "\n".join([*header, *lines]),
                "\n".join(f"- {line}" for line in [*notes(record), *legend(record)]),
            ]
        )
        + "\n"
    )


def cells(row: Row, *, newline: str) -> tuple[str, ...]:
    """One row as words, column by column; what is not known is empty."""
    ratio = f"{newline}{_times(row.published_speedup)}" if row.published_speedup else ""
    published = f"{row.published}{ratio}" if row.published else ""
    if row.trial is None:
        return (str(row.number), row.name, "can't act", "", "", "", "", published)
    mine = row.trial.outcome
    if isinstance(mine, Failure):
        return (str(row.number), row.name, mine.cause, "", "", "", "", published)
    quality = words.quality_lines(row.trial, row.first) if row.first else []
    return (
        str(row.number),
        row.name,
        words.seconds(mine.latency_s),
        "~1x" if row.is_noise and row.number else _times(row.speedup),
        "~1x" if row.step_is_noise else _times(row.speedup_over_below),
        words.memory(mine.peak_memory_bytes),
        newline.join(quality).replace(", (", " ("),
        published,
    )


def notes(record: LadderRecord) -> list[str]:
    """What is to be said of single rungs: what stands in, can't act or failed, and why, and whose speed is doubtful."""
    return [f"rung {row.number}: {note}" for row in record.rows() for note in (*row.notes, *_doubt(row))]


def _doubt(row: Row) -> list[str]:
    if len(row.ratios) < 2 or max(row.ratios) < DOUBTFUL * min(row.ratios):
        return []
    before, after = map(_times, row.ratios)
    return [f"{before} against the run of rung 0 before it, {after} against the one after"]


def legend(record: LadderRecord) -> list[str]:
    """What the columns mean, and how far to trust them."""
    lines = [
        "speed: over rung 0, the mean of the ratios to its runs just before and just after; "
        "step: over the rung that it builds on; quality: against rung 0's pictures"
    ]
    count = sum(run.rung == 0 and run.measured is not None for run in record.runs)
    if record.moved is not None:
        lines.append(f"the first rung itself moved by {record.moved:.1%} over the ladder ({count} runs)")
    if any((row.is_noise and row.number) or row.step_is_noise for row in record.rows()):
        lines.append("~1x: no more than what processes of one config differ by here")
    if record.published_setting:
        lines.append(
            f"published: {record.published_setting} ({record.recipe.published}); its speed: over its own first rung"
        )
    return lines


def ladder_steps(record: LadderRecord) -> list[Step]:
    """A ladder tries one order of some settings; a search tries combinations of all."""
    pipeline = record.target.pipeline
    asked = [part for what, value in requested_options(pipeline).items() for part in (f"--{what}", value)]
    weights = ["--weights", pipeline.weights] if pipeline.weights != "pretrained" else []
    line = ["autotune", "search", "--pipeline", pipeline.name, *asked, *weights]
    return [(shlex.join(line), "the best combination of all settings here")]


def _times(ratio: float | None) -> str:
    return f"{ratio:.2f}x" if ratio is not None else ""


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


LEAST_COLUMNS = 110  # of a ladder's table where no terminal says how wide it is


def show_ladder(*, as_json: bool, **arguments: Any) -> None:
    """Run ladder(**arguments), keep its table in ladder.md, and show it."""
    if as_json:
        result = written_ladder(lambda event: print(json.dumps(ladder_data(event)), flush=True), arguments)
        print(json.dumps({"event": "finished", "folder": str(result.folder), **result.record.to_file()}))
        return
    console = Console(highlight=False)
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
    """ladder(**arguments), whose table is written before each event is passed on."""
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
    if isinstance(event, ladders.RungStarted):
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
    if isinstance(event, ladders.RungStarted):
        return {"event": "started", "rung": event.number, "name": event.name, "config": dict(event.config)}
    return {"event": "ended", "again": event.again, **event.run.to_json()}
