"""LadderRecord: the runs of a ladder in the order of measurement, the table derived from them, and ladder.json.

The first rung is the baseline, measured again between the other rungs. The speedup of a rung is relative to the runs of
the first rung just before and just after it, so that the drift of a device that warms up or is shared cancels.
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
    """One measurement of a rung. The first rung has several runs, every other rung has one."""

    rung: int
    below: int | None = None  # the rung that it builds on; None: this is the first rung
    stands_in: tuple[str, ...] = ()  # a sentence for each value that is not the recipe's first one
    trial: Trial | None = None  # None: the rung is not available here, and `why_not` says why
    why_not: str | None = None

    @property
    def measured(self) -> Measurement | None:
        return self.trial.measured if self.trial else None


class Row(FrozenModel):
    """One line of the table. None: not measured, or nothing to compare with.

    ratios              the latency of the first rung's run before, and of the one after, divided by this rung's
    speedup             the mean of the ratios
    is_noise            is the speedup within the differences between processes of one config?
    speedup_over_below  relative to the rung that this one builds on
    step_is_noise       the same of that step
    """

    number: int
    name: str
    below: int | None
    trial: Trial | None
    first: Trial | None  # the run of the first rung, whose pictures are the reference
    ratios: tuple[float, ...] = ()
    speedup: float | None = None
    is_noise: bool = False
    speedup_over_below: float | None = None
    step_is_noise: bool = False
    published: Figure | None = None
    published_speedup: float | None = None
    notes: tuple[str, ...] = ()


class LadderRecord(FrozenModel):
    """The content of ladder.json: the target, the recipe and the runs so far."""

    schema_version: int = SCHEMA_VERSION
    created: str
    command: str
    target: Target
    recipe: LadderRecipe
    runs: tuple[Run, ...] = ()

    def difference(self, other: "LadderRecord") -> str | None:
        """The first difference between two ladders, in words; None where one continues the other."""
        of_targets = self.target.difference(other.target)
        return of_targets or ("another recipe" if self.recipe != other.recipe else None)

    def run_of(self, rung: int) -> Run | None:
        """The first run of this rung."""
        return next((run for run in self.runs if run.rung == rung), None)

    @property
    def first_latencies_s(self) -> list[float]:
        """One for each measured run of the first rung, in the order of measurement."""
        return [run.measured.latency_s for run in self.runs if run.rung == 0 and run.measured]

    def _is_noise(self, ratio: float, rungs: int = 1) -> bool:
        """Could processes of one config differ this much?

        `rungs` is the number of rungs in the ratio. For each of them the variance of 1.5 processes counts: one for its
        own process, and a half for the mean of two, the runs of the first rung before and after it.
        """
        half = 1.96 * math.sqrt(1.5 * rungs) * spread_between(self.first_latencies_s)
        return abs(math.log(ratio)) < half + math.log(1 + GAP)

    @property
    def moved(self) -> float | None:
        """How much slower the slowest run of the first rung was than the fastest, as a share; None: one run."""
        latencies = self.first_latencies_s
        return max(latencies) / min(latencies) - 1 if len(latencies) > 1 else None

    @property
    def figures(self) -> Mapping[str, Figure]:
        """Published config -> figure, for the rungs that name one; all of one GPU and setting."""
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
        """The table: one row for each rung that has a run."""
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
        """What a reader of the row must know: failures, replaced values, another base."""
        if run.trial is None:
            return (f"not available here: {run.why_not}",)
        rung, below = self.recipe.rungs[run.rung], run.below
        notes = []
        if isinstance(run.trial.outcome, Failure):
            notes.append(f"failed ({run.trial.outcome.cause}): {run.trial.outcome.reason}")
        if below is not None and below != self.recipe.below(run.rung):
            notes.append(f"builds on rung {below}, because rung {self.recipe.below(run.rung)} is not available here")
        elif below is not None and below != run.rung - 1:
            notes.append(f"builds on rung {below}")
        return (*notes, *run.stands_in, *([rung.note] if rung.note else []))

    def to_file(self) -> dict[str, object]:
        """The JSON of ladder.json: the measurements, and the table that follows from them."""
        return {**self.to_json(), "first_rung_moved": self.moved, "table": [_plain(row) for row in self.rows()]}


def ratios_of(runs: Sequence[Run], rung: int) -> tuple[float, ...]:
    """The latencies of the first rung just before and just after this rung, divided by this rung's latency.

    One ratio where the first rung was measured on one side only; none where this rung was not measured.
    """
    at = next((i for i, run in enumerate(runs) if run.rung == rung and run.measured), None)
    if at is None:
        return ()
    own = runs[at].measured
    assert own is not None
    if rung == 0:
        return (1.0,)
    before = [run.measured for run in runs[:at] if run.rung == 0 and run.measured][-1:]
    after = [run.measured for run in runs[at:] if run.rung == 0 and run.measured][:1]
    return tuple(first.latency_s / own.latency_s for first in (*before, *after))


def _plain(row: Row) -> dict[str, object]:
    """A row as JSON, with the numbers that follow from the measurement of its trial."""
    fields = row.model_dump(mode="json", exclude={"trial", "first"})
    own = row.trial.measured if row.trial else None
    baseline = row.first.measured if row.first else None
    if row.trial is None or own is None:
        return {**fields, "config": row.trial.values if row.trial else None}
    fields |= {
        "config": row.trial.values,
        "latency_s": own.latency_s,
        "peak_memory_bytes": own.peak_memory_bytes,
    }
    if own.quality is None or baseline is None or baseline.quality is None:
        return fields
    drop = paired_drop(own.quality, baseline.quality) if own.quality.metric == "clip" else None
    return {
        **fields,
        "quality_metric": own.quality.metric,
        "clip_drop": drop.mean if drop else None,
        "clip_drop_interval": drop.half_width if drop else None,
        "clip_drop_smallest_detectable": drop.smallest_detectable if drop else None,
        "ssim_mean": own.quality.ssim_mean,
        "ssim_worst": own.quality.ssim_worst,
    }


class LadderFolder(StudyFolder):
    """The folder of a ladder: a study folder whose record is ladder.json. A rung's number is that of its trial."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.study = path / "ladder.json"
        self.table = path / "ladder.md"

    def again(self, count: int) -> Path:
        """The folder of a further run of the first rung."""
        return self.path / "again" / f"{count:04d}"

    def create(self) -> None:
        """Create the folder, or accept an empty one or a ladder. Raises UserError for anything else."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{str(self.path)!r} is a file, not a ladder's folder; name another with -o.")
        if self.path.is_dir() and not self.study.exists() and not self._is_unfinished():
            raise UserError(f"{str(self.path)!r} holds no ladder.json: it is not a ladder; name another with -o.")
        super().create()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held during the measurement: two ladders would disturb each other. Raises UserError where it is held."""
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
    """Read ladder.json. Raises UserError where it is not a ladder, or was written by a newer autotune."""
    data = read_json(folder.study, "ladder")
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{str(folder.study)!r} was written by a newer autotune (schema {version}); upgrade autotune.")
    kept = {k: v for k, v in data.items() if k in LadderRecord.model_fields} if isinstance(data, dict) else data
    return LadderRecord.parse(kept, f"the ladder {str(folder.study)!r}")


def write_ladder(folder: LadderFolder, record: LadderRecord) -> None:
    write_json(folder.study, record.to_file())
