"""Store: where a study keeps its trials and Optuna's database, in a folder or in memory."""

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage

from autotune.config import Value
from autotune.study.record import (
    Record,
    Untried,
    mend,
    read_anchors,
    read_job_values,
    read_trials,
    write_anchor,
    write_trial,
    write_untried,
)
from autotune.study_folder import StudyFolder, ended, set_aside
from autotune.trial import Anchor, Trial

LOG = logging.getLogger("autotune")
LOCKED_S = 20.0  # the longest wait for another program, such as a dashboard, to let go of study.db


class Store(Protocol):
    """What a study reads when it is opened, and writes as it goes on."""

    @property
    def database(self) -> Path | None:
        """The file of Optuna's database; None: in memory."""
        ...

    def trials(self) -> list[Trial]: ...

    def next_number(self, trials: Sequence[Trial]) -> int:
        """The number of the trial that comes after these, under which nothing is kept yet."""
        ...

    def anchors(self) -> list[Anchor]: ...

    def keep_trial(self, trial: Trial) -> None: ...

    def keep_anchor(self, anchor: Anchor) -> None: ...

    def keep_untried(self, untried: Untried | None) -> None: ...

    def cut_short(self) -> Mapping[int, Mapping[str, Value]]:
        """The trials that were started and never finished, but for the baseline: number -> values."""
        ...


class OnDisk:
    """The study's folder. Everything is on disk when the call returns."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder

    @property
    def database(self) -> Path | None:
        return self.folder.database

    def trials(self) -> list[Trial]:
        mend(self.folder)
        return read_trials(self.folder)

    def next_number(self, trials: Sequence[Trial]) -> int:
        return max(self.folder.next_trial(), _after(trials)) if trials else 0

    def anchors(self) -> list[Anchor]:
        return read_anchors(self.folder)

    def keep_trial(self, trial: Trial) -> None:
        write_trial(self.folder, trial)

    def keep_anchor(self, anchor: Anchor) -> None:
        write_anchor(self.folder, anchor)

    def keep_untried(self, untried: Untried | None) -> None:
        write_untried(self.folder, untried)

    def cut_short(self) -> Mapping[int, Mapping[str, Value]]:
        begun = {int(place.name): read_job_values(place) for place in self.folder.trial_folders() if not ended(place)}
        return {number: values for number, values in begun.items() if number and values is not None}


def _after(trials: Sequence[Trial]) -> int:
    return trials[-1].number + 1 if trials else 0


class InMemory:
    """Begins empty and keeps nothing: the Study object itself holds the trials."""

    @property
    def database(self) -> Path | None:
        return None

    def trials(self) -> list[Trial]:
        return []

    def next_number(self, trials: Sequence[Trial]) -> int:
        return _after(trials)

    def anchors(self) -> list[Anchor]:
        return []

    def keep_trial(self, trial: Trial) -> None:
        """Nothing to do."""

    def keep_anchor(self, anchor: Anchor) -> None:
        """Nothing to do."""

    def keep_untried(self, untried: Untried | None) -> None:
        """Nothing to do."""

    def cut_short(self) -> Mapping[int, Mapping[str, Value]]:
        return {}


class _Unflushed(sqlite3.Connection):
    """A connection that does not wait for the disk. Optuna commits some thirty times a trial, and would wait each time.

    Nothing is lost by it: after a power cut the database is made again from the trials' own files, and what a killed
    process wrote has reached the operating system.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA synchronous=OFF")


def open_view(database: Path | None, sampler: BaseSampler, record: Record) -> optuna.Study:
    """Optuna's study in this file, or a new one.

    A file that is no database of Optuna's is set aside: it is only a view, and is made again from the trials. Where
    another program holds it, the view is kept in memory.
    """
    from sqlalchemy.exc import DatabaseError

    try:
        return _create(database, sampler, record)
    except (DatabaseError, RuntimeError) as error:
        assert database is not None
        locked = "locked" in str(error)
        why = "another program holds it" if locked else f"it can't be opened ({type(error).__name__})"
        kept = None if locked or not database.exists() else set_aside(database).name
    what = f"it is made again from the trials, and kept as {kept!r}" if kept else "the search goes on without it"
    LOG.warning("%s: %s; %s.", database, why, what)
    return _create(database if kept else None, sampler, record)


def _create(database: Path | None, sampler: BaseSampler, record: Record) -> optuna.Study:
    """Optuna's study in this file, or in memory. Raises DatabaseError or RuntimeError for a file of another kind."""
    directions = ["minimize"] * (record.latencies + 2)  # peak memory and quality loss, see pareto_front.objectives
    if database is None:
        return optuna.create_study(sampler=sampler, directions=directions)
    from sqlalchemy.engine import URL

    return optuna.create_study(
        study_name="autotune",
        storage=RDBStorage(
            URL.create("sqlite", database=str(database)).render_as_string(),  # the path may hold ? and %
            engine_kwargs={"connect_args": {"factory": _Unflushed, "timeout": LOCKED_S}},
        ),
        sampler=sampler,
        directions=directions,
        load_if_exists=True,
    )
