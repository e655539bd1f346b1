"""score(): the saved pictures of a study judged anew, by any metrics, without running a trial.

Loads no torch: a child scores. Each metric's scores of all trials that have pictures (their own, or those of another
trial that stand for them) are written whole as `scores/METRIC.json`, with the identity of what gave them; a file never
holds scores of two identities.
"""

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.frozen_model import FrozenModel, read_json, write_json
from autotune.job import MetricWish, RescoreJob
from autotune.measure.metrics import Better, Score, find_metric
from autotune.measure.metrics._user import is_users, split
from autotune.measurement import Quality
from autotune.statistics.paired import Paired, paired
from autotune.study.record import Record, read_record, read_trials
from autotune.study_folder import StudyFolder, picture_name
from autotune.trial import Failure, Trial

TIMEOUT_S = 4 * 3600.0  # it may have to download a model
SCHEMA_VERSION = 1


class Scores(FrozenModel):
    """One metric's scores of a study's pictures, one a prompt. Trial 0 is the baseline."""

    schema_version: int = SCHEMA_VERSION
    created: str
    metric: str
    identity: str  # model, revision, digest of the weights; or the package; or the digest of the user's file
    better: Better
    unit: str
    device: str
    references: tuple[str, ...]  # what a picture was compared with: a digest, or "baseline"; empty: with nothing
    trials: dict[int, tuple[Score, ...]]

    def mean(self, trial: int) -> float | None:
        known = self._known(trial)
        return statistics.fmean(known) if known else None

    def worst(self, trial: int) -> float | None:
        return (min if self.better == "higher" else max)(self._known(trial), default=None)

    def drop(self, trial: int) -> Paired | None:
        """What the trial is worse by than the baseline, pair by pair; None where no pair has both scores."""
        pairs = zip(self.trials[0], self.trials[trial], strict=True)
        both = [(base, mine) for base, mine in pairs if base is not None and mine is not None]
        sign = 1 if self.better == "higher" else -1
        return paired([sign * (base - mine) for base, mine in both]) if both else None

    @property
    def is_likeness(self) -> bool:
        """Were pictures compared with the baseline's own? Then a difference is a difference, and no loss."""
        return "baseline" in self.references

    def _known(self, trial: int) -> list[float]:
        return [score for score in self.trials[trial] if score is not None]


class Scored(FrozenModel):
    """Scores that have just been taken. `notes`: what they must not be compared with."""

    path: str
    scores: Scores
    notes: tuple[str, ...]


def score(study: Path, words: Sequence[str], *, run_code: bool = False, device: str | None = None) -> list[Scored]:
    """Score every measured trial's pictures by each metric, and write the scores into the study.

    words     NAME, NAME=SOURCE (a hub id or folder of the model), or FILE.py:FUNCTION, which needs `run_code`
    device    where the models run; None: the CPU, so that the same pictures score the same everywhere

    Raises UserError for a word, a study or a picture that can't be used, with nothing written.
    """
    folder = StudyFolder(study)
    record, trials = read_record(folder), [trial for trial in read_trials(folder) if trial.judged]
    if not trials or trials[0].number != 0:
        raise UserError(f"the study {str(study)!r} has no measured baseline yet.")
    wishes = [_wish(word, record, run_code=run_code) for word in words]
    earlier = {name: read_scores(path) for name in _names(wishes) if (path := folder.scores(name)).exists()}
    where = find_device(device).torch_name if device else "cpu"
    job = RescoreJob(
        metrics=tuple(wishes),
        images={trial.number: str(_pictures(folder, trial, record)) for trial in trials},
        references=tuple(str(_reference(folder, record, i)) for i in range(len(record.target.workload.prompts))),
        prompts=record.target.workload.prompts,
        device=where,
        run_code=run_code,
    )
    with folder.lock():  # a search that is timing calls would be disturbed
        found = [_scores(data, record, where) for data in _answer(folder, job)]
        for scores in found:
            write_json(folder.scores(scores.metric), scores.to_json())
    judged = trials[0].measured.quality if trials[0].measured else None
    return [
        Scored(path=str(folder.scores(scores.metric)), scores=scores, notes=_notes(scores, earlier, judged))
        for scores in found
    ]


