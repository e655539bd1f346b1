"""Store: where a study keeps its trials and Optuna's database, in a folder or in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from autotune.config import Value
from autotune.frozen_model import read_json
from autotune.study.record import Untried, read_anchors, read_trials, write_anchor, write_trial, write_untried
from autotune.study_folder import StudyFolder
from autotune.trial import Anchor, Trial


class Store(Protocol):
    """What a study reads when it is opened, and writes as it goes on."""

    @property
    def database(self) -> Path | None:
        """The file of Optuna's database; None: in memory."""
        ...

    def trials(self) -> list[Trial]: ...

    def anchors(self) -> list[Anchor]: ...

    def keep_trial(self, trial: Trial) -> None: ...

    def keep_anchor(self, anchor: Anchor) -> None: ...

    def keep_untried(self, untried: Untried | None) -> None: ...

    def cut_short(self, number: int) -> Mapping[str, Value] | None:
        """The values of a trial that was started and never finished; None if there is none of this number."""
        ...


class OnDisk:
    """The study's folder. Everything is on disk when the call returns."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder

    @property
    def database(self) -> Path | None:
        return self.folder.database

    def trials(self) -> list[Trial]:
        return read_trials(self.folder)

    def anchors(self) -> list[Anchor]:
        return read_anchors(self.folder)

    def keep_trial(self, trial: Trial) -> None:
        write_trial(self.folder, trial)

    def keep_anchor(self, anchor: Anchor) -> None:
        write_anchor(self.folder, anchor)

    def keep_untried(self, untried: Untried | None) -> None:
        write_untried(self.folder, untried)

    def cut_short(self, number: int) -> Mapping[str, Value] | None:
        job = self.folder.trial(number) / "job.json"
        values: Mapping[str, Value] | None = read_json(job, "job")["values"] if job.exists() else None
        return values


class InMemory:
    """Begins empty and keeps nothing: the Study object itself holds the trials."""

    @property
    def database(self) -> Path | None:
        return None

    def trials(self) -> list[Trial]:
        return []

    def anchors(self) -> list[Anchor]:
        return []

    def keep_trial(self, trial: Trial) -> None:
        """Nothing to do."""

    def keep_anchor(self, anchor: Anchor) -> None:
        """Nothing to do."""

    def keep_untried(self, untried: Untried | None) -> None:
        """Nothing to do."""

    def cut_short(self, number: int) -> Mapping[str, Value] | None:
        return None
