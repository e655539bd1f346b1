"""score(): score the saved pictures of a study by any metrics, without running a trial.

A child process scores, so this module loads no torch. For each metric `scores/METRIC.json` holds the scores of all
trials that have a quality. A trial that took over the quality of another trial is scored by that trial's pictures. The
file names the identity of the metric (its model and revision, for example), and never mixes scores of two identities.
"""

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.frozen_model import FrozenModel, absolute, read_json, write_json
from autotune.job import MetricRequest, RescoreJob
from autotune.measure.metrics import Better, Score, find_metric
from autotune.measure.metrics._user import is_users, split
from autotune.measurement import Quality
from autotune.statistics.paired import Paired, paired
from autotune.study.record import Record, read_record, read_trials, warn_once
from autotune.study_folder import StudyFolder, picture_name, set_aside
from autotune.trial import Failure, Trial

TIMEOUT_S = 4 * 3600.0  # the child may have to download a model
SCHEMA_VERSION = 1


class Scores(FrozenModel):
    """The scores of one metric: trial -> one score for each prompt, in the metric's unit. Trial 0 is the baseline."""

    schema_version: int = SCHEMA_VERSION
    created: str
    metric: str
    identity: str  # the model and its revision or digest; the package; or the digest of the user's file
    better: Better
    unit: str
    device: str
    references: tuple[str, ...]  # of each prompt: a digest or "baseline"; empty: the metric compares no pictures
    trials: dict[int, tuple[Score, ...]]

    def mean(self, trial: int) -> float | None:
        """Over the pictures that have a score; None where none has."""
        known = self._known(trial)
        return statistics.fmean(known) if known else None

    def worst(self, trial: int) -> float | None:
        """Of the pictures that have a score; None where none has."""
        return (min if self.better == "higher" else max)(self._known(trial), default=None)

    def drop(self, trial: int) -> Paired | None:
        """The paired difference to the baseline, positive where the trial is worse; None where no pair has both."""
        pairs = zip(self.trials[0], self.trials[trial], strict=True)
        both = [(baseline, own) for baseline, own in pairs if baseline is not None and own is not None]
        sign = 1 if self.better == "higher" else -1
        return paired([sign * (baseline - own) for baseline, own in both]) if both else None

    @property
    def is_likeness(self) -> bool:
        """Were pictures compared with those of the baseline? Then a difference is not a loss of quality."""
        return "baseline" in self.references

    def _known(self, trial: int) -> list[float]:
        return [score for score in self.trials[trial] if score is not None]


class Scored(FrozenModel):
    """New scores and the file that they were written to. `notes`: which other scores they can't be compared with."""

    path: str
    scores: Scores
    notes: tuple[str, ...]


def score(study: Path, words: Sequence[str], *, run_code: bool = False, device: str | None = None) -> list[Scored]:
    """Score the pictures of every trial that has a quality by each metric, and write the scores into the study.

    words     the metrics: NAME, NAME=SOURCE (a hub id or folder of the model), or FILE.py:FUNCTION
    run_code  allows FILE.py:FUNCTION to run
    device    where the models run; None: the CPU, so that the same pictures get the same scores on every machine

    Raises UserError for a word, a study or a picture that can't be used; then nothing is written.
    """
    folder = StudyFolder(study)
    record, trials = read_record(folder), [trial for trial in read_trials(folder) if trial.judged]
    if not trials or trials[0].number != 0:
        raise UserError(f"the study {str(study)!r} has no measured baseline yet.")
    metrics = [_request(word, record, run_code=run_code) for word in words]
    earlier = {name: read for name in _names(metrics) if (read := _earlier_scores(folder.scores(name)))}
    card = find_device(device or "cpu")
    job = RescoreJob(
        metrics=tuple(metrics),
        images={trial.number: str(_pictures(folder, trial, record)) for trial in trials},
        references=tuple(str(_reference(folder, record, i)) for i in range(len(record.target.workload.prompts))),
        prompts=record.target.workload.prompts,
        device=card.torch_name,
        card=card,
        run_code=run_code,
        frames=record.target.workload.frames,
    )
    with folder.lock():  # scoring would disturb a search that is timing calls
        new = [_scores(data, record, card.word) for data in _run(folder, job)]
        for scores in new:
            write_json(folder.scores(scores.metric), scores.to_json())
    judged = trials[0].measured.quality if trials[0].measured else None
    return [
        Scored(path=str(folder.scores(scores.metric)), scores=scores, notes=_notes(scores, earlier, judged))
        for scores in new
    ]


