"""Table: a study as a table for other programs, one row a trial or one row a timed call, with raw figures."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import UserError, nearest
from autotune.frozen_model import write_text
from autotune.knobs import all_knobs
from autotune.measurement import Measurement, ShapeCost
from autotune.statistics.drift import PRIOR_SPREAD, process_spread, speedup_interval
from autotune.statistics.paired import paired_drop
from autotune.study.pareto_front import keeps, pareto_front
from autotune.study.record import Record, read_anchors, read_record, read_trials
from autotune.study_folder import StudyFolder
from autotune.trial import Failure, Trial

Row = Mapping[str, Any]
MEMORY = ("peak_memory_bytes", "load_peak_memory_bytes", "host_memory_bytes")
LEVELS = ("worst_place_levels", "temporal_levels")
MORE_FIGURES = ("seconds_per_picture", *MEMORY, "drift", "timed_calls")


def trials_rows(study: Path) -> list[Row]:
    """One row a trial: knobs, figures, quality with its interval, outcome. A figure that was not taken is None.

    The names of the columns end with the unit (_s, _bytes, _db). Raises UserError where the folder is no study.
    """
    folder = StudyFolder(study)
    record, trials, anchors = read_record(folder), read_trials(folder), read_anchors(folder)
    if not trials:
        return []
    baseline = trials[0]
    spread = process_spread(baseline, anchors) if baseline.measured else PRIOR_SPREAD
    front = {t.number for t in pareto_front(trials, baseline, record.goal.minimise)} if baseline.measured else set()
    knobs = _knobs(trials)
    return [
        {
            "trial": trial.number,
            "origin": trial.origin,
            **{f"knob_{name}": trial.values.get(name) for name in knobs},
            **_figures(trial, baseline, spread, record.target.workload.batch),
            **_quality(trial, baseline),
            **_standing(record, trial, baseline, front),
            "seconds": trial.seconds,
        }
        for trial in trials
    ]


def _knobs(trials: Sequence[Trial]) -> list[str]:
    """The knobs that any trial names, in the order in which they are applied; unknown ones last."""
    named = {name for trial in trials for name in trial.values}
    return [*(name for name in all_knobs() if name in named), *sorted(named - all_knobs().keys())]


def _figures(trial: Trial, baseline: Trial, spread: float, batch: int) -> Row:
    names = ("latency_s", "latency_spread", "speedup", "speedup_low", "speedup_high", "first_call_s")
    mine = trial.measured
    if mine is None:
        return dict.fromkeys((*names, *MORE_FIGURES))
    ratios = speedup_interval(trial, baseline, spread) if baseline.measured else (None, None, None)
    figures = (mine.latency_s, mine.latency_spread, *ratios, mine.first_calls_s[0])
    more = (
        mine.seconds_per_picture(batch),
        mine.peak_memory_bytes,
        mine.load_peak_memory_bytes,
        mine.host.peak_bytes if mine.host else None,
        trial.drift,
        len(mine.latency_samples_s),
    )
    return dict(zip((*names, *MORE_FIGURES), (*figures, *more), strict=True))


def _quality(trial: Trial, baseline: Trial) -> Row:
    """The mean paired drop against the baseline's pictures with its 95 % interval, and likeness."""
    names = ("quality_metric", "quality_drop", "quality_drop_low", "quality_drop_high", "quality_drop_detectable")
    mine = trial.measured.quality if trial.measured else None
    theirs = baseline.measured.quality if baseline.measured else None
    if mine is None or theirs is None:
        return dict.fromkeys((*names, "pairs", "ssim_mean", "ssim_worst", "psnr_mean_db", "lpips_mean", *LEVELS))
    drop = paired_drop(mine, theirs)
    found = (mine.metric, drop.mean, drop.low, drop.high, drop.smallest_detectable)
    return dict(zip(names, found, strict=True)) | {
        "pairs": drop.n,
        "ssim_mean": mine.ssim_mean,
        "ssim_worst": mine.ssim_worst,
        "psnr_mean_db": mine.psnr_mean_db,
        "lpips_mean": mine.lpips_mean,
        "worst_place_levels": mine.worst_place_levels,
        "temporal_levels": mine.temporal_mean_levels,
    }


def _standing(record: Record, trial: Trial, baseline: Trial, front: set[int]) -> Row:
    failure = trial.outcome if isinstance(trial.outcome, Failure) else None
    kept = keeps(trial, baseline, record.goal) if trial.judged and baseline.judged else None
    measured = trial.measured
    return {
        "outcome": failure.cause if failure else "stopped" if measured and measured.stopped else "measured",
        "reason": failure.reason if failure else measured.stopped if measured else None,
        "compiled_as": measured.compiled_as.trial if measured and measured.compiled_as else None,
        "quality_of": measured.quality_of if measured else None,
        "finding": measured.spot_check.mismatch if measured and measured.spot_check else None,
        "keeps_limits": kept,
        "on_front": trial.number in front,
    }


