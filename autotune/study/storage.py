"""Store: where a study keeps its trials, and Optuna its view of them: in a folder, or in memory alone (a replay)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from autotune.config import Value
from autotune.frozen_model import read_json
from autotune.study.record import Untried, read_anchors, read_trials, write_anchor, write_trial, write_untried
from autotune.study_folder import StudyFolder
from autotune.trial import Anchor, Trial


class Store(Protocol):
    @property
    def database(self) -> Path | None:
        """Optuna's; None: in memory."""
        ...

    def trials(self) -> list[Trial]: ...

    def anchors(self) -> list[Anchor]: ...

    def keep_trial(self, trial: Trial) -> None: ...

    def keep_anchor(self, anchor: Anchor) -> None: ...

    def keep_untried(self, untried: Untried | None) -> None: ...

    def cut_short(self, number: int) -> Mapping[str, Value] | None:
        """The values of the trial of this number, where it was begun and is not among the trials."""
        ...


class OnDisk:
    """Everything is in the study's folder as soon as it is kept."""

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
    """Begins empty and leaves nothing: the study object itself has the trials."""

    @property
    def database(self) -> Path | None:
        return None

    def trials(self) -> list[Trial]:
        return []

    def anchors(self) -> list[Anchor]:
        return []

    def keep_trial(self, trial: Trial) -> None:
        """The study has it."""

    def keep_anchor(self, anchor: Anchor) -> None:
        """The study has it."""

    def keep_untried(self, untried: Untried | None) -> None:
        """The study has it."""

    def cut_short(self, number: int) -> Mapping[str, Value] | None:
        return None
