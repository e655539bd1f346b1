"""search(): the whole of a search, top to bottom: probe, baseline, explore, confirm, export.

Read this file first. Each step of run() is one call into a file of this room or of a room below.
The parent process never loads torch: all work on a pipeline is done in child processes.
Nothing is printed: `listen` is called with the events (see events.py).
"""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from autotune.config import Config, Value
from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.isolate import ChildHeld
from autotune.execution.probe import probe
from autotune.execution.runner import Runner
from autotune.frozen_model import write_json
from autotune.goal import Budget, Goal, read_levels, read_minimise
from autotune.isolation import Isolation
from autotune.knobs import check_value, find_knob
from autotune.pictures.own import keep
from autotune.pipeline import Weights
from autotune.pipelines import resolve
from autotune.production.tuned_config import TunedConfig
from autotune.recordings.earlier_studies import WarmStartStudy, read_earlier
from autotune.statistics.drift import process_spread
from autotune.study.earlier import EarlierStudy
from autotune.study.noise_floor import NoiseFloor, noise_floor
from autotune.study.pareto_front import pareto_front
from autotune.study.proposals import check_sampler
from autotune.study.record import Record, read_record, read_trials
from autotune.study.space import SearchSpace, make_space
from autotune.study.space_file import read_space_file
from autotune.study.study import Study
from autotune.study.warm_start import fitting
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import BaselineChoice, Trial
from autotune.tuning.baseline import Baselines, untouched_words
from autotune.tuning.confirm import ConfirmationPlan, Confirmer
from autotune.tuning.events import BaselineChosen, BaselineRejected, Listener, NotConfirmed, Probed
from autotune.tuning.explore import Explorer, Team
from autotune.tuning.export import export, read_thumbnails
from autotune.tuning.probe_space import PROMPTS_IN_SEARCH, default_prompts, default_space
from autotune.tuning.request import Request, asked_beyond, default_folder, read_baseline, read_quality_drop
from autotune.workload import read_prompts, request_workload

PROMPTS_OF_USERS = 32  # of a --prompts file, at most this many are drawn in each trial; the pick is judged by all
# Arguments of search() with which a study goes on, whatever they were before.
GOES_ON = (
    *("study", "command", "team", "listen", "budget", "time_budget_s", "timeout_s", "sampler", "warm_start"),
    *("reuse", "thrift", "confirm_rounds", "confirm_pairs", "quick", "run_code"),
)
QUICK_TIMING_S = 2.0  # of timed calls of a trial; without --quick 10, where their noise is not known before


@dataclass(frozen=True)
class Result:
    """What a search leaves: the trials, the Pareto front, and the config that was written to best.json."""

    folder: Path
    record: Record
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    best: Trial
    tuned: TunedConfig
    exhausted: bool  # every config that the space allows was tried
    spread: float  # standard deviation of the baseline's latency from process to process, as a share
    noise_floor: NoiseFloor  # of SSIM: how far pictures of equal configs differ here
    not_confirmed: tuple[NotConfirmed, ...] = ()  # better by their first figures, and not where measured again
    held: str | None = None  # the search ended early, because a child process can't be ended: what to do