def _run(folder: StudyFolder, job: RescoreJob) -> list[dict[str, object]]:
    """The result of a child process: one dict for each metric. Raises UserError where it fails."""
    place = folder.path / "scores" / "child"
    answer = isolate.run(place, job, timeout_s=TIMEOUT_S)
    if isinstance(answer, Failure):
        log = "" if answer.cause == "bad_input" else f"; see {place / 'log.txt'}."
        raise UserError(f"{answer.reason}{log}")
    scores: list[dict[str, object]] = answer["scores"]
    return scores


def _request(word: str, record: Record, *, run_code: bool) -> MetricRequest:
    """The metric that the word names. Does not run the user's code. Raises UserError."""
    if is_users(word):
        file, function = split(word)
        if not run_code:
            raise UserError(f"{word} is your own code: add --run-code to let it run.")
        return MetricRequest(name=f"{absolute(file)}:{function}")
    name, equals, source = word.partition("=")
    metric = find_metric(name)
    if equals and not source:
        raise UserError(f"--metric takes NAME or NAME=SOURCE, not {word!r}.")
    if source and not metric.takes_model:
        raise UserError(f"{name} has no model to choose: give --metric {name}, not {word!r}.")
    if not source:
        return MetricRequest(name=name, source=record.target.pipeline.scorer if metric.reads_scorer else None)
    is_local = source != "demo" and Path(source).exists()
    return MetricRequest(name=name, source=str(absolute(source)) if is_local else source)


def _names(metrics: Sequence[MetricRequest]) -> list[str]:
    """The names of the metrics in the study. Raises UserError where two have the same name."""
    if not metrics:
        raise UserError("no metric is named: give one with --metric.")
    names = [f"user_{m.name.rpartition(':')[2]}" if is_users(m.name) else m.name for m in metrics]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"the metric {name} is given twice: the scores would overwrite each other.")
    return names


def _pictures(folder: StudyFolder, trial: Trial, record: Record) -> Path:
    """The folder of a trial's pictures, or of those of its source trial. Raises UserError where one is missing."""
    images = folder.trial(trial.pictures_of) / "images"
    for index in range(len(record.target.workload.prompts)):
        if not (images / picture_name(index)).is_file():
            raise UserError(f"trial {trial.number} has no picture {str(images / picture_name(index))!r} to score.")
    return absolute(images)


def _reference(folder: StudyFolder, record: Record, index: int) -> Path:
    """The user's reference picture of a prompt, or the baseline's picture. Raises UserError where it is missing."""
    references = record.target.workload.references
    if not references or not references[index]:
        return absolute(folder.trial(0) / "images" / picture_name(index))
    path = folder.reference(references[index])
    if not path.is_file():
        raise UserError(f"the study has no reference picture {str(path)!r} for prompt {index}.")
    return absolute(path)


def _scores(data: dict[str, object], record: Record, device: str) -> Scores:
    """The scores of one metric, from the child's result."""
    workload = record.target.workload
    digests = workload.references or ("",) * len(workload.prompts)
    references = tuple(digest or "baseline" for digest in digests) if data.pop("needs_reference") else ()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Scores.parse({**data, "created": now, "device": device, "references": references}, "the scores")


def _notes(scores: Scores, earlier: Mapping[str, Scores], judged: Quality | None) -> tuple[str, ...]:
    """How the scores must not be read, and with which scores they can't be compared.

    earlier  the scores that the new ones replace, by metric
    judged   the quality that the search found
    """
    notes = []
    if scores.is_likeness:
        own, count = scores.references.count("baseline"), len(scores.references)
        which = f"{own} of {count} pictures are" if own < count else "pictures are"
        notes.append(f"{which} compared with the baseline's own: a difference is not a loss of quality")
    old = earlier.get(scores.metric)
    if old and old.identity != scores.identity:
        notes.append(f"replaces scores of {old.identity}, which can't be compared with these")
    if scores.metric == "clip_score" and judged and judged.scorer not in (None, scores.identity):
        notes.append(f"the search scored with {judged.scorer}: its scores can't be compared with these")
    return tuple(notes)


def _earlier_scores(path: Path) -> Scores | None:
    """The scores of this metric so far; None where there are none. A file that can't be used is set aside."""
    if not path.exists():
        return None
    try:
        return read_scores(path)
    except UserError as error:
        if "newer autotune" in str(error):
            raise  # it is not damaged
        warn_once(f"{error} It is kept as {set_aside(path).name!r}, and the pictures are scored again.")
        return None


def read_scores(path: Path) -> Scores:
    """Read a file of scores. Raises UserError where it is something else, or was written by a newer autotune."""
    data = read_json(path, "scores")
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{str(path)!r} was written by a newer autotune (schema {version}); upgrade autotune.")
    return Scores.parse(data, f"the scores {str(path)!r}")
