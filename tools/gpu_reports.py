"""GPU reports: what the steps have left under reports/gpu-CARD/STEP, as a summary and as a table for the docs."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.gpu_step import NOT_POSSIBLE, Step
from tools.gpu_steps import FEATURES, STEPS

PAGE = Path("docs/trust/seen.md")  # the page with the table, two folders below the root
SKIPPED = re.compile(r"^SKIPPED \[\d+\] \S+: (.+)$", re.MULTILINE)  # pytest's summary of what it skipped
BEGIN, END = "<!-- made by python -m tools.gpu --table -->", "<!-- end of that table -->"

Outcome = Literal["passed", "failed", "unfinished"]


@dataclass(frozen=True)
class Record:
    """What became of a step on a card; step.json.

    seconds       of every run of it, one that was cut off included
    not_possible  what the card can't do, and was therefore not tried
    """

    step: str
    card: str
    outcome: Outcome
    why: str
    ended: str
    seconds: tuple[float, ...]
    commands: tuple[str, ...]
    versions: Mapping[str, str]
    commit: str
    not_possible: tuple[str, ...] = ()


def skipped(output: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what the card can't do, tests that were skipped for another reason), as pytest lists them, each once."""
    told = list(dict.fromkeys(SKIPPED.findall(output)))
    card = tuple(reason.removeprefix(NOT_POSSIBLE) for reason in told if reason.startswith(NOT_POSSIBLE))
    return card, tuple(reason for reason in told if not reason.startswith(NOT_POSSIBLE))


def read_record(path: Path) -> Record | None:
    """The record of a step; None: the step has not run there, or not to an end."""
    if not path.is_file():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    lists = {name: tuple(data.get(name, ())) for name in ("seconds", "commands", "not_possible")}
    return Record(**{**data, **lists})


def records(reports: Path) -> dict[str, dict[str, Record]]:
    """Card -> step -> its record, of all the reports that are here."""
    found: dict[str, dict[str, Record]] = {}
    for path in sorted(reports.glob("gpu-*/*/step.json")):
        record = read_record(path)
        assert record
        found.setdefault(record.card, {})[record.step] = record
    return found


def summary(reports: Path, steps: Sequence[Step] = STEPS) -> str:
    """One line a step: what became of it on each card, with the commit that ran."""
    ran, lines = records(reports), []
    width = max(len(step.name) for step in steps)
    for step in steps:
        seen = [f"{card}: {words(by_step[step.name])}" for card, by_step in ran.items() if step.name in by_step]
        lines.append(f"{step.name:{width}}  {'; '.join(seen) or 'never run'}  ({step.shows})")
    passed = ", ".join(
        f"{sum(step.name in by_step and by_step[step.name].outcome == 'passed' for step in steps)} on {card}"
        for card, by_step in ran.items()
    )
    return "\n".join([*lines, f"passed of {len(steps)} steps: {passed or 'none, on no GPU'}"])


def words(record: Record) -> str:
    why = f", {record.why}" if record.why else ""
    cant = f"; {NOT_POSSIBLE}{', '.join(record.not_possible)}" if record.not_possible else ""
    return f"{record.outcome} {record.ended[:10]} at {record.commit}, {sum(record.seconds):.0f} s{why}{cant}"


def table(reports: Path) -> str:
    """The table. A GPU's cell names the steps that have passed, and nothing else."""
    ran = records(reports)
    lines = ["| | on a CPU | on a GPU | by the steps |", "|---|---|---|---|"]
    for feature, on_cpu, steps in FEATURES:
        lines.append(f"| {feature} | {on_cpu} | {_on_gpus(ran, steps)} | {_short(steps)} |")
    return "\n".join(lines)


def _on_gpus(ran: Mapping[str, Mapping[str, Record]], steps: Sequence[str]) -> str:
    cells = []
    for card, by_step in ran.items():
        passed = [name for name in steps if name in by_step and by_step[name].outcome == "passed"]
        if passed:
            cells.append(card if len(passed) == len(steps) else f"{card}, in part: {', '.join(passed)}")
    return "; ".join(cells) or "never"


def _short(steps: Sequence[str]) -> str:
    """The names of the steps; three and more by how all of them begin: `ladder-sdxl*`."""
    if len(steps) > 2:
        first, last = min(steps), max(steps)  # what these two share, all share
        beginning = "".join(a for n, a in enumerate(first) if last.startswith(first[: n + 1]))
        return f"`{beginning.rstrip('-')}*`"
    return ", ".join(f"`{name}`" for name in steps) or "none"


def page(text: str, reports: Path) -> str:
    """The page with its table as the reports are now."""
    before, _, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not ended:
        raise SystemExit(f"{PAGE} has no place for the table: put {BEGIN!r} and {END!r} into it")
    made = table(reports).replace("](reports/", "](../../reports/")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"
