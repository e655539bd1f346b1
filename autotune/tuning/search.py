"""search(): the story of a run, top to bottom: probe, baseline, explore, confirm, export.

Loads no torch: whatever touches a pipeline happens in child processes. Prints nothing: `listen` hears the events.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

from autotune.config import Config, Value
from autotune.device import Device
from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.probe import probe
from autotune.execution.runner import Runner
from autotune.frozen_model import write_json
from autotune.goal import Budget, Goal, read_minimise
from autotune.isolation import Isolation
from autotune.knobs import check_value, complete, find_knob
from autotune.pipeline import Pipeline, Weights
from autotune.pipelines import resolve, wished
from autotune.production.tuned_config import TunedConfig
from autotune.recordings.earlier_studies import Found, read_earlier
from autotune.statistics.drift import process_spread
from autotune.study.earlier import EarlierStudy
from autotune.study.noise_floor import NoiseFloor, noise_floor
from autotune.study.pareto_front import pareto_front
from autotune.study.proposals import check_sampler
from autotune.study.record import Record, read_record
from autotune.study.space import SearchSpace, SpaceFile, make_space, read_space_file
from autotune.study.study import Study
from autotune.study.warm_start import fitting
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Trial
from autotune.tuning.confirm import ConfirmationPlan, Confirmer
from autotune.tuning.explore import Explorer, Listener, Probed
from autotune.tuning.export import export, read_thumbnails
from autotune.tuning.probe_space import PROMPTS_IN_SEARCH, default_prompts, default_space
from autotune.workload import Prompts, WorkloadRequest, read_prompts, request_workload

PROMPTS_OF_USERS = 32  # of a --prompts file, at most so many in each trial; the pick is judged by all
DEFAULT_QUALITY_DROP = {"clip": 0.3, "likeness": 10.0}  # CLIP points (1 % or less); 100 x (1 - SSIM of 0.9)


@dataclass(frozen=True)
class Result:
    """What a search leaves: the trials, the front, and what was written to best.json."""

    folder: Path
    record: Record
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    best: Trial
    tuned: TunedConfig
    exhausted: bool  # every config that the space allows was tried
    spread: float  # of the baseline's latency from process to process, as a share
    noise_floor: NoiseFloor  # of likeness


def search(
    pipeline: str = "demo",
    *,
    task: str | None = None,
    controlnet: str | None = None,
    lora: str | None = None,
    budget: int = 50,
    study: str | Path | None = None,
    time_budget_s: float | None = None,
    space: str | Path | None = None,
    fix: Mapping[str, Value] | None = None,
    exclude: Iterable[str] = (),
    max_vram_bytes: int | None = None,
    max_latency_s: float | None = None,
    max_quality_drop: float | None = None,
    prompts: str | Path | None = None,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    workloads: Sequence[tuple[int, int, int]] = (),
    minimise: str = "sum",
    seed: int = 0,
    sampler: str = "auto",
    timeout_s: float = 1800.0,
    confirm_rounds: int = 3,
    confirm_pairs: int | None = None,
    weights: Weights = "pretrained",
    scorer: str | None = None,
    device: str | None = None,
    baseline: str = "default",
    isolation: Isolation | None = None,
    warm_start: Sequence[str | Path] = (),
    reuse: bool = True,
    thrift: bool | None = None,
    command: str = "autotune.search(...)",
    listen: Listener = lambda event: None,
) -> Result:
    """Search the settings of a pipeline on a device and export the best as `best.json` in the study's folder.

    pipeline  a preset ("demo", "sd15", "sdxl"), a hub id or a local folder
    task      "text2image", "image2image" or "inpainting": its sister pipeline for this task
    controlnet, lora  the hub id or folder of one to load with it; a LoRA may be a .safetensors file
    budget    trials of the whole study, the baseline among them; a larger one continues a finished study
    study     its folder; the same call continues a study that was cut short
    fix       knobs held at a value;  exclude  knobs left at the baseline's
    size      (width, height) in pixels;  batch  pictures a call, 1 where nothing is said
    workloads  (width, height, batch) of each size that is called for, instead of size and batch; every config is timed
              at each, pictures are judged at the first
    minimise  of several sizes: "sum" of their latencies, or "each" one by itself
    confirm_rounds  how often at least the pick and the baseline are measured again; 0 exports the first figures
    confirm_pairs  over so many prompts and seeds their pictures are compared again; None: 128, or as many as don't take
              longer than the search did
    baseline  "default" (as from_pretrained gives it, in float32), "fp16", "bf16", or the path of an exported config
    isolation  how the trials' processes are started: "fork" off one that has loaded the libraries, "spawn" as
              interpreters of their own; None: as the study began, or forked where that is safe. The confirmation's are
              always spawned, as in production
    warm_start  earlier studies of the same family: folders, or tables that `autotune record` has written. They order
              the first trials and tell our sampler what to expect; no figure of theirs counts. (): as the study began
    reuse     trials don't compile or draw what an earlier one has, nor draw what can't reach the front: see reuse.py
    thrift    the name of `reuse` in earlier versions
    sampler   what proposes configs: "auto", ours, or one of Optuna's, see study.SAMPLERS
    scorer    a CLIP model of the hub, or "none" to judge pictures by their likeness to the baseline's alone

    Raises UserError for input that can't be used, before anything heavy is loaded where that can be known.
    """
    described = resolve(pipeline, weights, task=task, controlnet=controlnet, lora=lora)
    if scorer is not None:
        described = described.model_copy(update={"scorer": None if scorer == "none" else scorer})
    where = find_device(device)
    texts = read_prompts(Path(prompts)) if prompts else default_prompts(described)
    in_search = PROMPTS_OF_USERS if prompts else PROMPTS_IN_SEARCH
    request = Request(
        pipeline=described,
        device=where,
        space_file=read_space_file(Path(space)) if space else default_space(described),
        baseline=_read_baseline(baseline),
        fixed={name: check_value(name, value) for name, value in (fix or {}).items()},
        excluded=frozenset(find_knob(name).name for name in exclude),
        sampler=check_sampler(sampler),
        confirmation=ConfirmationPlan(confirm_rounds, confirm_pairs),
        budget=Budget(trials=budget, time_s=time_budget_s, trial_timeout_s=timeout_s),
        prompts=texts,
        workload=request_workload(
            texts.first(in_search), steps=steps, size=size, batch=batch, workloads=workloads, seed=seed
        ),
        goal=Goal(
            minimise=read_minimise(minimise),
            max_vram_bytes=max_vram_bytes,
            max_latency_s=max_latency_s,
            max_quality_drop=_quality_drop(max_quality_drop, described),
        ),
        folder=StudyFolder(Path(study) if study else default_folder(described, where)),
        earlier=[Path(path) for path in warm_start],
        isolation=isolation,
        reuse=reuse if thrift is None else thrift,
        command=command,
    )
    return run(request, listen)


@dataclass(frozen=True)
class Request:
    """Everything that a user asks of a search, checked as far as it can be before a process starts.

    prompts   all of them; `workload` has those of the search, the confirmation draws the others, too
    fixed     knob -> the value at which it is held;  excluded  knobs left at the baseline's value
    earlier   the paths of earlier studies for a warm start
    """

    pipeline: Pipeline
    device: Device
    space_file: SpaceFile
    baseline: Config
    fixed: Mapping[str, Value]
    excluded: frozenset[str]
    sampler: str
    confirmation: ConfirmationPlan
    budget: Budget
    prompts: Prompts
    workload: WorkloadRequest
    goal: Goal
    folder: StudyFolder
    earlier: Sequence[Path]
    isolation: Isolation | None
    reuse: bool
    command: str


def run(request: Request, listen: Listener) -> Result:
    """The story of a search: probe, baseline, explore, confirm, export."""
    folder = request.folder
    earlier = read_earlier(request.earlier, but=folder.path)
    folder.create()
    with folder.lock():
        target, space, warm = _probe(request, earlier)
        study = _open_study(request, target, space, warm)
        record = study.record
        listen(Probed(target, space, folder.path, tuple(study.trials), tuple(study.anchors)))

        timeout_s, limit_bytes = request.budget.trial_timeout_s, record.goal.max_vram_bytes
        runner = partial(
            Runner, folder, target, timeout_s, max_memory_bytes=limit_bytes, baseline=record.baseline_config
        )
        explorer = Explorer(folder, study, runner(isolation=record.isolation), listen, reuse=request.reuse)
        exhausted = explorer.explore(request.budget)  # trial 0 is the baseline
        explorer.anchor(last=True)
        isolate.close()  # the confirmation forks nothing, and needs no half a gigabyte beside it

        # What is exported was measured as production runs: forks share the layout of their memory, fresh ones don't.
        confirmer = Confirmer(folder, study, runner(isolation="spawn"), request.confirmation, listen)
        best, confirmation = confirmer.best()

        pictures = read_thumbnails(folder.trial(best.pictures_of), target.workload)
        tuned = export(record, best, study.baseline, confirmation, pictures)
        tuned.save(folder.best)
        shutil.rmtree(folder.cache, ignore_errors=True)
        return Result(
            folder=folder.path,
            record=record,
            trials=tuple(study.trials),
            front=tuple(pareto_front(study.trials, study.baseline, record.goal.minimise)),
            best=best,
            tuned=tuned,
            exhausted=exhausted,
            spread=process_spread(study.baseline, study.anchors),
            noise_floor=noise_floor(study.trials, study.anchors),
        )


def _probe(request: Request, earlier: Sequence[Found]) -> tuple[Target, SearchSpace, tuple[EarlierStudy, ...]]:
    """What is tuned, which configs are allowed for it, and the earlier studies in the terms of that space.

    Raises UserError, and then leaves no new folder behind.
    """
    folder = request.folder
    try:
        request.prompts.save_pictures(folder.references)
        target = probe(folder.probe, request.pipeline, request.device, request.workload)
        space = make_space(
            target, request.space_file, fix=request.fixed, exclude=request.excluded, baseline=request.baseline
        )
        for one in earlier:
            one.check_family(target)
        warm = fitting([one.study for one in earlier], space)
        objection = space.objection(request.baseline)
        if objection:
            raise UserError(f"the baseline can't run here: {objection}.")
    except UserError as error:
        if str(folder.probe / "log.txt") not in str(error):  # otherwise it tells the user to look there
            folder.discard()
        raise
    return target, space, warm


def _open_study(request: Request, target: Target, space: SearchSpace, warm: tuple[EarlierStudy, ...]) -> Study:
    """The study in the request's folder, which is written now if it is new. Raises UserError for another study."""
    folder = request.folder
    record = Record(
        target=target,
        goal=request.goal,
        baseline=dict(request.baseline),
        space=space.values,
        command=request.command,
        isolation=_isolation(folder, request.isolation),
        warm_start=warm,
        more_prompts=request.prompts.texts[len(request.workload.prompts.texts) :],
    )
    kept, recipes, seed = _agree(folder, record), request.space_file.recipes, request.workload.seed
    return Study(folder, kept, space, recipes=recipes, sampler=request.sampler, seed=seed)


