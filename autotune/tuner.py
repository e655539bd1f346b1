"""search(): the story of a run, top to bottom: probe, baseline, explore, confirm, export.

Loads no torch: whatever touches a pipeline happens in child processes. Prints nothing: `listen` hears the events.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

from autotune import isolate
from autotune.config import Config, Value
from autotune.confirm import Confirmer, Plan
from autotune.device import Device, find_device
from autotune.drift import process_spread
from autotune.errors import UserError
from autotune.explore import Explorer, Listener, Probed
from autotune.export import export, read_glimpses
from autotune.floor import Floor, noise_floor
from autotune.folders import StudyFolder, write_json
from autotune.front import pareto_front
from autotune.goal import Goal, read_minimise
from autotune.isolation import Isolation
from autotune.knobs import check_value, complete, find_knob
from autotune.pipeline import Pipeline, Weights
from autotune.pipelines import resolve, wished
from autotune.probe import PROMPTS_IN_SEARCH, default_prompts, default_space, probe
from autotune.proposals import check_sampler
from autotune.read_earlier import read_earlier
from autotune.record import Record, read_record
from autotune.report.page import write_report
from autotune.report.pictures import contact_sheet
from autotune.report.story import read_story
from autotune.runner import Runner
from autotune.space import make_space, read_space_file
from autotune.study import Study
from autotune.trial import Trial
from autotune.tuned import TunedConfig
from autotune.warm_start import fitting
from autotune.workload import asked_sizes, read_prompts

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
    floor: Floor  # of likeness


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
    thrift: bool = True,
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
    thrift    trials don't compile or draw what an earlier one has, nor draw what can't reach the front: see sparing.py
    sampler   what proposes configs: "auto", ours, or one of Optuna's, see study.SAMPLERS
    scorer    a CLIP model of the hub, or "none" to judge pictures by their likeness to the baseline's alone

    Raises UserError for input that can't be used, before anything heavy is loaded where that can be known.
    """
    described = resolve(pipeline, weights, task=task, controlnet=controlnet, lora=lora)
    if scorer is not None:
        described = described.model_copy(update={"scorer": None if scorer == "none" else scorer})
    where = find_device(device)
    file = read_space_file(Path(space)) if space else default_space(described)
    start = _read_baseline(baseline)
    fixed = {name: check_value(name, value) for name, value in (fix or {}).items()}
    kept = {find_knob(name).name for name in exclude}
    texts = read_prompts(Path(prompts)) if prompts else default_prompts(described)
    in_search = PROMPTS_OF_USERS if prompts else PROMPTS_IN_SEARCH
    check_sampler(sampler)
    if confirm_rounds == 1:
        raise UserError("one round has no interval: give --confirm-rounds 2 or more, or 0 to export the first figures.")
    if budget < 1:
        raise UserError(f"the budget is {budget} trials; give at least 1, which is the baseline.")
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed {seed} is not between 0 and {2**32 - 1}.")
    size, batch, also = asked_sizes(size, batch, workloads)
    goal = Goal(
        minimise=read_minimise(minimise),
        max_vram_bytes=max_vram_bytes,
        max_latency_s=max_latency_s,
        max_quality_drop=_quality_drop(max_quality_drop, described),
    )
    folder = StudyFolder(Path(study) if study else default_folder(described, where))
    earlier = read_earlier([Path(path) for path in warm_start], but=folder.path)
    folder.create()
    with folder.lock():
        try:
            texts.save_pictures(folder.references)
            target = probe(
                folder.probe,
                described,
                where,
                texts.first(in_search),
                steps=steps,
                size=size,
                batch=batch,
                also=also,
                seed=seed,
            )
            allowed = make_space(target, file, fix=fixed, exclude=kept, baseline=start)
            for one in earlier:
                one.check_family(target)
            warm = fitting([one.study for one in earlier], allowed)
            objection = allowed.objection(start)
            if objection:
                raise UserError(f"the baseline can't run here: {objection}.")
        except UserError as error:
            if str(folder.probe / "log.txt") not in str(error):  # otherwise it tells the user to look there
                folder.discard()
            raise
        record = Record(
            target=target,
            goal=goal,
            baseline=dict(start),
            space=allowed.values,
            command=command,
            isolation=_isolation(folder, isolation),
            warm_start=warm,
            more_prompts=texts.texts[in_search:],
        )
        chosen = Study(folder, _agree(folder, record), allowed, recipes=file.recipes, sampler=sampler, seed=seed)
        run = _Run(folder, chosen, timeout_s, Plan(confirm_rounds, confirm_pairs), listen, thrift=thrift)
        listen(Probed(target, allowed, folder.path, tuple(run.study.trials), tuple(run.study.anchors)))
        return run.search(budget, time_budget_s)


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


class _Run(Explorer):
    """One run of search(): what every step of it needs."""

    def __init__(
        self,
        folder: StudyFolder,
        study: Study,
        timeout_s: float,
        plan: Plan,
        listen: Listener,
        *,
        thrift: bool = True,
    ) -> None:
        goal, baseline = study.record.goal, study.record.baseline_config
        target, limit = study.record.target, goal.max_vram_bytes
        runner = partial(Runner, folder, target, timeout_s, max_memory_bytes=limit, baseline=baseline)
        super().__init__(folder, study, runner(isolation=study.record.isolation), listen, thrift=thrift)
        self.record = study.record
        # What is exported was measured as production runs: forks share the layout of their memory, fresh ones don't.
        self.confirmer = Confirmer(folder, study, runner(isolation="spawn"), plan, listen)

    def search(self, budget: int, time_budget_s: float | None) -> Result:
        exhausted = self.explore(budget, time_budget_s)
        self.anchor(last=True)
        isolate.close()  # the confirmation forks nothing, and needs no half a gigabyte beside it
        best, confirmation = self.confirmer.best()
        trials = self.study.trials
        pictures = read_glimpses(self.folder.trial(best.pictures_of), self.record.target.workload)
        tuned = export(self.record, best, self.study.baseline, confirmation, pictures)
        tuned.save(self.folder.best)
        contact_sheet(self.folder, best.pictures_of).save(self.folder.pictures)
        write_report(read_story(self.folder.path))
        shutil.rmtree(self.folder.cache, ignore_errors=True)
        front = pareto_front(trials, self.study.baseline, self.record.goal.minimise)
        return Result(
            folder=self.folder.path,
            record=self.record,
            trials=tuple(trials),
            front=tuple(front),
            best=best,
            tuned=tuned,
            exhausted=exhausted,
            spread=process_spread(self.study.baseline, self.study.anchors),
            floor=noise_floor(trials, self.study.anchors),
        )


def _read_baseline(word: str) -> Config:
    """The config that `--baseline` names. Raises UserError."""
    if word in ("default", "fp16", "bf16"):
        return complete({} if word == "default" else {"dtype": word})
    if not word.endswith(".json"):
        raise UserError(f"--baseline takes default, fp16, bf16 or an exported config (FILE.json), not {word!r}.")
    return TunedConfig.load(word).config
