"""The verdicts in a terminal: the counts, then the failures."""

from collections import Counter
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotune.compat.record import CompatRecord, PipelineVerdicts, Verdict

PAIRS = ("fine", "failed", "refused", "skipped", "not run")
VALUES = ("fine", "failed", "impossible")
ALONE = ("fine", "failed", "not run")


def progress(name: str, verdicts: PipelineVerdicts) -> str:
    """One line: the counts of a pipeline so far."""
    counts = verdicts.counts()
    alone = Counter[str](verdict.outcome for verdict in verdicts.singles.values())
    pairs = ", ".join(f"{counts[outcome]} {outcome}" for outcome in PAIRS if counts[outcome])
    return f"{name}: values {', '.join(f'{alone[o]} {o}' for o in ALONE if alone[o])}; pairs {pairs}"


def summary(record: CompatRecord) -> RenderableType:
    """The counts of all pipelines as a table, then the failures and the challenged refusals."""
    table = Table(box=None, pad_edge=False, title="values alone, and pairs of values", title_justify="left")
    for column in ("", *VALUES, "|", *PAIRS):
        table.add_column(column, justify="right" if column else "left")
    for name, verdicts in record.pipelines.items():
        alone = Counter[str](verdict.outcome for verdict in verdicts.singles.values())
        counts = verdicts.counts()
        values = [str(alone[outcome]) for outcome in VALUES]
        table.add_row(name, *values, "|", *(str(counts[outcome]) for outcome in PAIRS))
    return Group(table, Text("\n".join(["", *_failures(record), *_challenges(record)])))


def _failures(record: CompatRecord) -> Iterator[str]:
    failed = [line for line in _lines(record) if line[2].outcome == "failed"]
    yield f"failed: {len(failed)}" if failed else "nothing failed"
    for pipeline, name, verdict in failed:
        yield f"  {pipeline}: {name}: {verdict.cause}: {verdict.reason}"


def _challenges(record: CompatRecord) -> Iterator[str]:
    """The refused pairs that were run, and those of them that work."""
    tried = [(p, name, verdict) for p, name, verdict in _lines(record) if verdict.challenged]
    needless = [line for line in tried if line[2].challenged and line[2].challenged.outcome == "fine"]
    if tried:
        yield f"refused pairs that were run nevertheless: {len(tried)}, of which work here: {len(needless)}"
    for pipeline, name, verdict in needless:
        yield f"  {pipeline}: {name}: refused because {verdict.reason}"


def _lines(record: CompatRecord) -> Iterator[tuple[str, str, Verdict]]:
    for pipeline, verdicts in record.pipelines.items():
        for name, verdict in (*verdicts.singles.items(), *verdicts.pairs.items()):
            yield pipeline, name, verdict
