"""A study as it lies on disk: what it is (`study.json`), its trials (`trials/*/trial.json`) and its anchors
(`anchors/*/anchor.json`). Needs no optuna.

All are written whole or not at all, a trial before Optuna hears of it: what these files say is what happened.
"""

from autotune.config import Config, Value
from autotune.drift import corrected
from autotune.errors import UserError
from autotune.folders import StudyFolder, read_json, write_json
from autotune.goal import Goal
from autotune.isolation import Isolation
from autotune.noun import Noun
from autotune.target import Target
from autotune.trial import Anchor, Trial

SCHEMA_VERSION = 1


class Record(Noun):
    """What makes a study this study. A search with another record needs a folder of its own."""

    schema_version: int = SCHEMA_VERSION
    target: Target
    goal: Goal
    baseline: dict[str, Value]
    space: dict[str, tuple[Value, ...]]
    command: str
    isolation: Isolation = "spawn"  # how the trials' processes were started; before it was written there was no other
    more_prompts: tuple[str, ...] = ()  # those that the search had no time for: the pick is judged by them, too

    @property
    def all_prompts(self) -> tuple[str, ...]:
        return (*self.target.workload.prompts, *self.more_prompts)

    @property
    def baseline_config(self) -> Config:
        return Config(self.baseline)

    def difference(self, other: "Record") -> str | None:
        """The first thing in which the studies differ, in words. The command may."""
        found = self.target.difference(other.target)
        if found:
            return found
        for what in ("goal", "baseline", "space"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                return f"another {what}"
        if self.isolation != other.isolation:
            return f"its trials' processes are started by --isolation {self.isolation}"
        return None


def read_record(folder: StudyFolder) -> Record:
    """Raises UserError where the folder is not a study, or one of a newer autotune."""
    if not folder.path.is_dir() or not folder.study.exists():
        raise UserError(f"{str(folder.path)!r} is not a study folder (no study.json in it).")
    data = read_json(folder.study, "study")
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{str(folder.study)!r} was written by a newer autotune (schema {version}); upgrade autotune.")
    return Record.parse(data, f"the study {str(folder.study)!r}")


def read_trials(folder: StudyFolder) -> list[Trial]:
    """The finished trials by number, with their drift. One that was cut short has no trial.json and does not count."""
    paths = [path / "trial.json" for path in folder.trial_folders()]
    found = [Trial.parse(read_json(path, "trial"), f"the trial {str(path)!r}") for path in paths if path.exists()]
    return corrected(sorted(found, key=lambda trial: trial.number), read_anchors(folder))


def read_anchors(folder: StudyFolder) -> list[Anchor]:
    """The baseline's measurements between the trials, in the order in which they were taken."""
    paths = [path / "anchor.json" for path in folder.anchor_folders()]
    found = [Anchor.parse(read_json(path, "anchor"), f"the anchor {str(path)!r}") for path in paths if path.exists()]
    return sorted(found, key=lambda anchor: anchor.before)


def write_trial(folder: StudyFolder, trial: Trial) -> None:
    folder.trial(trial.number).mkdir(parents=True, exist_ok=True)
    write_json(folder.trial(trial.number) / "trial.json", trial.to_json())


def write_anchor(folder: StudyFolder, anchor: Anchor) -> None:
    folder.anchor(anchor.before).mkdir(parents=True, exist_ok=True)
    write_json(folder.anchor(anchor.before) / "anchor.json", anchor.to_json())
