"""Record: what makes a study this study; its files are read and written here, without Optuna.

The record is `study.json`, the trials are `trials/*/trial.json`, the anchors `anchors/*/anchor.json`. Each file is
written whole or not at all, and a trial before Optuna is told of it: these files are the truth, Optuna's database is
made from them.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from autotune.config import Config, Range, Value
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel, read_json, write_json
from autotune.goal import Goal
from autotune.isolation import Isolation
from autotune.knobs import all_knobs, filled
from autotune.statistics.drift import corrected
from autotune.study.earlier import EarlierStudy
from autotune.study_folder import StudyFolder, set_aside
from autotune.target import Target
from autotune.trial import Anchor, BaselineChoice, Trial
from autotune.workload import open_picture

LOG = logging.getLogger("autotune")
Kept = TypeVar("Kept", Trial, Anchor)
SCHEMA_VERSION = 1


class Record(FrozenModel):
    """What makes a study this study. A search with another record needs a folder of its own.

    ranges        knob -> the ranges between whose listed values (`space`) numbers are tried, too; None: the study is
                  of an earlier version, which tried listed values only
    isolation     how the trials' processes are started; studies of earlier versions have none and used "spawn"
    warm_start    earlier studies, with those of their trials that are in this space
    more_prompts  prompts that the search has no time for: only the pick is judged by them
    baseline_choice
                  why this is the baseline; None: the user named it, or the study is of an earlier version
    """

    schema_version: int = SCHEMA_VERSION
    target: Target
    goal: Goal
    baseline: dict[str, Value]
    space: dict[str, tuple[Value, ...]]
    command: str
    isolation: Isolation = "spawn"
    warm_start: tuple[EarlierStudy, ...] = ()
    more_prompts: tuple[str, ...] = ()
    baseline_choice: BaselineChoice | None = None
    ranges: dict[str, tuple[Range, ...]] | None = None

    @property
    def all_prompts(self) -> tuple[str, ...]:
        return (*self.target.workload.prompts, *self.more_prompts)

    @property
    def baseline_config(self) -> Config:
        return filled(self.baseline)

    @property
    def latencies(self) -> int:
        """The number of objectives that are latencies. Memory and quality loss follow, see pareto_front.objectives."""
        return len(self.target.workload.shapes) if self.goal.minimise == "each" else 1

    @property
    def memory_limit_bytes(self) -> int | None:
        """The peak memory above which no trial can be picked or, on a GPU, can run; None: unknown.

        A GPU has no more than its own memory. On a CPU, how much memory other processes leave is not known beforehand.
        """
        device = self.target.device
        limits = [self.goal.max_vram_bytes, device.memory_bytes if device.is_gpu else None]
        return min((limit for limit in limits if limit), default=None)

    def difference(self, other: "Record") -> str | None:
        """The first thing in which `other` is another study, as a phrase; None: it is the same one.

        The command may differ, and `other` need not repeat the warm start.
        """
        target = self.target.difference(other.target)
        if target:
            return target
        if self.goal != other.goal:
            return "another goal"
        if self.baseline_config != other.baseline_config:
            return "another baseline"
        newer = other.space.keys() - self.space.keys()  # knobs that this study's version lacked were at their defaults
        held = {name: (knob.default,) for name, knob in all_knobs().items() if name in newer}
        if {**self.space, **held} != other.space:
            return "another space"
        if self.ranges is not None and other.ranges is not None and self.ranges != other.ranges:
            return "another space"
        if self.isolation != other.isolation:
            return f"its trials' processes are started by --isolation {self.isolation}"
        if other.warm_start and [s.digest for s in self.warm_start] != [s.digest for s in other.warm_start]:
            earlier = " and ".join(map(str, self.warm_start)) or "no earlier study"
            return f"its warm start is from {earlier}, not {' and '.join(map(str, other.warm_start))}"
        return None


class Untried(FrozenModel):
    """Configs that the last proposal left out, because they are predicted not to fit in memory. Nothing is measured.

    count        of the configs left out
    of           the number of allowed, untried configs that were considered
    limit_bytes  what they would have to fit in
    least_bytes  the smallest of their predicted peaks
    trials       the number of trials that the prediction is made from
    """

    count: int
    of: int
    limit_bytes: int
    least_bytes: int
    trials: int


def read_record(folder: StudyFolder) -> Record:
    """Raises UserError if the folder is not a study, or one of a newer autotune."""
    if not folder.path.is_dir() or not folder.study.exists():
        raise UserError(f"{str(folder.path)!r} is not a study folder (no study.json in it).")
    data = read_json(folder.study, "study")
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{str(folder.study)!r} was written by a newer autotune (schema {version}); upgrade autotune.")
    return Record.parse(data, f"the study {str(folder.study)!r}")


def read_trials(folder: StudyFolder) -> list[Trial]:
    """The finished trials by number, with their drift. A file that can't be used costs its trial and one warning.

    A trial that was cut short has no trial.json and does not count. Raises UserError where there are trials and no
    usable trial 0: they were all compared with this baseline, and no other trial may take its place.
    """
    places = folder.trial_folders()
    if places and int(places[0].name) == 0:
        try:
            read_trial(places[0])
        except UserError as error:
            raise UserError(f"{error} It is the baseline, without which the study can't be used.") from None
    found = [usable(read_trial, place) for place in places]
    trials = [trial for trial in found if trial is not None]
    require_baseline(folder, trials)
    return corrected(trials, read_anchors(folder))


def require_baseline(folder: StudyFolder, trials: Sequence[Trial]) -> None:
    """Raises UserError where there are trials, by number, and the first of them is not the baseline."""
    if trials and trials[0].number != 0:
        raise UserError(
            f"the study {str(folder.path)!r} has no measured baseline: {str(folder.trial(0) / 'trial.json')!r} is "
            "missing. Put it back, or search in another --study."
        )


def read_trial(place: Path) -> Trial | None:
    """The finished trial in this folder, with a value for each of today's knobs; None: it has not ended.

    Raises UserError where its file can't be used.
    """
    path = place / "trial.json"
    if not path.exists():
        return None
    trial = Trial.parse(read_json(path, "trial"), f"the trial {str(path)!r}")
    _check_number(path, trial.number)
    return trial.model_copy(update={"values": dict(filled(trial.values))})


def read_anchors(folder: StudyFolder) -> list[Anchor]:
    """The anchors in the order in which they were measured. A file that can't be used costs its anchor, as above."""
    found = [usable(read_anchor, place) for place in folder.anchor_folders()]
    return [anchor for anchor in found if anchor is not None]