def search(
    pipeline: str = "demo",
    *,
    task: str | None = None,
    controlnet: str | Sequence[str] | None = None,
    lora: str | Sequence[str] | None = None,
    scheduler: str | None = None,
    ip_adapter: str | None = None,
    textual_inversion: str | Sequence[str] | None = None,
    gguf: str | None = None,
    config: str | None = None,
    variant: str | None = None,
    revision: str | None = None,
    factory: str | None = None,
    run_code: bool = False,
    weights: Weights = "pretrained",
    device: str | None = None,
    baseline: str = "default",
    prompts: str | Path | None = None,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    guidance: float | None = None,
    frames: int | None = None,
    negative_prompt: str | None = None,
    call: Mapping[str, Any] | None = None,
    strength: float | None = None,
    image: str | Path | Sequence[str | Path] | None = None,
    mask: str | Path | Sequence[str | Path] | None = None,
    control_image: str | Path | Sequence[str | Path] | None = None,
    batch: int | None = None,
    workloads: Sequence[tuple[int, int, int]] = (),
    seed: int = 0,
    space: str | Path | None = None,
    fix: Mapping[str, Value] | None = None,
    exclude: Iterable[str] = (),
    lora_later: bool = False,
    ip_adapter_later: bool = False,
    minimise: str = "sum",
    max_vram_bytes: int | None = None,
    max_ram_bytes: int | None = None,
    max_latency_s: float | None = None,
    max_quality_drop: float | None = None,
    max_worst_place_levels: float | None = None,
    scorer: str | None = None,
    budget: int = 50,
    time_budget_s: float | None = None,
    timeout_s: float = 1800.0,
    sampler: str = "auto",
    warm_start: Sequence[str | Path] = (),
    reuse: bool = True,
    listed_only: bool = False,
    thrift: bool | None = None,
    isolation: Isolation | None = None,
    confirm_rounds: int = 3,
    confirm_pairs: int | None = None,
    quick: bool = False,
    study: str | Path | None = None,
    command: str = "autotune.search(...)",
    team: Team | None = None,
    listen: Listener = lambda event: None,
) -> Result:
    """Search the settings of a pipeline on a device, and export the best as `best.json` into the study's folder.

    The same call continues a study that was cut short; a larger `budget` continues a finished one.

    What is tuned:
    pipeline          a preset ("demo", "sd15", "sdxl" ...), a hub id, a local folder or a .safetensors file
    task              "text2image", "image2image" or "inpainting": use the pipeline class for this task
    controlnet        ControlNets to load with it, each a hub id or a local folder, or one of them and :WEIGHT
    lora              LoRAs to fuse, each a hub id, a folder or a .safetensors file, or one of them and ":WEIGHT"
    scheduler         the class that a LoRA for few steps needs ("TCDScheduler"), or it and ":SETTING=VALUE,..."
    ip_adapter        an IP-Adapter, a .safetensors file or owner/name:PATH of the hub, or one of them and ":SCALE"
    textual_inversion textual inversions, each a hub id or a .safetensors file, or one of them and ":TOKEN"
    gguf              the .gguf file with the denoiser's weights, also owner/name:PATH of the hub
    config            the hub id or folder with the configurations that a single .safetensors file needs
    variant           of the weights, such as "fp16"; None: the plain ones, or the variant that there is instead
    revision          a commit, tag or branch of the hub
    factory           FILE.py:FUNCTION, your own function that builds the pipe instead: function(dtype=torch.float32)
    run_code          allows that function to run, in child processes
    weights           "pretrained", or "random": the full architecture with random weights
    device            "cuda", "cuda:N" or "cpu"; None: the first GPU, else the CPU
    baseline          the config to compare with: "default" (as loaded, in float32, or else the plainest config that
                      fits on the device), values ("bf16", "bf16,offload=model") or the path of an exported config

    The workload:
    prompts           a file with one prompt a line, or JSON lines (.jsonl) with seeds; None: the shipped prompts
    steps             denoising steps of a call; None: the pipeline's default
    size              (width, height) in pixels; None: the pipeline's default
    guidance          how strongly the prompt guides, by the argument that the call has for it; None: the default
    negative_prompt   what the pictures should not show
    call              further arguments of the pipeline's call, by name
    strength          how much of the picture that a call starts from is drawn anew, up to 1; None: the call's default
    image, mask, control_image
                      the files of your own pictures that the calls start from: one for all prompts, or one for each in
                      their order; () or None: made by autotune. A study goes on where their pixels are the same
    batch             pictures a call; None: 1
    frames            of each clip, of a pipeline that makes videos; None: the default
    workloads         several (width, height, batch) instead of size and batch; pictures are judged at the first
    seed              of the start noise and of the sampler

    The search space:
    space             a space file (TOML): which values of which knobs; None: the one shipped for the pipeline
    fix               knob -> the value at which it is held
    exclude           knobs that keep the baseline's value
    lora_later        only settings that survive a LoRA that is put on the loaded pipe, as services do that swap them
    ip_adapter_later  only settings that survive an IP-Adapter that is put on the loaded pipe

    The goal:
    minimise          of several workloads: "sum" of their latencies, or "each" latency as an objective of its own
    max_vram_bytes    most peak memory of the pick
    max_ram_bytes     most memory of the host that the pick's process takes at its peak, pinned memory included
    max_latency_s     most seconds a call of the pick: of the sum, or with minimise="each" of the slowest workload
    max_quality_drop  most CLIP points that the pick may lose (None: 0.3), without CLIP 100 x (1 - SSIM) (None: 10)
    max_worst_place_levels
                      most difference at the worst cell, row or column of the pick's pictures, in levels of 0 to 255
    scorer            a CLIP model of the hub, or "none" to judge pictures by SSIM to the baseline's alone

    The trials:
    budget            trials of the whole study, the baseline among them
    time_budget_s     start no trial that would end later; None: no limit
    timeout_s         the longest that a trial may take
    sampler           "auto" (ours), or one of Optuna's: "tpe", "random", "nsga2", "gp"
    warm_start        earlier studies of the same pipeline family: folders, or tables of `autotune record`
    reuse             reuse what earlier trials have compiled and drawn, and stop dominated trials early
    listed_only       try the listed values of knobs only, none of the numbers between them: such a space has an end
    thrift            the former name of `reuse`; overrides it unless None
    isolation         "fork" trials off a process that has loaded the libraries, or "spawn" them; None: as is safe

    The confirmation, always timed in spawned processes:
    confirm_rounds    measure the pick and the baseline again at least this often; 0: export the first figures
    confirm_pairs     compare their pictures over this many prompts and seeds; None: up to 128, as time allows
    quick             trials time fewer calls, and the pick is confirmed with 3 to 6 rounds and 32 pairs; the result
                      says so. Called again without it, the pick is confirmed with full care

    The study:
    study             its folder; None: reports/DATE-PIPELINE-DEVICE, and a digest of what else makes it another study
    command           the command line that is recorded in the study and in best.json
    team              runs several trials at the same time, see autotune/cluster; None: here, one after the other
    listen            is called with each event of the search, see events.py

    A warm start orders the first trials and informs our sampler; no figure of an earlier study enters the result.
    Raises UserError for input that can't be used, where possible before anything heavy is loaded.
    """
    given = dict(locals(), exclude=(exclude := tuple(exclude)))
    loaded: dict[str, Any] = {"task": task, "controlnet": controlnet, "lora": lora, "config": config}
    loaded |= {"scheduler": scheduler, "ip_adapter": ip_adapter, "textual_inversion": textual_inversion}
    loaded |= {"gguf": gguf, "variant": variant, "revision": revision, "factory": factory, "run_code": run_code}
    described = resolve(pipeline, weights, **loaded)
    if scorer is not None:
        described = described.model_copy(update={"scorer": None if scorer == "none" else scorer})
    found_device = find_device(device)
    all_prompts = read_prompts(Path(prompts)) if prompts else default_prompts(described)
    own = {"image": image, "mask": mask, "control_image": control_image}
    pictures = {name: keep(name, files, prompts=len(all_prompts.texts)) for name, files in own.items()}
    asked = asked_beyond(search, given | pictures, described, found_device, GOES_ON)
    in_search = all_prompts.first(PROMPTS_OF_USERS if prompts else PROMPTS_IN_SEARCH)
    request = Request(
        pipeline=described,
        device=found_device,
        space_file=read_space_file(Path(space)) if space else default_space(described),
        baseline=read_baseline(baseline),
        fixed={name: check_value(name, value) for name, value in (fix or {}).items()},
        excluded=frozenset(find_knob(name).name for name in exclude),
        later=(*(("lora",) if lora_later else ()), *(("ip_adapter",) if ip_adapter_later else ())),
        sampler=check_sampler(sampler),
        confirmation=ConfirmationPlan.of(confirm_rounds, confirm_pairs, quick=quick),
        budget=Budget(
            trials=budget,
            time_s=time_budget_s,
            trial_timeout_s=timeout_s,
            trial_timing_s=QUICK_TIMING_S if quick else None,
        ),
        prompts=all_prompts,
        workload=request_workload(
            in_search,
            steps=steps,
            size=size,
            batch=batch,
            workloads=workloads,
            seed=seed,
            guidance=guidance,
            frames=frames,
            negative_prompt=negative_prompt,
            call=call,
            strength=strength,
            pictures=pictures,
        ),
        goal=Goal(
            minimise=read_minimise(minimise),
            max_vram_bytes=max_vram_bytes,
            max_ram_bytes=max_ram_bytes,
            max_latency_s=max_latency_s,
            max_quality_drop=read_quality_drop(max_quality_drop, described),
            max_worst_place_levels=read_levels(max_worst_place_levels),
        ),
        folder=StudyFolder(Path(study) if study else default_folder(described, found_device, asked)),
        earlier=[Path(path) for path in warm_start],
        isolation=isolation,
        reuse=reuse if thrift is None else thrift,
        listed_only=listed_only,
        command=command,
        team=team,
    )
    return run(request, listen)