def samples_rows(study: Path) -> list[Row]:
    """One row a call of every trial and every anchor: the first call, warm-up and timed calls, in order.

    Raises UserError where the folder is no study.
    """
    folder = StudyFolder(study)
    read_record(folder)
    runs = [("trial", trial.number, trial.measured) for trial in read_trials(folder)]
    runs += [("anchor", anchor.before, anchor.measured) for anchor in read_anchors(folder)]
    return [
        {"run": run, "number": number, "size": size, "phase": phase, "call": call, "latency_s": seconds}
        for run, number, measured in runs
        if measured is not None
        for size, cost in _costs(measured)
        for phase, taken in _phases(cost).items()
        for call, seconds in enumerate(taken)
    ]


def _costs(measured: Measurement) -> list[tuple[str, Measurement | ShapeCost]]:
    return [("main", measured), *((str(cost.shape), cost) for cost in measured.also)]


def _phases(cost: Measurement | ShapeCost) -> dict[str, tuple[float, ...]]:
    return {"first": (cost.first_call_s,), "warmup": cost.warmup_s, "timed": cost.latency_samples_s}


def as_csv(rows: Sequence[Row]) -> str:
    """CSV with a header. Unknown values are empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_json(rows: Sequence[Row]) -> str:
    """A JSON list with one object a row."""
    return json.dumps(list(rows), indent=2, ensure_ascii=False) + "\n"


def as_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table, without columns that are the same in every row."""
    names = _interesting(rows)
    lines = [" | ".join(names), "|".join("---" for _ in names)]
    lines += [" | ".join(_cell(row[name]).replace("|", "\\|").replace("<", "&lt;") for name in names) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def as_latex(rows: Sequence[Row]) -> str:
    """A LaTeX tabular in booktabs' style, without columns that are the same in every row."""
    names = _interesting(rows)
    columns = "".join("r" if all(_is_number(row[name]) for row in rows) else "l" for name in names)
    head = " & ".join(_latex(name) for name in names)
    body = [" & ".join(_latex(_cell(row[name])) for name in names) for row in rows]
    begin, end = f"\\begin{{tabular}}{{{columns}}}", "\\end{tabular}"
    lines = [begin, "\\toprule", f"{head} \\\\", "\\midrule", *(f"{line} \\\\" for line in body), "\\bottomrule", end]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "csv": as_csv,
    "json": as_json,
    "markdown": as_markdown,
    "latex": as_latex,
}


def formatted(rows: Sequence[Row], how: str) -> str:
    """The rows as text in the format of this name. Raises UserError for an unknown format and for parquet."""
    if how == "parquet":
        raise UserError("--format parquet is for a file: name one with -o.")
    if how not in FORMATS:
        raise UserError(f"unknown format {how!r}: {nearest(how, FORMATS)}")
    return FORMATS[how](rows)


def write_table(rows: Sequence[Row], how: str, path: Path) -> None:
    """Write the rows into a file, in the format of this name. Raises UserError where that fails."""
    if how == "parquet":
        write_parquet(rows, path)
        return
    text = formatted(rows, how)
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{str(path)!r} can't be written: {error.strerror}.") from None


def _interesting(rows: Sequence[Row]) -> list[str]:
    """The columns that differ between rows, and those that are always shown."""
    names = list(rows[0]) if rows else []
    always = ("trial", "latency_s", "peak_memory_bytes", "outcome")
    return [name for name in names if name in always or len(rows) < 2 or len({str(row[name]) for row in rows}) > 1]


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Column -> its values, all of one type: words, if a column mixes words and numbers."""
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    for name, values in columns.items():
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1:
            convert = float if kinds == {int, float} else str
            columns[name] = [None if value is None else convert(value) for value in values]
    return columns


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write a Parquet file. A column that mixes words and numbers, as values of a knob may, is stored as words.

    Raises UserError where pyarrow is not installed, or the file can't be written.
    """
    try:
        from pyarrow import Table, parquet
    except ImportError:
        raise UserError(
            "Parquet needs pyarrow, which is not installed: pip install 'pyarrow>=21', or take --format csv."
        ) from None
    try:
        parquet.write_table(Table.from_pydict(_columns(rows)), path)
    except OSError as error:
        raise UserError(f"{str(path)!r} can't be written: {error.strerror or error}.") from None