def read_anchor(place: Path) -> Anchor | None:
    """The anchor in this folder; None: it has not ended. Raises UserError where its file can't be used."""
    path = place / "anchor.json"
    if not path.exists():
        return None
    anchor = Anchor.parse(read_json(path, "anchor"), f"the anchor {str(path)!r}")
    _check_number(path, anchor.before)
    return anchor


def usable(read: Callable[[Path], Kept | None], place: Path) -> Kept | None:
    """What `read` reads in this folder; None, with a warning, where it can't be used."""
    try:
        return read(place)
    except UserError as error:
        warn_once(f"{error} The study is used without it.")
        return None


def usable_picture(path: Path) -> bool:
    """Is this picture whole? False with a warning: it was cut short, is no picture or unpacks to too much."""
    try:
        open_picture(path, f"picture {str(path)!r}")
    except UserError as error:
        warn_once(f"{error} It is left out.")
        return False
    return True


def read_job_values(place: Path) -> dict[str, Value] | None:
    """The config of the trial that was begun in this folder; None: none was, or its job.json was cut short."""
    try:
        return _Begun.model_validate(read_json(place / "job.json", "job")).values
    except (UserError, ValidationError):
        return None


class _Begun(BaseModel):
    """What is read of a trial's job.json."""

    values: dict[str, Value]


def _check_number(path: Path, number: int) -> None:
    """Raises UserError where the file says another number than its folder."""
    if number != int(path.parent.name):
        raise UserError(f"{str(path)!r} can't be used: it says that its number is {number}.")


def mend(folder: StudyFolder) -> None:
    """Set damaged files of trials and anchors aside, each with a warning, so that a search can go on.

    A damaged baseline is set aside only where no other trial was compared with it. Raises UserError.
    """
    places = folder.trial_folders()
    others = any(int(place.name) and (place / "trial.json").exists() for place in places)
    for place in places:
        if int(place.name) or not others:
            _set_aside_if_damaged(place / "trial.json", read_trial, "Its config may be tried again")
    for place in folder.anchor_folders():
        _set_aside_if_damaged(place / "anchor.json", read_anchor, "The others are used")


def _set_aside_if_damaged(path: Path, read: Callable[[Path], object], rest: str) -> None:
    try:
        read(path.parent)
    except UserError as error:
        warn_once(f"{error} {rest}; the file is kept as {set_aside(path).name!r}.")


@cache
def warn_once(sentence: str) -> None:
    """Log this warning, the first time in this process: a command may read a study several times."""
    LOG.warning(sentence)


def read_untried(folder: StudyFolder) -> Untried | None:
    """What the last proposal left out; None: nothing. Raises UserError if the file can't be used."""
    if not folder.untried.exists():
        return None
    return Untried.parse(read_json(folder.untried, "list"), f"the list {str(folder.untried)!r}")


def write_untried(folder: StudyFolder, untried: Untried | None) -> None:
    if untried is not None:
        write_json(folder.untried, untried.to_json())
    else:
        folder.untried.unlink(missing_ok=True)


def write_trial(folder: StudyFolder, trial: Trial) -> None:
    folder.trial(trial.number).mkdir(parents=True, exist_ok=True)
    write_json(folder.trial(trial.number) / "trial.json", trial.to_json())


def write_anchor(folder: StudyFolder, anchor: Anchor) -> None:
    folder.anchor(anchor.before).mkdir(parents=True, exist_ok=True)
    write_json(folder.anchor(anchor.before) / "anchor.json", anchor.to_json())
