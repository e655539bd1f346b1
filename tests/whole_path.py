"""whole_path(): what a search does with a pipeline, in this process: probe, knobs, two trials, export, load, script.

The code is that of a search's children and of production; there is no sampler between, and few calls are timed.
"""

import random
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import record
from PIL import Image

import autotune
from autotune.building.build import NoEffect
from autotune.config import Config
from autotune.devices import find_device
from autotune.devices.probe import probe_device, versions
from autotune.errors import UserError
from autotune.execution.variables import recorded_variables
from autotune.job import MeasureJob, ScoreJob
from autotune.knob import Stage
from autotune.knobs import all_knobs, complete
from autotune.measure import latency
from autotune.measure.quality import run_score_job
from autotune.measurement import Measurement
from autotune.pictures.video import frames_of, read_frames
from autotune.pipelines import resolve
from autotune.pipelines.adapters.textual_inversion import tokens
from autotune.pipelines.inspect import traits_of
from autotune.pipelines.locate import revisions
from autotune.production.plain_script import script
from autotune.production.tuned_config import TunedConfig
from autotune.study.space import SearchSpace, make_space
from autotune.study.space_file import shipped_space_file
from autotune.study_folder import StudyFolder, picture_name
from autotune.target import Target
from autotune.trial import Trial
from autotune.tuning.export import export
from autotune.worker.measure import run_measure_job
from autotune.workload import Workload

PROMPTS = ("a red circle", "a blue star")
MOST_STEPS = 7  # so that a strength of 0.3 leaves two
CHANGES = 4  # the most knobs that the second trial sets


def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time two calls after one to warm up: their figures are not looked at."""
    monkeypatch.setenv("AUTOTUNE_BUSY", "accept")
    for name, value in {"WARMUP_MOST_CALLS": 1, "LEAST_CALLS": 2, "BUSY_BUDGET_S": 0.0}.items():
        monkeypatch.setattr(latency, name, value)


def probed(
    checkpoint: Path,
    *,
    side: int,
    steps: int,
    guidance: float | None = None,
    negative_prompt: str | None = None,
    frames: int | None = None,
    call: Mapping[str, Any] | None = None,
    **options: Any,
) -> Target:
    """The target of a search of this checkpoint, in calls of this size and number of steps.

    guidance, negative_prompt  None: the pipeline's default
    frames   of a clip; None: of three latent frames
    call     other arguments of the pipe's call
    options  of resolve()
    """
    pipeline = resolve(str(checkpoint), **options).model_copy(update={"scorer": None})
    traits = traits_of(pipeline)
    if traits.default_strength:  # below 1 it leaves out the first steps
        alike = (n for n in range(steps, MOST_STEPS) if traits.steps_that_run(n, None) >= steps)
        steps = MOST_STEPS if traits.strength_rounds is None else next(alike, MOST_STEPS)
    return Target(
        pipeline=pipeline.model_copy(update={**revisions(pipeline), **tokens(pipeline), "traits": traits}),
        workload=Workload(
            prompts=PROMPTS,
            width=side,
            height=side,
            steps=steps,
            guidance_scale=traits.default_guidance_scale if guidance is None else guidance,
            negative_prompt=negative_prompt or traits.default_negative_prompt,
            call=dict(call or {}),
            frames=(frames or 2 * traits.frames_multiple + 1) if traits.frames_argument else None,
        ),
        device=probe_device(find_device("cpu")),
        versions=versions(),
        environment=recorded_variables({}),
    )


def space_of(target: Target) -> SearchSpace:
    return make_space(target, shipped_space_file("default.toml"), fix={}, exclude=(), baseline=complete({}))


def some_config(space: SearchSpace, seed: str) -> Config:
    """An allowed config with a few settings drawn by the seed, none of which compiles or is refused in a script."""
    rng, values = random.Random(seed), dict[str, Any]()
    knobs = [knob for knob in all_knobs().values() if knob.modifies is None and knob.stage is not Stage.COMPILE]
    for knob in rng.sample(knobs, len(knobs)):
        offered = [value for value in space.values[knob.name] if value != knob.default]
        for value in rng.sample(offered, len(offered)):
            config = space.config({**values, knob.name: value})
            scripted = knob.script is not None and knob.script(config, space.target).why_not is None
            if scripted and len(values) < CHANGES and space.objection(config) is None:
                values[knob.name] = value
                break
    return space.config(values)


def run_trial(folder: StudyFolder, target: Target, number: int, config: Config) -> Trial:
    """Measure the config as a search's child does, and judge its pictures. Raises what the child raises."""
    place = folder.trial(number)
    place.mkdir(parents=True)
    fields = run_measure_job(MeasureJob(target=target, values=dict(config), pictures=True), place)
    frames = target.workload.frames
    images, baseline = (str(folder.trial(n) / "images") for n in (number, 0))
    job = ScoreJob(images=images, baseline=baseline, prompts=PROMPTS, scorer=None, frames=frames)
    judged = run_score_job(job, place)
    outcome = Measurement.model_validate({**fields, "quality": judged})
    return Trial(number=number, origin="sampler", values=dict(config), outcome=outcome, seconds=1.0)


