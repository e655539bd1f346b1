"""Probe: ask a child process, which may load torch, about a pipeline and a device. Returns a Target."""

import os
import tempfile
from pathlib import Path
from typing import Any

from autotune.device import Device
from autotune.devices import find_devices, hub_kernels, kind_of
from autotune.errors import UserError, nearest
from autotune.execution import isolate
from autotune.execution.room import LEAST_SIDE, require_room
from autotune.execution.variables import recorded_variables, trial_environment
from autotune.isolation import Isolation
from autotune.job import DeviceJob, ProbeJob
from autotune.pictures.own import argument_of
from autotune.pipeline import Pipeline, Traits
from autotune.pipelines import checkpoint, presets
from autotune.pipelines.call import CONTROL_SCALE
from autotune.target import Target
from autotune.trial import Failure
from autotune.workload import CALL_OPTIONS, Shape, Workload, WorkloadRequest

PROBE_TIMEOUT_S = 4 * 3600.0  # the child may have to download the weights


def probe(
    folder: Path,
    pipeline: Pipeline,
    device: Device,
    request: WorkloadRequest,
    *,
    configurations_only: bool = False,
    quick: bool = False,
    isolation: Isolation = "spawn",
    timeout_s: float | None = None,
) -> Target:
    """The target of a search: pipeline and device as a child sees them, and the workload with its defaults filled in.

    folder                      of the probe job
    configurations_only, quick  see ProbeJob
    isolation                   "fork" where jobs that can be forked follow: they take over the fork server. A probe
                                that may have to download something is spawned all the same

    timeout_s                   the longest that it may take, once everything is downloaded; None: some hours

    Raises UserError where the pipeline can't be loaded, the device can't be used, or a size does not fit the pipeline.
    """
    isolate.require_system()
    if untuned := kind_of(device).untuned:
        raise UserError(f"{device.name} is an {kind_of(device).what}: {untuned}; use --device cpu.")
    prompts, also = request.prompts, request.also
    preset = presets().get(pipeline.name)
    side = (LEAST_SIDE, LEAST_SIDE)
    least = request.size or ((preset.width, preset.height) if preset else side)
    shapes = (Shape(width=least[0], height=least[1], batch=request.batch), *also)
    frames = request.frames or (preset.frames if preset else None)
    require_room(shapes, device, host=not configurations_only, frames=frames)
    job = ProbeJob(
        pipeline=pipeline,
        device=device,
        prompts=prompts.texts,
        steps=request.steps,
        arguments=dict(request.call),
        negative_prompt=request.negative_prompt,
        timeout_s=timeout_s,
        configurations_only=configurations_only,
        quick=quick,
    )
    here = _all_here(pipeline) and not hub_kernels.allowed()  # a forked probe has no network
    how: Isolation = isolation if here else "spawn"
    limit_s = timeout_s if here and timeout_s is not None else PROBE_TIMEOUT_S
    env = trial_environment(folder / "compiled") if how == "fork" else None
    answer = isolate.run(folder, job, timeout_s=limit_s, env=env, isolation=how)
    if isinstance(answer, Failure):
        raise _unprobed(pipeline, answer, folder / "log.txt")
    known = Pipeline.parse(answer["pipeline"], "the probe's pipeline")
    traits = known.known
    _check_tokens(known, request)
    width, height = request.size or ((preset.width, preset.height) if preset else _default_size(pipeline, traits))
    for wide, high in ((width, height), *((shape.width, shape.height) for shape in also)):
        if wide % traits.size_multiple or high % traits.size_multiple:
            option = "--workload" if also else "--size"
            raise UserError(f"{option} {wide}x{high}: {pipeline.name} needs multiples of {traits.size_multiple}.")
    workload = Workload(
        prompts=prompts.texts,
        width=width,
        height=height,
        batch=request.batch,
        steps=request.steps or (preset.steps if preset else traits.default_steps),
        **_guidance(pipeline, traits, request),
        call=_checked_call(known, traits, request),
        strength=request.strength,
        frames=_frames(pipeline, traits, request),
        seed=request.seed,
        also=also,
        seeds=prompts.seeds_from(request.seed),
        references=prompts.references,
        pictures=_own_pictures(traits, request),
    )
    _check_strength(traits, workload)
    found = Device.parse(answer["device"], "the probe's device")
    return Target(
        pipeline=known,
        workload=workload,
        device=found,
        versions=answer["versions"],
        notes=answer.get("notes", ()),
        environment=recorded_variables(os.environ),
    )