def _answer(folder: StudyFolder, job: RescoreJob) -> list[dict[str, object]]:
    """What a child finds: one dict a metric. Raises UserError where it finds nothing."""
    place = folder.path / "scores" / "child"
    answer = isolate.run(place, job, timeout_s=TIMEOUT_S)
    if isinstance(answer, Failure):
        log = "" if answer.cause == "bad_input" else f"; see {place / 'log.txt'}."
        raise UserError(f"{answer.reason}{log}")
    found: list[dict[str, object]] = answer["scores"]
    return found


def _wish(word: str, record: Record, *, run_code: bool) -> MetricWish:
    """The metric that the word means. Runs no code of the user's. Raises UserError."""
    if is_users(word):
        file, function = split(word)
        if not run_code:
            raise UserError(f"{word} is code of yours: add --run-code to have it run.")
        return MetricWish(name=f"{file.resolve()}:{function}")
    name, equals, source = word.partition("=")
    metric = find_metric(name)
    if equals and not source:
        raise UserError(f"--metric takes NAME or NAME=SOURCE, not {word!r}.")
    if source and not metric.takes_model:
        raise UserError(f"{name} has no model to choose: --metric {name} is all there is, not {word!r}.")
    if not source:
        return MetricWish(name=name, source=record.target.pipeline.scorer if metric.reads_scorer else None)
    here = source != "demo" and Path(source).exists()
    return MetricWish(name=name, source=str(Path(source).resolve()) if here else source)


def _names(wishes: Sequence[MetricWish]) -> list[str]:
    """What the metrics are called in the study. Raises UserError where two would have one name."""
    if not wishes:
        raise UserError("no metric is named: give one with --metric.")
    names = [f"user_{wish.name.rpartition(':')[2]}" if is_users(wish.name) else wish.name for wish in wishes]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"the metric {name} is asked for twice: their scores would overwrite each other.")
    return names


def _pictures(folder: StudyFolder, trial: Trial, record: Record) -> Path:
    """The folder of the pictures that stand for a trial. Raises UserError where one is missing."""
    images = folder.trial(trial.pictures_of) / "images"
    for index in range(len(record.target.workload.prompts)):
        if not (images / picture_name(index)).is_file():
            raise UserError(f"trial {trial.number} has no picture {str(images / picture_name(index))!r} to score.")
    return images.resolve()


def _reference(folder: StudyFolder, record: Record, index: int) -> Path:
    """The user's own picture of a prompt, or the baseline's. Raises UserError where it is missing."""
    references = record.target.workload.references
    if not references or not references[index]:
        return (folder.trial(0) / "images" / picture_name(index)).resolve()
    path = folder.reference(references[index])
    if not path.is_file():
        raise UserError(f"the study has no reference picture {str(path)!r} for prompt {index}.")
    return path.resolve()


def _scores(data: dict[str, object], record: Record, device: str) -> Scores:
    """One metric's scores, as the child gave them."""
    workload = record.target.workload
    own = workload.references or ("",) * len(workload.prompts)
    compared = tuple(digest or "baseline" for digest in own) if data.pop("needs_reference") else ()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Scores.parse({**data, "created": now, "device": device, "references": compared}, "the scores")


def _notes(scores: Scores, earlier: Mapping[str, Scores], judged: Quality | None) -> tuple[str, ...]:
    """What the scores are not, and what they must not be mixed with. `judged`: by the search."""
    notes = []
    if scores.is_likeness:
        own, count = scores.references.count("baseline"), len(scores.references)
        which = f"{own} of {count} pictures are" if own < count else "pictures are"
        notes.append(f"{which} compared with the baseline's own: what differs is unlike, not worse")
    old = earlier.get(scores.metric)
    if old and old.identity != scores.identity:
        notes.append(f"replaces scores of {old.identity}, with which these must not be compared")
    if scores.metric == "clip_score" and judged and judged.scorer not in (None, scores.identity):
        notes.append(f"the search judged by {judged.scorer}: its scores must not be compared with these")
    return tuple(notes)


def read_scores(path: Path) -> Scores:
    """Raises UserError where the file is no scores, or of a newer autotune."""
    data = read_json(path, "scores")
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{str(path)!r} was written by a newer autotune (schema {version}); upgrade autotune.")
    return Scores.parse(data, f"the scores {str(path)!r}")
