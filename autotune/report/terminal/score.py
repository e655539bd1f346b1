"""Score: the scores of a study's pictures, as a table and as JSON."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotune.config import Config
from autotune.report import words
from autotune.research.score import Scored, Scores
from autotune.statistics.paired import Paired

COLUMNS = ("trial", "mean", "worst", "to the baseline", "sees from", "", "config")


def scores_table(scored: Scored, configs: Mapping[int, Config]) -> RenderableType:
    """One row a trial: its scores and their paired difference to the baseline. Notes of the metric below."""
    scores = scored.scores
    unit = f", in {scores.unit}" if scores.unit else ""
    count = f"{len(scores.trials[0])} pictures a trial"
    title = f"{scores.metric} by {scores.identity}{unit}, {count}; {scores.better} is better"
    table = Table(title=title, box=None, title_justify="left", pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("trial", "", "config") else "right")
    for trial in sorted(scores.trials):
        config = "baseline" if trial == 0 else words.config(configs[trial])
        cells = (str(trial), _number(scores.mean(trial)), _number(scores.worst(trial)), *_difference(scores, trial))
        table.add_row(*map(Text, (*cells, config)))
    below = [*(f"note: {note}." for note in scored.notes), f"written to {scored.path}", ""]
    return Group(table, Text("\n".join(below)))


def _difference(scores: Scores, trial: int) -> tuple[str, str, str]:
    """The change of the mean with its interval, the smallest detectable change, and the verdict."""
    drop = scores.drop(trial)
    if trial == 0 or drop is None:
        return "", "", ""
    sign = -1 if scores.better == "higher" else 1
    ends = [] if drop.low is None or drop.high is None else sorted((sign * drop.low, sign * drop.high))
    within = " to ".join(map(_signed, ends)) or "?"
    shown = f"{_signed(sign * drop.mean)} ({within})"
    return shown, _number(drop.smallest_detectable), "" if scores.is_likeness else verdict(drop)


def verdict(drop: Paired) -> str:
    """A paired difference in a word. "not seen": the pairs show no difference, but a small one is possible."""
    if drop.smallest_detectable is None:
        return "one pair"
    if drop.is_detectable or drop.is_gain:
        return "worse" if drop.is_detectable else "better"
    return "the same" if drop.smallest_detectable == 0 else "not seen"


def _number(value: float | None) -> str:
    """Three digits after the point for numbers below 2, else two."""
    return "" if value is None else f"{value:.{_digits(value)}f}"


def _signed(value: float) -> str:
    return f"{value + 0.0:+.{_digits(value)}f}"


def _digits(value: float) -> int:
    return 3 if abs(value) < 2 else 2


def scores_data(scored: Scored, configs: Mapping[int, Config]) -> dict[str, Any]:
    """The same as JSON."""
    scores = scored.scores
    rows = []
    for trial in sorted(scores.trials):
        drop = scores.drop(trial)
        row = {"trial": trial, "config": dict(configs[trial]), "scores": scores.trials[trial]}
        row |= {"mean": scores.mean(trial), "worst": scores.worst(trial), "drop": drop.to_json() if drop else None}
        rows.append(row)
    about = scores.model_dump(mode="json", exclude={"trials", "schema_version"})
    return {"event": "scored", **about, "path": scored.path, "notes": scored.notes, "trials": rows}