def _own_pictures(traits: Traits, request: WorkloadRequest) -> dict[str, tuple[str, ...]]:
    """Argument of the call -> the user's pictures for it. Raises UserError where the call takes none."""
    found: dict[str, tuple[str, ...]] = {}
    for option, digests in request.pictures.items():
        name, word = argument_of(option, traits.inputs), f"--{option.replace('_', '-')}"
        if name is None:
            task = " inpainting" if option == "mask" else " image2image"
            hint = "" if option == "control_image" else f", or give --task{task} if it can do that"
            raise UserError(f"{traits.class_name} takes no picture of {word}: leave it out{hint}.")
        if name in found:
            raise UserError(f"{word} and --image are the same for {traits.class_name}: give one of them.")
        if traits.control_pictures > 1 and traits.inputs[name] == "edges":
            raise UserError(f"{word} is one picture a call: with {traits.control_pictures} ControlNets, leave it out.")
        found[name] = digests
    return found


def _unprobed(pipeline: Pipeline, failure: Failure, log: Path) -> UserError:
    """The error that says why there is no target. The log is named once."""
    if failure.cause == "bad_input":
        return UserError(failure.reason)
    see = "" if str(log) in failure.reason else f"; see {log}"
    longer = " Give it longer by --timeout." if failure.cause == "timeout" else ""
    return UserError(f"{pipeline.name} can't be probed: {failure.reason}{see}.{longer}")


def _all_here(pipeline: Pipeline) -> bool:
    """Do all files of the pipeline and its scorer lie on this disk, or with autotune? A hub's cache is not asked."""
    if pipeline.factory is not None:
        return False  # it may load what it likes
    preset = presets().get(pipeline.name)
    ships = pipeline.weights == "random" and preset is not None and preset.architecture is not None
    parts = [pipeline.scorer, pipeline.config, *pipeline.added.values()]
    sources = [*(source for source in parts if source is not None), *([] if ships else [pipeline.source])]
    one_file = checkpoint.is_single_file(pipeline.source) and pipeline.config is None
    return not one_file and all(source == "demo" or Path(source).exists() for source in sources)


def _check_strength(traits: Traits, workload: Workload) -> None:
    """Raises UserError where the call takes no strength, or where it leaves no step."""
    strength = workload.strength
    if strength is not None and traits.default_strength is None:
        raise UserError(f"--strength {strength:g}: the call of {traits.class_name} takes no strength.")
    if traits.steps_that_run(workload.steps, strength) < 1:
        given = traits.default_strength if strength is None else strength
        raise UserError(
            f"--steps {workload.steps} at strength {given:g} is no step: {traits.class_name} rounds "
            f"{workload.steps * (given or 0):g} down to 0. Give more steps, or --strength 1."
        )


def _check_tokens(pipeline: Pipeline, request: WorkloadRequest) -> None:
    """Raises UserError for a textual inversion whose token is in no prompt: it would do nothing."""
    texts = (*request.prompts.texts, request.negative_prompt or "")
    for source, token in pipeline.textual_inversions.items():
        if token and not any(token in text for text in texts):
            raise UserError(
                f"--textual-inversion {source}: its token {token!r} is in no prompt: write it into --prompts or "
                "--negative-prompt, or name another by :TOKEN."
            )


