"""Merge: several studies side by side: what each technique brings in each, beside published figures.

Figures of two studies are never mixed: every speedup is relative to the baseline of its own study.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.config import Config
from autotune.errors import UserError
from autotune.knobs import all_knobs, find_knob
from autotune.report import words
from autotune.report.summary import StudySummary, answer, read_summary
from autotune.research.ladder.recipe import LadderRecipe, Rung, read_recipe, recipe_names
from autotune.research.published import Figure, Setting, figures, is_of_gpu, is_of_pipeline
from autotune.statistics.drift import speedup_interval
from autotune.statistics.verdict import GAP
from autotune.study.pareto_front import costs

Named = tuple[str, str]  # knob, value as a word


@dataclass(frozen=True)
class Cell:
    """A technique in one study. `alone`: relative to the baseline; `in_pick`: its share of the pick, by ablation."""

    alone: str = ""
    in_pick: str = ""


@dataclass(frozen=True)
class Line:
    """One technique: a cell for each study, and its published figures."""

    name: str
    cells: tuple[Cell, ...]
    published: tuple[str, ...]


@dataclass(frozen=True)
class Merged:
    """The whole comparison. `answers`: the title, the workload and the answer of each study."""

    answers: tuple[tuple[str, str, str], ...]
    lines: tuple[Line, ...]


def merge(paths: Sequence[Path]) -> Merged:
    """Compare the studies in these folders. Raises UserError where one is no study, or is given twice."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("a study is there twice: give every one once.")
    summaries = [read_summary(path) for path in paths]
    columns = [_cells(summary) for summary in summaries]
    names = sorted({name for cells in columns for name in cells}, key=_order)
    lines = [
        Line(
            " ".join("=".join(pair) for pair in name),
            tuple(cells.get(name, Cell()) for cells in columns),
            _published(name, summaries[0]),
        )
        for name in names
    ]
    same = Counter(summary.title for summary in summaries)
    titles = [f"{s.title} ({s.folder.path.name})" if same[s.title] > 1 else s.title for s in summaries]
    told = [
        (title, str(summary.record.target.workload), answer(summary))
        for title, summary in zip(titles, summaries, strict=True)
    ]
    return Merged(tuple(told), tuple(lines))


def _order(name: tuple[Named, ...]) -> tuple[int, tuple[Named, ...]]:
    """The sort key: the order in which the knobs are applied."""
    return list(all_knobs()).index(name[0][0]), name


def _cells(summary: StudySummary) -> dict[tuple[Named, ...], Cell]:
    """Technique -> its cell: from trials that change nothing else, and from the ablation of the pick."""
    cells: dict[tuple[Named, ...], Cell] = {}
    baseline = summary.baseline
    for trial in summary.trials if baseline else ():
        name = _technique(trial.config, Config(summary.record.baseline))
        if name and trial.measured and baseline:
            ratio, low, high = speedup_interval(trial, baseline, summary.spread)
            memory = costs(trial)[-1] / costs(baseline)[-1] - 1
            cells[name] = Cell(
                alone=f"{_speed(ratio, low, high)}, {memory:+.0%} memory, {words.quality(trial, baseline)}"
            )
    for left_out in summary.ablation.left_out if summary.ablation else ():
        name, verdict = tuple(sorted((knob, str(value)) for knob, value in left_out.knobs.items())), left_out.verdict
        if verdict and name[0][0] in all_knobs():
            speed = _speed(verdict.speedup, verdict.low, verdict.high)
            cells[name] = Cell(alone=cells.get(name, Cell()).alone, in_pick=speed)
    return cells


def _speed(ratio: float, low: float, high: float) -> str:
    interval = f"({low:.2f} to {high:.2f})"
    return f"{ratio:.2f}x {interval}" if low > 1 + GAP or high < 1 / (1 + GAP) else f"~1x {interval}"


def _technique(config: Config, baseline: Config) -> tuple[Named, ...]:
    """The knob that a config changes, with its modifiers; () where it changes several knobs, or none."""
    knobs = all_knobs()
    known = [name for name in config if name in knobs]
    changed = [name for name in known if config[name] != baseline.get(name, knobs[name].default)]
    masters = [name for name in changed if knobs[name].modifies not in changed]
    return tuple(sorted((name, str(config[name])) for name in changed)) if len(masters) == 1 else ()


def _published(name: tuple[Named, ...], summary: StudySummary) -> tuple[str, ...]:
    """The published speedups of this technique: its step in the shipped recipes, nearest to the first study."""
    return tuple(
        said
        for recipe in map(read_recipe, recipe_names())
        for rung in recipe.rungs[1:]
        if _is_of(rung, name)
        for said in _steps(recipe, rung, summary)
    )


def _is_of(rung: Rung, name: tuple[Named, ...]) -> bool:
    """Does the rung add this value of the knob, and beside it modifiers at most?"""
    masters = [knob for knob in rung.set if find_knob(knob).modifies not in rung.set]
    main = [pair for pair in name if find_knob(pair[0]).modifies not in dict(name)]
    return len(masters) == 1 and main == [(masters[0], str(rung.set[masters[0]][0]))]


def _steps(recipe: LadderRecipe, rung: Rung, summary: StudySummary) -> Iterable[str]:
    """The speedup over the rung below, for each GPU that both rungs were published for."""
    below = recipe.rungs[recipe.below(recipe.number(rung.name))]
    with_it = {figure.setting: figure for figure in _of(recipe, rung)}
    without = {figure.setting: figure for figure in _of(recipe, below)}
    shared = [setting for setting in with_it if setting in without]
    both = [setting for setting in shared if with_it[setting].speedup_over(without[setting])]
    for gpu in dict.fromkeys(setting.gpu for setting in both):
        nearest = max(
            (setting for setting in both if setting.gpu == gpu), key=lambda setting: _similarity(setting, summary)
        )
        ratio = with_it[nearest].speedup_over(without[nearest])
        yield f"{ratio:.2f}x ({nearest}; {recipe.published})"


def _of(recipe: LadderRecipe, rung: Rung) -> list[Figure]:
    return [figure for figure in figures() if (figure.table, figure.config) == (recipe.published, rung.published)]


def _similarity(setting: Setting, summary: StudySummary) -> tuple[bool, bool, bool, bool]:
    """The sort key of how near a published setting is to the study: pipeline, size, batch, GPU."""
    target = summary.record.target
    same_size = (setting.resolution, setting.resolution) == (target.workload.width, target.workload.height)
    same_pipeline = is_of_pipeline(setting.pipeline, target.pipeline.name)
    same_gpu = is_of_gpu(setting.gpu, target.device.name)
    return same_pipeline, same_size, setting.batch == target.workload.batch, same_gpu