def default_folder(pipeline: Pipeline, device: Device) -> Path:
    asked = [Path(word).name.lower().removesuffix(".safetensors") for word in wished(pipeline).values()]
    return Path("reports") / "-".join([date.today().isoformat(), pipeline.slug, *asked, device.slug])


def _quality_drop(wish: float | None, pipeline: Pipeline) -> float:
    """The most that quality may drop, in the units of the metric that this pipeline can be judged by."""
    if wish is None:
        return DEFAULT_QUALITY_DROP["clip" if pipeline.scorer else "likeness"]
    if not 0 <= wish < float("inf"):
        raise UserError(f"the most that quality may drop is {wish}; give a number that is 0 or more.")
    return wish


def _agree(folder: StudyFolder, record: Record) -> Record:
    """The record of the study in this folder, written now if it is new. Raises UserError where it is another study."""
    if not folder.study.exists():
        write_json(folder.study, record.to_json())
        return record
    old = read_record(folder)
    difference = old.difference(record)
    if difference:
        raise UserError(f"{str(folder.path)!r} holds a study of another kind ({difference}); use another --study.")
    return old


def _isolation(folder: StudyFolder, wish: Isolation | None) -> Isolation:
    """How the trials' processes are started: as the user says, as the study began, or as is best here."""
    return isolate.choose(wish or (read_record(folder).isolation if folder.study.exists() else None))


def _read_baseline(word: str) -> Config:
    """The config that `--baseline` names. Raises UserError."""
    if word in ("default", "fp16", "bf16"):
        return complete({} if word == "default" else {"dtype": word})
    if not word.endswith(".json"):
        raise UserError(f"--baseline takes default, fp16, bf16 or an exported config (FILE.json), not {word!r}.")
    return TunedConfig.load(word).config
