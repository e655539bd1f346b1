"""Earlier studies for a warm start, read from study folders and recorded tables.

An earlier study must be of the same family: the same pipeline class and the same denoiser class, which knobs act on.
The checkpoint, the size of the pictures, the device and the versions may differ.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.errors import UserError
from autotune.frozen_model import absolute
from autotune.recordings.parquet import read_table
from autotune.study.earlier import EarlierStudy, EarlierTrial
from autotune.study.pareto_front import costs, objectives
from autotune.study.record import Record, read_record, read_trials
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Cause, Failure, Trial

# Failures that are likely on another device, too. A config that ran out of memory or time there may have enough here.
TRANSFERABLE: frozenset[Cause] = frozenset({"crash", "error", "unsupported", "broken_output"})


@dataclass(frozen=True)
class WarmStartStudy:
    """An earlier study for a warm start, and the target that it was measured on."""

    study: EarlierStudy
    target: Target

    def check_family(self, target: Target) -> None:
        """Raises UserError if the study is of another family than this target."""
        earlier, new = self.target.pipeline.known, target.pipeline.known
        for trait in ("class_name", "denoiser_class"):
            if getattr(earlier, trait) != getattr(new, trait):
                raise UserError(
                    f"--warm-start {self.study.name!r} is of another family: its {trait.removesuffix('_name')} is "
                    f"{getattr(earlier, trait)}, not {getattr(new, trait)}."
                )


def read_earlier(paths: Sequence[Path], *, new: Path | None = None) -> list[WarmStartStudy]:
    """The earlier studies at these paths: study folders or tables.

    Raises UserError if one is neither study nor table, is empty, of a newer autotune, given twice, or `new` itself.

    new  the folder of the study that is warm-started
    """
    if new is not None and any(path.resolve() == new.resolve() for path in paths):
        raise UserError(f"--warm-start {new.name!r} is this study itself, which continues without the option.")
    earlier = [_read(path) for path in paths]
    digests = [each.study.digest for each in earlier]
    for each in earlier:
        if digests.count(each.study.digest) > 1:
            raise UserError(f"--warm-start {each.study.name!r} is given twice: give every study once.")
    return earlier


def _read(path: Path) -> WarmStartStudy:
    if not path.exists():
        raise UserError(f"--warm-start: there is no study and no table at {str(path)!r}.")
    if path.is_dir():
        folder = StudyFolder(path)
        return _warm_start_study(path, read_record(folder), read_trials(folder))
    if path.suffix != ".parquet":
        raise UserError(f"--warm-start takes folders of studies and recorded tables (.parquet), not {str(path)!r}.")
    recording = read_table(path)
    return _warm_start_study(path, recording.record(), recording.trials())


def _warm_start_study(path: Path, record: Record, trials: Sequence[Trial]) -> WarmStartStudy:
    name = absolute(path).name
    baseline = trials[0].measured if trials else None
    if baseline is None or baseline.quality is None or not any(trial.measured for trial in trials[1:]):
        raise UserError(f"--warm-start {name!r}: no config but its baseline has worked in it yet.")
    earlier = [converted for trial in trials if (converted := _earlier_trial(trial, trials[0]))]
    content = [record.target.to_json(), [trial.to_json() for trial in earlier]]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    study = EarlierStudy(
        name=name,
        digest=digest,
        device=record.target.device.name,
        metric=baseline.quality.metric,
        trials=tuple(earlier),
    )
    return WarmStartStudy(study, record.target)


def _earlier_trial(trial: Trial, baseline: Trial) -> EarlierTrial | None:
    """The trial in relation to its baseline. None for a failure that says nothing about another device."""
    if isinstance(trial.outcome, Failure):
        return EarlierTrial(values=trial.values) if trial.outcome.cause in TRANSFERABLE else None
    own, base = costs(trial), costs(baseline)
    return EarlierTrial(
        values=trial.values,
        latency=own[0] / base[0],
        memory=max(own[1], 1.0) / max(base[1], 1.0),
        loss=objectives(trial, baseline)[-1] if trial.judged else None,
    )