def run(request: Request, listen: Listener) -> Result:
    """The search itself: probe, baseline, explore, confirm, export."""
    folder = request.folder
    earlier = read_earlier(request.earlier, new=folder.path)
    folder.create()
    with folder.lock():
        # Probe: what can be tuned here?
        target, began = _probe(request), time.monotonic()

        # Baseline: trial 0, the config that the user named or the plainest that fits.
        study, explorer, runner = _with_baseline(request, target, earlier, listen)
        record = study.record

        # Explore: each further trial is a config that the sampler proposes.
        exhausted, held = False, None
        try:
            exhausted = explorer.explore(request.budget, began=began)
            if not request.confirmation.quick:  # which measures the baseline again itself
                explorer.anchor(last=True)
        except ChildHeld as error:  # no further process can be measured: end with what is known
            held = error

        # Confirm: timed in spawned processes, as in production. Forked ones all share one layout of their memory.
        how = {"isolation": "spawn", "drawing": record.isolation}
        confirming = runner(**how, timing_s=request.confirmation.timing_s, breakdown=False)
        confirming = request.team.confirming(confirming) if request.team else confirming
        confirmer = Confirmer(folder, study, confirming, request.confirmation, listen, held)
        best, confirmation = confirmer.best()

        # Export.
        pictures = read_thumbnails(folder.trial(best.pictures_of), target.workload)
        tuned = export(record, best, study.baseline, confirmation, pictures)
        tuned.save(folder.best)
        shutil.rmtree(folder.cache, ignore_errors=True)
        return _result(study, best, tuned, confirmer, exhausted=exhausted)


