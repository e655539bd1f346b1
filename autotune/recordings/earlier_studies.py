"""Earlier studies read for a warm start: folders of studies, and tables that `autotune record` has written.

Of the same family is what has the same pipeline class and the same denoiser class: knobs act on those. The checkpoint,
the size of the pictures, the device and the versions may be others.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.errors import UserError
from autotune.recordings.parquet import read_table
from autotune.study.earlier import EarlierStudy, EarlierTrial
from autotune.study.pareto_front import costs, objectives
from autotune.study.record import Record, read_record, read_trials
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Cause, Failure, Trial

# Faults that another device may well have, too. What ran out of memory or of time there may have enough here.
TELLING: frozenset[Cause] = frozenset({"crash", "error", "unsupported", "broken_output"})


@dataclass(frozen=True)
class Found:
    """An earlier study, and what it was of."""

    study: EarlierStudy
    target: Target

    def check_family(self, target: Target) -> None:
        """Raises UserError where it is of another family than this target."""
        theirs, mine = self.target.pipeline.known, target.pipeline.known
        for what in ("class_name", "denoiser_class"):
            if getattr(theirs, what) != getattr(mine, what):
                raise UserError(
                    f"--warm-start {self.study.name!r} is of another family: its {what.removesuffix('_name')} is "
                    f"{getattr(theirs, what)}, not {getattr(mine, what)}."
                )


def read_earlier(paths: Sequence[Path], *, but: Path | None = None) -> list[Found]:
    """Raises UserError, in one sentence, where one is neither study nor table, is empty, too new, or there twice.

    but   the study that is to be started warm
    """
    if but is not None and any(path.resolve() == but.resolve() for path in paths):
        raise UserError(f"--warm-start {but.name!r} is this study itself, which goes on by itself.")
    found = [_read(path) for path in paths]
    digests = [one.study.digest for one in found]
    for one in found:
        if digests.count(one.study.digest) > 1:
            raise UserError(f"--warm-start {one.study.name!r} is there twice: give every study once.")
    return found


def _read(path: Path) -> Found:
    if not path.exists():
        raise UserError(f"--warm-start: there is no study and no table at {str(path)!r}.")
    if path.is_dir():
        folder = StudyFolder(path)
        return _found(path, read_record(folder), read_trials(folder))
    if path.suffix != ".parquet":
        raise UserError(f"--warm-start takes folders of studies and recorded tables (.parquet), not {str(path)!r}.")
    recording = read_table(path)
    return _found(path, recording.record(), recording.trials())


def _found(path: Path, record: Record, trials: Sequence[Trial]) -> Found:
    name = path.resolve().name
    baseline = trials[0].measured if trials else None
    if baseline is None or baseline.quality is None or not any(trial.measured for trial in trials[1:]):
        raise UserError(f"--warm-start {name!r}: nothing beside its baseline has worked in it yet.")
    made = [one for trial in trials if (one := _trial(trial, trials[0]))]
    what = [record.target.to_json(), [one.to_json() for one in made]]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    study = EarlierStudy(
        name=name,
        digest=digest,
        device=record.target.device.name,
        metric=baseline.quality.metric,
        trials=tuple(made),
    )
    return Found(study, record.target)


def _trial(trial: Trial, baseline: Trial) -> EarlierTrial | None:
    """None of what says nothing about another device."""
    if isinstance(trial.outcome, Failure):
        return EarlierTrial(values=trial.values) if trial.outcome.cause in TELLING else None
    mine, theirs = costs(trial), costs(baseline)
    return EarlierTrial(
        values=trial.values,
        latency=mine[0] / theirs[0],
        memory=max(mine[1], 1.0) / max(theirs[1], 1.0),
        loss=objectives(trial, baseline)[-1] if trial.judged else None,
    )
