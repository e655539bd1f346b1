"""Probe job: find out what a pipeline is and what torch can do with a device. Downloads missing weights."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.device import Device
from autotune.devices import shared_int8, torch_name
from autotune.devices.attention_calls import ask
from autotune.devices.hub_kernels import fetch_recorded
from autotune.devices.probe import broken, probe_device, versions
from autotune.errors import UserError
from autotune.job import ProbeJob
from autotune.measure.metrics._clip import Clip
from autotune.pipeline import Pipeline, Traits
from autotune.pipelines.adapters.controlnet import weights
from autotune.pipelines.adapters.textual_inversion import tokens
from autotune.pipelines.components import components_of
from autotune.pipelines.inspect import assembled, read_traits
from autotune.pipelines.locate import fetch, is_on_disk, revisions, scorer_folder
from autotune.pipelines.rehearsal.limits import Cut, check_steps, cut_prompts

# What is changed of a pipeline that is described by its configurations alone.
WITHOUT_FILES: dict[str, Any] = {
    "weights": "random", "lora": None, "ip_adapter": None, "textual_inversions": {}
}  # fmt: skip


def _gguf(pipeline: Pipeline) -> dict[str, str | None]:
    """The GGUF file of a pipeline that is described by its configurations, where it lies on this disk."""
    here = pipeline.gguf is not None and Path(pipeline.gguf).exists()
    return {"gguf": pipeline.gguf if here else None}


def run_probe_job(job: ProbeJob, folder: Path) -> dict[str, Any]:
    """The pipeline with its traits, the device with torch's answers, and the versions of the libraries.

    Raises UserError where the pipeline can't be loaded or can't take so many steps, torch can't use the device, or a
    prompt is too long. After `timeout_s` the kernel ends this process (SIGALRM).
    """
    device = probe_device(job.device, by_trial=not job.quick)
    # With random weights, configurations are all that is needed, and all that is downloaded.
    unloaded = job.configurations_only and not is_on_disk(job.pipeline)
    readable = job.pipeline.model_copy(update=WITHOUT_FILES | _gguf(job.pipeline)) if unloaded else job.pipeline
    fetch(readable)
    signal.setitimer(signal.ITIMER_REAL, job.timeout_s or 0.0)
    components = components_of(job.pipeline, readable)
    pipe = assembled(readable)
    given: dict[str, Any] = {"given": job.arguments, "negative_prompt": job.negative_prompt}
    traits = read_traits(pipe, readable, rehearsed=not job.quick, **given)
    traits = traits.model_copy(update={"components": components})
    seen = {**revisions(readable), **tokens(readable), **weights(pipe, job.pipeline)}
    pipeline = job.pipeline.model_copy(update={**seen, "traits": traits})
    if job.steps is not None:
        check_steps(pipe, job.steps)
    cut = cut_prompts(pipe, job.prompts, job.arguments)
    notes = [_cut_words(cut, len(job.prompts))] if cut else []
    if pipeline.scorer is not None:
        left_s, _ = signal.setitimer(signal.ITIMER_REAL, 0.0)
        scorer_folder(pipeline.scorer)  # may download it
        signal.setitimer(signal.ITIMER_REAL, left_s)
        notes += _unscored(Clip(pipeline.scorer), job.prompts, cut)
    if job.quick:  # on another host than the search's: what a trial there must find on its disk
        fetch_recorded(job.pipeline.part_revisions)
    else:  # last: a kernel may leave the GPU unusable to this process
        kinds = {(head, masked) for head, masked, _ in traits.step_attention}
        answers, commits = ask(torch_name(device), kinds)
        device = device.model_copy(update={"attention": answers, "shared_int8_fault": _shared_int8(device, traits)})
        pipeline = pipeline.model_copy(update={"part_revisions": pipeline.part_revisions | commits})
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    found = {"pipeline": pipeline.to_json(), "device": device.to_json(), "versions": versions()}
    return {**found, "notes": notes}


def _shared_int8(device: Device, traits: Traits) -> str | None:
    """Device.shared_int8_fault. It takes seconds, so it is asked only for UNets that a search may try in bfloat16."""
    tried = device.compile_fault is None and device.bfloat16_fault is None
    asked = not device.is_gpu and tried and traits.attention_downsamples
    return shared_int8.fault() if asked and "torchao" in versions() and broken("torchao") is None else None


def _cut_words(cut: Sequence[Cut], prompts: int) -> str:
    """What the pipeline itself does not read of the prompts."""
    first = cut[0]
    return (
        f"{len(cut)} of {prompts} prompts are cut, as the pipeline reads {first.tokens} tokens: of "
        f"{first.prompt[:40]!r}... it does not read {first.lost[:80]!r}."
    )


def _unscored(clip: Clip, prompts: Sequence[str], cut: Sequence[Cut]) -> list[str]:
    """A sentence about the prompts that the pipeline reads to their ends and the scorer can't.

    Raises UserError for a prompt that both of them cut, and where the scorer can read none.
    """
    long, cut_too = clip.too_long(prompts), {one.prompt for one in cut}
    clip.check_prompts([prompt for prompt in long if prompt in cut_too])
    if long and len(long) == len(prompts):
        raise UserError(
            f"the scorer reads {clip.context} tokens, and every prompt has more: give --scorer none, which judges by "
            "the likeness to the baseline's pictures."
        )
    what = f"{len(long)} of {len(prompts)} prompts are longer than the {clip.context} tokens that the scorer reads"
    return [f"{what}: their pictures have no CLIP score."] if long else []
