"""A ladder as it lies on disk: what was measured in the order in which it was, and the table that follows from it.

The first rung is measured again between the others. What a rung's speed is divided by is the mean over the runs of the
first rung just before and just after it: a device that warms up or is shared moves both alike.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from autotune.errors import UserError
from autotune.frozen_model import FrozenModel, read_json, write_json
from autotune.measurement import Measurement
from autotune.research.ladder.recipe import LadderRecipe
from autotune.research.published import Figure, Setting, find_figures
from autotune.statistics.drift import spread_between
from autotune.statistics.paired import paired_drop
from autotune.statistics.verdict import GAP
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Failure, Trial

SCHEMA_VERSION = 1


class Run(FrozenModel):
    """One rung, measured once. The first rung has many runs, every other one."""

    rung: int
    below: int | None = None  # the rung it builds on; None: the first one
    stands_in: tuple[str, ...] = ()  # what is not the recipe's first choice, and why
    trial: Trial | None = None  # None where it can't act here: then `why_not` says why
    why_not: str | None = None

    @property
    def measured(self) -> Measurement | None:
        return self.trial.measured if self.trial else None


class Row(FrozenModel):
    """One line of the table. None: not measured, or nothing to compare with."""

    number: int
    name: str
    below: int | None
    trial: Trial | None
    first: Trial | None  # the run of the first rung whose pictures are the reference
    ratios: tuple[float, ...] = ()  # latency of the first rung's run before, and after, over this one's
    speedup: float | None = None  # their mean
    is_noise: bool = False  # no more than what processes of one config differ by here
    speedup_over_below: float | None = None
    step_is_noise: bool = False
    published: Figure | None = None
    published_speedup: float | None = None
    notes: tuple[str, ...] = ()


class LadderRecord(FrozenModel):
    schema_version: int = SCHEMA_VERSION
    created: str
    command: str
    target: Target
    recipe: LadderRecipe
    runs: tuple[Run, ...] = ()

    def difference(self, other: "LadderRecord") -> str | None:
        """The first thing in which two ladders differ, in words; None where one continues the other."""
        found = self.target.difference(other.target)
        return found or ("another recipe" if self.recipe != other.recipe else None)

    def run_of(self, rung: int) -> Run | None:
        """The first run of this rung."""
        return next((run for run in self.runs if run.rung == rung), None)

    @property
    def first_latencies_s(self) -> list[float]:
        """Of each run of the first rung, in the order in which they ran."""
        return [run.measured.latency_s for run in self.runs if run.rung == 0 and run.measured]

    def _is_noise(self, ratio: float, rungs: int = 1) -> bool:
        """Could processes of one config differ so much? For each rung in a ratio, three are: its own, and of the first
        rung the one before it and the one after, whose mean counts half."""
        half = 1.96 * math.sqrt(1.5 * rungs) * spread_between(self.first_latencies_s)
        return abs(math.log(ratio)) < half + math.log(1 + GAP)

    @property
    def moved(self) -> float | None:
        """By which share the slowest run of the first rung was slower than its fastest."""
        latencies = self.first_latencies_s
        return max(latencies) / min(latencies) - 1 if len(latencies) > 1 else None

    @property
    def figures(self) -> Mapping[str, Figure]:
        """The published figures of its rungs, by config, all of one GPU and setting."""
        target, workload = self.target, self.target.workload
        return find_figures(
            self.recipe.published or "",
            [rung.published for rung in self.recipe.rungs if rung.published],
            pipeline=target.pipeline.name,
            width=workload.width,
            height=workload.height,
            batch=workload.batch,
            device=target.device.name,
        )

    @property
    def published_setting(self) -> Setting | None:
        return next((figure.setting for figure in self.figures.values()), None)

    def rows(self) -> list[Row]:
        """The table: one row for each rung that was reached so far."""
        figures, first = self.figures, self.run_of(0)
        reference = figures.get(self.recipe.rungs[0].published or "")
        rows: list[Row] = []
        for number, rung in enumerate(self.recipe.rungs):
            run = self.run_of(number)
            if run is None:
                continue
            ratios = ratios_of(self.runs, number)
            below = next((row.speedup for row in rows if row.number == run.below), None)
            speedup = statistics.fmean(ratios) if ratios else None
            step = speedup / below if speedup and below else None
            figure = figures.get(rung.published or "")
            rows.append(
                Row(
                    number=number,
                    name=rung.name,
                    below=run.below,
                    trial=run.trial,
                    first=first.trial if first else None,
                    ratios=ratios,
                    speedup=speedup,
                    is_noise=speedup is not None and self._is_noise(speedup),
                    speedup_over_below=step,
                    step_is_noise=step is not None and self._is_noise(step, rungs=2 if run.below else 1),
                    published=figure,
                    published_speedup=figure.speedup_over(reference) if figure and reference else None,
                    notes=self._notes(run),
                )
            )
        return rows

    def _notes(self, run: Run) -> tuple[str, ...]:
        if run.trial is None:
            return (f"can't act here: {run.why_not}",)
        rung, below = self.recipe.rungs[run.rung], run.below
        notes = []
        if isinstance(run.trial.outcome, Failure):
            notes.append(f"failed ({run.trial.outcome.cause}): {run.trial.outcome.reason}")
        if below is not None and below != self.recipe.below(run.rung):
            notes.append(f"builds on rung {below}, because rung {self.recipe.below(run.rung)} can't act here")
        elif below is not None and below != run.rung - 1:
            notes.append(f"builds on rung {below}")
        return (*notes, *run.stands_in, *([rung.note] if rung.note else []))

    def to_file(self) -> dict[str, object]:
        """As in ladder.json: what was measured, and the table for whoever does not want to derive it."""
        return {**self.to_json(), "first_rung_moved": self.moved, "table": [_plain(row) for row in self.rows()]}


def ratios_of(runs: Sequence[Run], rung: int) -> tuple[float, ...]:
    """The latency of the first rung, just before and just after, over that of this rung. Empty: not measured."""
    at = next((i for i, run in enumerate(runs) if run.rung == rung and run.measured), None)
    if at is None:
        return ()
    mine = runs[at].measured
    assert mine is not None
    if rung == 0:
        return (1.0,)
    before = [run.measured for run in runs[:at] if run.rung == 0 and run.measured][-1:]
    after = [run.measured for run in runs[at:] if run.rung == 0 and run.measured][:1]
    return tuple(first.latency_s / mine.latency_s for first in (*before, *after))


def _plain(row: Row) -> dict[str, object]:
    """A row as JSON, with the numbers that its trial's raw samples mean."""
    fields = row.model_dump(mode="json", exclude={"trial", "first"})
    mine = row.trial.measured if row.trial else None
    theirs = row.first.measured if row.first else None
    if row.trial is None or mine is None:
        return {**fields, "config": row.trial.values if row.trial else None}
    fields |= {
        "config": row.trial.values,
        "latency_s": mine.latency_s,
        "peak_memory_bytes": mine.peak_memory_bytes,
    }
    if mine.quality is None or theirs is None or theirs.quality is None:
        return fields
    drop = paired_drop(mine.quality, theirs.quality) if mine.quality.metric == "clip" else None
    return {
        **fields,
        "quality_metric": mine.quality.metric,
        "clip_drop": drop.mean if drop else None,
        "clip_drop_interval": drop.half_width if drop else None,
        "clip_drop_smallest_detectable": drop.smallest_detectable if drop else None,
        "ssim_mean": mine.quality.ssim_mean,
        "ssim_worst": mine.quality.ssim_worst,
    }


