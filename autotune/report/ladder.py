"""A ladder as a table: in a terminal, and as the Markdown of ladder.md."""

import shlex

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotune.ladder_record import LadderRecord, Row
from autotune.pipelines import wished
from autotune.report import words
from autotune.report.look import Step
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
    asked = [part for what, value in wished(pipeline).items() for part in (f"--{what}", value)]
    weights = ["--weights", pipeline.weights] if pipeline.weights != "pretrained" else []
    line = ["autotune", "search", "--pipeline", pipeline.name, *asked, *weights]
    return [(shlex.join(line), "the best combination of all settings here")]


def _times(ratio: float | None) -> str:
    return f"{ratio:.2f}x" if ratio is not None else ""


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