def _probe(request: Request) -> Target:
    """What can be tuned here. Raises UserError, and then removes the folder if it is new."""
    with _discarding(request.folder):
        request.prompts.save_pictures(request.folder.references)
        how = "spawn" if request.team else isolate.choose(request.isolation)  # no trial is forked off this process
        limit_s = request.budget.trial_timeout_s
        place, about = request.folder.probe, (request.pipeline, request.device, request.workload)
        target = probe(place, *about, isolation=how, timeout_s=limit_s)
        return target.as_begun(read_record(request.folder).target) if request.folder.study.exists() else target


@contextmanager
def _discarding(folder: StudyFolder) -> Iterator[None]:
    """Remove the folder, if it is new, where a UserError is raised: there is no study."""
    try:
        yield
    except UserError as error:
        if str(folder.probe / "log.txt") not in str(error):  # a message that names the log needs the folder
            folder.discard()
        raise


def _with_baseline(
    request: Request, target: Target, earlier: Sequence[WarmStartStudy], listen: Listener
) -> tuple[Study, Explorer, "partial[Runner]"]:
    """The study with its baseline measured. Without a named baseline, the plainest config that fits becomes it.

    Raises UserError where no baseline can be measured.
    """
    folder = request.folder
    with _discarding(folder):
        baselines = Baselines(target, request.goal, request.baseline, request.fixed, folder)
    first = True
    while True:
        with _discarding(folder):
            baseline, choice = baselines.next()
            space, warm = _space(request, target, baseline, earlier)
            study = _open_study(request, target, space, warm, baseline, choice)
        if first:
            listen(Probed(target, space, folder.path, tuple(study.trials), tuple(study.anchors), request.goal))
        first = False
        is_new = not study.trials
        for rejected in baselines.news() if is_new else ():  # a search that goes on has told it before
            listen(BaselineRejected(rejected))
        runner = _runner(request, study.record)
        explores = request.team.explorer if request.team else Explorer
        exploring = runner(isolation=study.record.isolation, timing_s=request.budget.trial_timing_s)
        explorer = explores(folder, study, exploring, listen, reuse=request.reuse)
        failure = explorer.run_baseline()
        if failure is None:
            if is_new and choice is not None and choice.rejected:
                listen(BaselineChosen(baseline, choice))
            return study, explorer, runner
        if not baselines.may_follow(baseline, failure):
            spawned, place = runner(isolation="spawn"), folder.trial(0) / "untouched"
            raise explorer.baseline_failed(failure, untouched_words(spawned, place, baseline, failure))
        folder.put_aside_baseline(len(baselines.rejected) - 1)