class LadderFolder(StudyFolder):
    """A study's folder, whose record is ladder.json. A rung's number is its trial's."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.study = path / "ladder.json"
        self.table = path / "ladder.md"

    def again(self, count: int) -> Path:
        """Where the first rung was measured once more."""
        return self.path / "again" / f"{count:04d}"

    def create(self) -> None:
        """Make the folder, or accept an empty one or a ladder; raises UserError for anything else."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{str(self.path)!r} is a file, not a ladder's folder; name another with -o.")
        if self.path.is_dir() and not self.study.exists() and not self._is_ours({p.name for p in self.path.iterdir()}):
            raise UserError(f"{str(self.path)!r} holds no ladder.json: it is no ladder; name another with -o.")
        super().create()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a ladder is measured: two in one folder would time each other. Raises UserError."""
        with ExitStack() as held:
            try:
                held.enter_context(super().lock())
            except UserError as error:
                if not str(error).startswith("another search"):
                    raise
                where = repr(str(self.path))
                raise UserError(
                    f"another ladder is being measured in {where}: wait for it, or use another -o."
                ) from None
            yield


def read_ladder(folder: LadderFolder) -> LadderRecord:
    """Raises UserError where ladder.json is not one, or one of a newer autotune."""
    data = read_json(folder.study, "ladder")
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{str(folder.study)!r} was written by a newer autotune (schema {version}); upgrade autotune.")
    kept = {k: v for k, v in data.items() if k in LadderRecord.model_fields} if isinstance(data, dict) else data
    return LadderRecord.parse(kept, f"the ladder {str(folder.study)!r}")


def write_ladder(folder: LadderFolder, record: LadderRecord) -> None:
    write_json(folder.study, record.to_file())
