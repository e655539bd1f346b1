"""Several studies, of other devices or other pipelines, on one page: what each technique brought where, beside what has
been published of it.

Figures of two devices are never mixed: every speedup is over the baseline of its own study.
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
    """What a technique brought in one study. `alone`: beside the baseline; `in_pick`: to the pick, with the others."""

    alone: str = ""
    in_pick: str = ""


@dataclass(frozen=True)
class Line:
    """One technique over all studies, a cell for each, and the published figures of it."""

    name: str
    cells: tuple[Cell, ...]
    published: tuple[str, ...]


@dataclass(frozen=True)
class Merged:
    """`answers`: of each study, its title, what it was measured for, its answer."""

    answers: tuple[tuple[str, str, str], ...]
    lines: tuple[Line, ...]


def merge(paths: Sequence[Path]) -> Merged:
    """Raises UserError where one is no study, or is given twice."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("a study is there twice: give every one once.")
    summaries = [read_summary(path) for path in paths]
    found = [_cells(summary) for summary in summaries]
    names = sorted({name for cells in found for name in cells}, key=_order)
    lines = [
        Line(
            " ".join("=".join(one) for one in name),
            tuple(cells.get(name, Cell()) for cells in found),
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
    """In the order in which the knobs act."""
    return list(all_knobs()).index(name[0][0]), name


def _cells(summary: StudySummary) -> dict[tuple[Named, ...], Cell]:
    """Technique -> its cell: from trials that changed nothing else, and from the ablation of the pick."""
    found: dict[tuple[Named, ...], Cell] = {}
    baseline = summary.baseline
    for trial in summary.trials if baseline else ():
        name = _technique(trial.config, Config(summary.record.baseline))
        if name and trial.measured and baseline:
            ratio, low, high = speedup_interval(trial, baseline, summary.spread)
            memory = costs(trial)[-1] / costs(baseline)[-1] - 1
            found[name] = Cell(
                alone=f"{_speed(ratio, low, high)}, {memory:+.0%} memory, {words.quality(trial, baseline)}"
            )
    for one in summary.ablation.left_out if summary.ablation else ():
        name = tuple(sorted((knob, str(value)) for knob, value in one.knobs.items()))
        if one.verdict and name[0][0] in all_knobs():
            said = _speed(one.verdict.speedup, one.verdict.low, one.verdict.high)
            found[name] = Cell(alone=found.get(name, Cell()).alone, in_pick=said)
    return found


def _speed(ratio: float, low: float, high: float) -> str:
    interval = f"({low:.2f} to {high:.2f})"
    return f"{ratio:.2f}x {interval}" if low > 1 + GAP or high < 1 / (1 + GAP) else f"~1x {interval}"


def _technique(config: Config, baseline: Config) -> tuple[Named, ...]:
    """The one knob, with what refines it, that a config changes; () where it changes more, or nothing."""
    knobs = all_knobs()
    known = [name for name in config if name in knobs]
    changed = [name for name in known if config[name] != baseline.get(name, knobs[name].default)]
    masters = [name for name in changed if knobs[name].modifies not in changed]
    return tuple(sorted((name, str(config[name])) for name in changed)) if len(masters) == 1 else ()


def _published(name: tuple[Named, ...], summary: StudySummary) -> tuple[str, ...]:
    """What others have published of this technique: its step in the shipped recipes, nearest to the first study."""
    return tuple(
        said
        for recipe in map(read_recipe, recipe_names())
        for rung in recipe.rungs[1:]
        if _is_of(rung, name)
        for said in _steps(recipe, rung, summary)
    )


def _is_of(rung: Rung, name: tuple[Named, ...]) -> bool:
    """Does the rung add this knob's value, and nothing else but what refines it?"""
    masters = [knob for knob in rung.set if find_knob(knob).modifies not in rung.set]
    main = [one for one in name if find_knob(one[0]).modifies not in dict(name)]
    return len(masters) == 1 and main == [(masters[0], str(rung.set[masters[0]][0]))]


def _steps(recipe: LadderRecipe, rung: Rung, summary: StudySummary) -> Iterable[str]:
    """One for each GPU that both this rung and the one below were published for."""
    below = recipe.rungs[recipe.below(recipe.number(rung.name))]
    mine = {figure.setting: figure for figure in _of(recipe, rung)}
    theirs = {figure.setting: figure for figure in _of(recipe, below)}
    both = [setting for setting in mine if setting in theirs and mine[setting].speedup_over(theirs[setting])]
    for gpu in dict.fromkeys(setting.gpu for setting in both):
        nearest = max((setting for setting in both if setting.gpu == gpu), key=lambda one: _likeness(one, summary))
        ratio = mine[nearest].speedup_over(theirs[nearest])
        yield f"{ratio:.2f}x ({nearest}; {recipe.published})"


def _of(recipe: LadderRecipe, rung: Rung) -> list[Figure]:
    return [figure for figure in figures() if (figure.table, figure.config) == (recipe.published, rung.published)]


def _likeness(setting: Setting, summary: StudySummary) -> tuple[bool, bool, bool, bool]:
    target = summary.record.target
    same_size = (setting.resolution, setting.resolution) == (target.workload.width, target.workload.height)
    is_same = is_of_pipeline(setting.pipeline, target.pipeline.name)
    is_here = is_of_gpu(setting.gpu, target.device.name)
    return is_same, same_size, setting.batch == target.workload.batch, is_here