def _runner(request: Request, record: Record) -> "partial[Runner]":
    """A Runner but for its isolation. A baseline that the user named is not held to the limit on memory."""
    return partial(
        Runner,
        request.folder,
        record.target,
        request.budget.trial_timeout_s,
        max_memory_bytes=record.goal.max_vram_bytes,
        baseline=None if record.baseline_choice else record.baseline_config,
    )


def _space(
    request: Request, target: Target, baseline: Config, earlier: Sequence[WarmStartStudy]
) -> tuple[SearchSpace, tuple[EarlierStudy, ...]]:
    """The configs that are allowed, and the trials of earlier studies that lie among them. Raises UserError."""
    space = make_space(
        target,
        request.space_file,
        fix=request.fixed,
        exclude=request.excluded,
        baseline=baseline,
        later=request.later,
    )
    if request.listed_only:
        space.ranges = {}
    for found in earlier:
        found.check_family(target)
    objection = space.objection(baseline)
    if objection:
        raise UserError(f"the baseline can't run here: {objection}.")
    return space, fitting([found.study for found in earlier], space)


def _open_study(
    request: Request,
    target: Target,
    space: SearchSpace,
    warm: tuple[EarlierStudy, ...],
    baseline: Config,
    choice: BaselineChoice | None,
) -> Study:
    """The study in the request's folder, which is written now if it is new. Raises UserError for another study."""
    folder = request.folder
    record = Record(
        target=target,
        goal=request.goal,
        baseline=dict(baseline),
        baseline_choice=choice,
        space=space.values,
        ranges=space.ranges,
        command=request.command,
        isolation=_isolation(folder, request.isolation, usual="spawn" if request.team else None),
        warm_start=warm,
        more_prompts=request.prompts.texts[len(request.workload.prompts.texts) :],
    )
    kept, recipes, seed = _agree(folder, record), request.space_file.recipes, request.workload.seed
    space.ranges = kept.ranges or {}  # a study of an earlier version goes on with listed values only
    several = request.team is not None
    return Study(folder, kept, space, recipes=recipes, sampler=request.sampler, seed=seed, parallel=several)


def _isolation(folder: StudyFolder, requested: Isolation | None, usual: Isolation | None) -> Isolation:
    """How the trials' processes are started: as requested, as the study began, or as is usual or best here."""
    begun = read_record(folder).isolation if folder.study.exists() else None
    return isolate.choose(requested or begun or usual)


def _agree(folder: StudyFolder, record: Record) -> Record:
    """The record of the study in this folder, written now if it is new. Raises UserError where it is another study."""
    old = read_record(folder) if folder.study.exists() else None
    choosing = old is not None and old.baseline_choice is not None and not read_trials(folder)
    if old is not None and choosing:  # until it is measured, another baseline may take its place
        chosen = ("baseline", "baseline_choice", "space")
        old = old.model_copy(update={name: getattr(record, name) for name in chosen})
    difference = old.difference(record) if old is not None else None
    if difference:
        raise UserError(f"{str(folder.path)!r} holds a study of another kind ({difference}); use another --study.")
    if old is None or choosing:
        write_json(folder.study, (old or record).to_json())
    return old or record


def _result(study: Study, best: Trial, tuned: TunedConfig, confirmer: Confirmer, *, exhausted: bool) -> Result:
    return Result(
        folder=study.folder.path,
        record=study.record,
        trials=tuple(study.trials),
        front=tuple(pareto_front(study.trials, study.baseline, study.record.goal.minimise)),
        best=best,
        tuned=tuned,
        exhausted=exhausted,
        spread=process_spread(study.baseline, study.anchors),
        noise_floor=noise_floor(study.trials, study.anchors),
        not_confirmed=tuple(confirmer.not_confirmed),
        held=None if confirmer.held is None else str(confirmer.held),
    )
