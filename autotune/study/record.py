"""A study as it lies on disk: what it is (`study.json`), its trials (`trials/*/trial.json`) and its anchors
(`anchors/*/anchor.json`). Needs no optuna.

All are written whole or not at all, a trial before Optuna hears of it: what these files say is what happened.
"""

from autotune.config import Config, Value
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel, read_json, write_json
from autotune.goal import Goal
from autotune.isolation import Isolation
from autotune.statistics.drift import corrected
from autotune.study.earlier import EarlierStudy
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Anchor, Trial

SCHEMA_VERSION = 1


class Record(FrozenModel):
    """What makes a study this study. A search with another record needs a folder of its own."""

    schema_version: int = SCHEMA_VERSION
    target: Target
    goal: Goal
    baseline: dict[str, Value]
    space: dict[str, tuple[Value, ...]]
    command: str
    isolation: Isolation = "spawn"  # how the trials' processes were started; before it was written there was no other
    warm_start: tuple[EarlierStudy, ...] = ()  # those of their trials that are in this space
    more_prompts: tuple[str, ...] = ()  # those that the search had no time for: the pick is judged by them, too

    @property
    def all_prompts(self) -> tuple[str, ...]:
        return (*self.target.workload.prompts, *self.more_prompts)

    @property
    def baseline_config(self) -> Config:
        return Config(self.baseline)

    @property
    def latencies(self) -> int:
        """How many objectives are latencies: peak memory and quality loss come after them, see front.objectives."""
        return len(self.target.workload.shapes) if self.goal.minimise == "each" else 1

    @property
    def memory_limit_bytes(self) -> int | None:
        """What no trial but the baseline can need and still be picked, or, on a GPU, live; None: nothing is known.

        A GPU has no more than what is on the card. How much of a CPU's memory others leave, nobody knows beforehand.
        """
        device = self.target.device
        limits = [self.goal.max_vram_bytes, device.memory_bytes if device.kind == "cuda" else None]
        return min((limit for limit in limits if limit), default=None)

    def difference(self, other: "Record") -> str | None:
        """The first thing in which the studies differ, in words. The command may; `other` may have no warm start."""
        found = self.target.difference(other.target)
        if found:
            return found
        for what in ("goal", "baseline", "space"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                return f"another {what}"
        if self.isolation != other.isolation:
            return f"its trials' processes are started by --isolation {self.isolation}"
        if other.warm_start and [s.digest for s in self.warm_start] != [s.digest for s in other.warm_start]:
            begun = " and ".join(map(str, self.warm_start)) or "no earlier study"
            return f"it was started warm by {begun}, not {' and '.join(map(str, other.warm_start))}"
        return None


class Untried(FrozenModel):
    """Configs that the sampler left alone, because they are predicted not to fit. Nothing in it was measured."""

    count: int
    of: int  # so many allowed configs that were not tried were looked at
    limit_bytes: int
    least_bytes: int  # the smallest of their predicted peaks
    trials: int  # that it was predicted from


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


def read_untried(folder: StudyFolder) -> Untried | None:
    """What the last question to the sampler left alone; None: nothing."""
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