def _default_size(pipeline: Pipeline, traits: Traits) -> tuple[int, int]:
    """Width and height, in pixels. Raises UserError where the probe could not find them."""
    if traits.default_width is None or traits.default_height is None:
        reason = traits.unknown.get("default_width", "the probe could not find it")
        raise UserError(f"the size that {pipeline.name} draws is unknown: {reason}. Give it by --size.")
    return traits.default_width, traits.default_height


def _frames(pipeline: Pipeline, traits: Traits, request: WorkloadRequest) -> int | None:
    """The frames of a clip; None: the pipeline makes pictures. Raises UserError for a number that it can't make."""
    preset, frames, multiple = presets().get(pipeline.name), request.frames, traits.frames_multiple
    if traits.frames_argument is None:
        if frames is not None:
            raise UserError(f"--frames {frames}: {pipeline.name} makes pictures, not videos.")
        return None
    if frames is None:
        frames = preset.frames if preset and preset.frames else traits.default_frames
    if frames is None:
        raise UserError(f"the number of frames that {pipeline.name} makes is unknown: give it by --frames.")
    if (frames - 1) % multiple:
        near = frames // multiple * multiple + 1
        raise UserError(
            f"--frames {frames}: {pipeline.name} makes 1 frame and a multiple of {multiple}, such as {near}."
        )
    return frames


def _guidance(pipeline: Pipeline, traits: Traits, request: WorkloadRequest) -> dict[str, Any]:
    """The workload's guidance and negative prompt. Raises UserError for guidance that the call can't take."""
    preset = presets().get(pipeline.name)
    if request.guidance is not None and traits.guidance_argument is None:
        raise UserError(f"--guidance {request.guidance:g}: the call of {traits.class_name} takes no guidance.")
    negative = request.negative_prompt
    if negative is not None and not traits.takes_negative_prompt:
        raise UserError(f"--negative-prompt: the call of {traits.class_name} takes no negative prompt.")
    asked = request.guidance if request.guidance is not None else preset.guidance_scale if preset else None
    scale = asked if asked is not None else traits.default_guidance_scale
    if negative is None and traits.guidance_argument == "true_cfg_scale" and scale is not None and scale > 1:
        negative = traits.default_negative_prompt
    return {"guidance_scale": scale, "negative_prompt": negative}


def _checked_call(pipeline: Pipeline, traits: Traits, request: WorkloadRequest) -> dict[str, Any]:
    """The arguments of `--call`. Raises UserError for a name that the call does not take, or that an option sets."""
    for name in request.call:
        if option := CALL_OPTIONS.get(name):
            raise UserError(f"--call {name}: {option} sets this argument.")
        if name == traits.guidance_argument:
            raise UserError(f"--call {name}: --guidance sets this argument.")
        if name.endswith("_embeds"):
            raise UserError(
                f"--call {name}: every trial encodes the prompts itself, so a search takes no embeddings: to weight "
                f"words, search without weights, and give {name} to the pipe that autotune.load returns."
            )
        if name not in traits.call_arguments:
            known = nearest(name, traits.call_arguments)
            raise UserError(f"--call {name}: the call of {traits.class_name} has no such argument to set, {known}")
    weights = [weight for _, weight in pipeline.controlnets.values() if weight is not None]
    if weights and CONTROL_SCALE in request.call:
        raise UserError(f"--call {CONTROL_SCALE}: the weights of --controlnet set this argument.")
    return {**request.call, **({CONTROL_SCALE: weights if len(weights) > 1 else weights[0]} if weights else {})}


def probe_devices() -> list[Device]:
    """Every device of this machine with torch's answers, or with the reason why torch can't use it as evidence."""
    with tempfile.TemporaryDirectory() as folder:
        return [_probe_device(Path(folder) / str(i), device) for i, device in enumerate(find_devices())]


def _probe_device(folder: Path, device: Device) -> Device:
    answer = isolate.run(folder, DeviceJob(device=device), timeout_s=PROBE_TIMEOUT_S)
    if isinstance(answer, Failure):
        return device.model_copy(update={"evidence": (*device.evidence, answer.reason)})
    return Device.parse(answer, "the probe's device")