def whole_path(checkpoint: Path, folder: Path, *, side: int, steps: int, seed: str, **options: Any) -> Target:
    """Take the checkpoint through all that a search and production do with it. Raises where any of it fails.

    seed     of the second trial's config
    options  of probed()
    """
    study, target = StudyFolder(folder), probed(checkpoint, side=side, steps=steps, **options)
    space = space_of(target)
    assert all(why for why in space.impossible.values())
    baseline = run_trial(study, target, 0, complete({}))
    trial = _second_trial(study, target, space, seed)
    tuned = export(record(target, space=space.values), trial, baseline, None)
    tuned.save(study.best)
    expected = read_frames(study.trial(trial.number) / "images" / picture_name(0))
    assert [frame.size for frame in expected] == [(side, side)] * (target.workload.frames or 1)
    _loaded_draws(study.best, target, expected)
    if not target.pipeline.known.inputs:  # otherwise the script reads the user's own picture
        _script_draws(TunedConfig.load(study.best), folder, expected)
    return target


def _pixels(frames: Sequence[Any]) -> bytes:
    return b"".join(frame.convert("RGB").tobytes() for frame in frames)


def _second_trial(study: StudyFolder, target: Target, space: SearchSpace, seed: str) -> Trial:
    """The first of a few configs that has an effect. A value without any leaves the space, with its method's others."""
    for number in range(1, 5):
        config = some_config(space, seed)
        try:
            return run_trial(study, target, number, config)
        except NoEffect as error:
            method = str(config[error.knob]).partition(":")[0]
            space.no_effect |= {(error.knob, v) for v in space.values[error.knob] if str(v).partition(":")[0] == method}
    raise AssertionError(f"no effect of {space.no_effect}")


def _loaded_draws(best: Path, target: Target, expected: Sequence[Any]) -> None:
    from autotune.measure import call_pipe

    pipe = autotune.load(best, device="cpu", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        images = [call_pipe(pipe, target.workload, *next(target.workload.calls()))[0] for _ in range(2)]
    first, again = (_pixels(frames_of(image)) for image in images)
    assert images[0].size == expected[0].size
    if first == again:  # some pipelines (CogView4Control) sample without the caller's generator: no two calls are alike
        assert first == _pixels(expected), "autotune.load draws what the trial drew"


def _script_draws(tuned: TunedConfig, folder: Path, expected: Sequence[Any]) -> None:
    path = folder / "best.py"
    try:
        path.write_text(script(tuned, path.name))
    except UserError as error:
        raise AssertionError(f"no script: {error}") from None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [str(path), PROMPTS[0]])
        made = runpy.run_path(str(path), run_name="__main__")
    if tuned.workload.frames is None:
        saved: Sequence[Any] = read_frames(folder / "000.png")
    else:  # what the script saves for people is not lossless
        saved = made["draw"](PROMPTS[:1], [tuned.workload.seed])[0]
        with Image.open(folder / "000.webp") as clip:
            assert 1 < clip.n_frames <= tuned.workload.frames  # type: ignore[attr-defined] # equal neighbours are one
    assert _pixels(saved) == _pixels(expected), "the plain script draws what the trial drew"
