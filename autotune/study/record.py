"""Record: what makes a study this study; its files are read and written here, without Optuna.

The record is `study.json`, the trials are `trials/*/trial.json`, the anchors `anchors/*/anchor.json`. Each file is
written whole or not at all, and a trial before Optuna is told of it: these files are the truth, Optuna's database is
made from them.
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
from autotune.trial import Anchor, BaselineChoice, Trial

SCHEMA_VERSION = 1


class Record(FrozenModel):
    """What makes a study this study. A search with another record needs a folder of its own.

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

    @property
    def all_prompts(self) -> tuple[str, ...]:
        return (*self.target.workload.prompts, *self.more_prompts)

    @property
    def baseline_config(self) -> Config:
        return Config(self.baseline)

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
        limits = [self.goal.max_vram_bytes, device.memory_bytes if device.kind == "cuda" else None]
        return min((limit for limit in limits if limit), default=None)

    def difference(self, other: "Record") -> str | None:
        """The first thing in which `other` is another study, as a phrase; None: it is the same one.

        The command may differ, and `other` need not repeat the warm start.
        """
        target = self.target.difference(other.target)
        if target:
            return target
        for field in ("goal", "baseline", "space"):
            if getattr(self, field) != getattr(other, field):
                return f"another {field}"
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
    """The finished trials by number, with their drift. Raises UserError if a file can't be used.

    A trial that was cut short has no trial.json and does not count.
    """
    paths = [path / "trial.json" for path in folder.trial_folders()]
    trials = [Trial.parse(read_json(path, "trial"), f"the trial {str(path)!r}") for path in paths if path.exists()]
    return corrected(sorted(trials, key=lambda trial: trial.number), read_anchors(folder))


def read_anchors(folder: StudyFolder) -> list[Anchor]:
    """The anchors in the order in which they were measured. Raises UserError if a file can't be used."""
    paths = [path / "anchor.json" for path in folder.anchor_folders()]
    anchors = [Anchor.parse(read_json(path, "anchor"), f"the anchor {str(path)!r}") for path in paths if path.exists()]
    return sorted(anchors, key=lambda anchor: anchor.before)


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
