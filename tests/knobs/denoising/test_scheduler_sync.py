"""scheduler_sync: no value of the device's timesteps is read while the scheduler steps, and the picture stays the same.

There is no GPU here, so reading is watched instead of waited for: whatever is computed from the timesteps that lie "on
the device" is marked, and a marked value that becomes a number of Python's is what would wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from conftest import gpu, make_target
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from live import difference
from tiny_pipes import draw, tiny_pipe, tiny_workload
from torch.utils._python_dispatch import TorchDispatchMode

from autotune.building import build
from autotune.building.build import NoEffect
from autotune.knobs import complete, find_knob
from autotune.measure.kernels import attention_kernels
from autotune.pipelines import parts

KNOB = find_knob("scheduler_sync")
GPU = gpu(9, 0)
LOOK_UP = ("PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "LCMScheduler")
COUNT = ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler")
CLASSES = {
    cls.__name__: cls
    for cls in (
        PNDMScheduler,
        DDIMScheduler,
        DDPMScheduler,
        LCMScheduler,
        EulerDiscreteScheduler,
        DPMSolverMultistepScheduler,
        HeunDiscreteScheduler,
        UniPCMultistepScheduler,
    )
}
FAMILIES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionXLPipeline",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def pipe_of(family: str, root: Path, scheduler: str, *, avoided: bool) -> Any:
    pipe, _ = tiny_pipe(family, root)
    latents = {"clip_sample": False} if scheduler in ("DDIMScheduler", "DDPMScheduler") else {}
    pipe.scheduler = CLASSES[scheduler].from_config(pipe.scheduler.config, **latents)
    if avoided:
        build.apply(pipe, complete({"scheduler_sync": "avoided"}), tiny_workload(family), "cpu")
    return pipe


class Reads(TorchDispatchMode):
    """Counts the reads of values that were computed from these timesteps."""

    def __init__(self, timesteps: torch.Tensor) -> None:
        super().__init__()
        self.marked = {timesteps.untyped_storage().data_ptr(): timesteps}
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.untyped_storage().data_ptr() in self.marked for tensor in given):
            reads = ("aten._local_scalar_dense.default", "aten.nonzero.default", "aten.equal.default")
            self.count += str(function) in reads
            for leaf in torch.utils._pytree.tree_leaves(result):
                if isinstance(leaf, torch.Tensor) and not leaf.is_floating_point():
                    self.marked[leaf.untyped_storage().data_ptr()] = leaf  # and keeps it, so that none takes its place
                elif isinstance(leaf, torch.Tensor) and leaf.numel() == 1:
                    self.marked[leaf.untyped_storage().data_ptr()] = leaf
        return result


@contextmanager
def reads_while_stepping(pipe: Any) -> Iterator[list[int]]:
    """How often each step (and scaling of the input) of the next call reads what lies on the device."""
    scheduler, counts = pipe.scheduler, []

    def watched(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with Reads(scheduler.timesteps) as reads:
                result = method(*args, **kwargs)
            counts.append(reads.count)
            return result

        return call

    class Watched(type(scheduler)):  # type: ignore[misc]
        pass

    for name in ("step", "scale_model_input"):
        original = getattr(type(scheduler), name)
        setattr(Watched, name, _signed(original, watched))
    kind = type(scheduler)
    scheduler.__class__ = Watched
    try:
        yield counts
    finally:
        scheduler.__class__ = kind


def _signed(original: Any, watched: Any) -> Any:
    import functools

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return watched(functools.partial(original, self))(*args, **kwargs)

    return method


def reads_of(pipe: Any, family: str) -> int:
    with reads_while_stepping(pipe) as counts:
        draw(pipe, family, num_inference_steps=4)
    assert counts
    return sum(counts)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheduler", CLASSES)
def test_the_picture_is_the_same_to_the_last_bit(scheduler: str, family: str, root: Path) -> None:
    plain, avoiding = (pipe_of(family, root, scheduler, avoided=avoided) for avoided in (False, True))
    for steps in (4, 6):
        one, other = (draw(pipe, family, num_inference_steps=steps) for pipe in (plain, avoiding))
        assert difference(one, other) == 0


@pytest.mark.parametrize("family", ["IFPipeline", "IFSuperResolutionPipeline", "StableDiffusionUpscalePipeline"])
def test_the_picture_of_a_later_stage_is_the_same(family: str, root: Path) -> None:
    plain, avoiding = tiny_pipe(family, root)[0], tiny_pipe(family, root, scheduler_sync="avoided")[0]
    assert difference(draw(plain, family), draw(avoiding, family)) == 0
    assert avoiding.scheduler.waits_avoided == 4


@pytest.mark.parametrize("scheduler", LOOK_UP)
def test_nothing_on_the_device_is_read_any_more(scheduler: str, root: Path) -> None:
    for family in FAMILIES:
        plain, avoiding = (pipe_of(family, root, scheduler, avoided=avoided) for avoided in (False, True))
        steps = 2 if "Img2Img" in family else 4
        assert reads_of(plain, family) >= steps, "the default reads at every step"
        assert reads_of(avoiding, family) == 0
        assert avoiding.scheduler.waits_avoided >= steps


@pytest.mark.parametrize("scheduler", COUNT)
def test_a_scheduler_that_counts_asks_for_the_first_step_only(scheduler: str, root: Path) -> None:
    family = "StableDiffusionPipeline"
    plain, avoiding = (pipe_of(family, root, scheduler, avoided=avoided) for avoided in (False, True))
    assert 0 < reads_of(plain, family) <= 2
    assert reads_of(avoiding, family) == 0
    assert avoiding.scheduler.waits_avoided == 1


def test_where_the_pipeline_says_where_the_counting_begins_nothing_was_waited_for(root: Path) -> None:
    family = "StableDiffusionXLPipeline"
    pipe = pipe_of(family, root, "EulerDiscreteScheduler", avoided=True)
    draw(pipe, family)
    with pytest.raises(NoEffect, match="scheduler_sync=avoided had no effect here: 0 timesteps looked up"):
        build.verify(pipe, complete({"scheduler_sync": "avoided"}), {})


def test_the_device_keeps_its_timesteps(root: Path) -> None:
    """The denoiser reads them there, and a pipeline may look at them between steps."""
    family = "StableDiffusionPipeline"
    pipe = pipe_of(family, root, "DDIMScheduler", avoided=True)
    seen = []
    pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    draw(pipe, family)
    own = pipe.scheduler.timesteps
    assert own is pipe.scheduler.timesteps_on_device
    assert {t.untyped_storage().data_ptr() for t in seen} == {own.untyped_storage().data_ptr()}


def test_a_timestep_of_another_origin_is_taken_as_it_is(root: Path) -> None:
    pipe = pipe_of("StableDiffusionPipeline", root, "DDIMScheduler", avoided=True)
    scheduler, plain = pipe.scheduler, DDIMScheduler.from_config(pipe.scheduler.config)
    latents, noise = torch.ones(1, 4, 8, 8), torch.full((1, 4, 8, 8), 0.5)
    for made in (scheduler, plain):
        made.set_timesteps(4)
    for timestep in (scheduler.timesteps[1], torch.tensor(int(plain.timesteps[1])), int(plain.timesteps[1])):
        one = scheduler.step(noise, timestep, latents, return_dict=False)[0]
        assert torch.equal(one, plain.step(noise, plain.timesteps[1], latents, return_dict=False)[0])
    assert scheduler.waits_avoided == 1


def test_the_scheduler_stays_of_its_class_and_takes_the_same_arguments(root: Path, tmp_path: Path) -> None:
    import inspect

    pipe = pipe_of("StableDiffusionPipeline", root, "DDIMScheduler", avoided=True)
    assert isinstance(pipe.scheduler, DDIMScheduler)
    assert (type(pipe.scheduler).__name__, type(pipe.scheduler).__module__) == (
        "DDIMScheduler",
        DDIMScheduler.__module__,
    )
    for name in ("step", "set_timesteps", "scale_model_input"):
        ours, theirs = (inspect.signature(getattr(cls, name)) for cls in (type(pipe.scheduler), DDIMScheduler))
        assert list(ours.parameters) == list(theirs.parameters)
    pipe.scheduler.save_pretrained(tmp_path)
    assert type(diffusers.DDIMScheduler.from_pretrained(tmp_path)) is DDIMScheduler
    assert type(diffusers.DDIMScheduler.from_config(pipe.scheduler.config)) is DDIMScheduler


def test_another_scheduler_of_the_class_is_left_alone(root: Path) -> None:
    pipe_of("StableDiffusionPipeline", root, "DDIMScheduler", avoided=True)
    assert type(pipe_of("StableDiffusionPipeline", root, "DDIMScheduler", avoided=False).scheduler) is DDIMScheduler


def test_the_profiler_of_attention_kernels_leaves_it_in_place(root: Path) -> None:
    family = "StableDiffusionPipeline"
    pipe = pipe_of(family, root, "DDIMScheduler", avoided=True)
    assert attention_kernels(pipe, lambda: draw(pipe, family, num_inference_steps=3))
    before = pipe.scheduler.waits_avoided
    draw(pipe, family, num_inference_steps=3)
    assert pipe.scheduler.waits_avoided == before + 3
    assert len(parts.step_models(pipe)) == 1


def test_it_needs_a_gpu_and_a_scheduler_that_asks_it() -> None:
    assert KNOB.why_not("avoided", make_target()) == "needs an NVIDIA GPU: there is none to wait for"
    assert KNOB.why_not("avoided", make_target(GPU, scheduler_class="DDIMScheduler")) is None
    flow = {"scheduler_class": "FlowMatchEulerDiscreteScheduler", "flow_matching": True}
    flux, sd3 = (make_target(GPU, class_name=name, **flow) for name in ("FluxPipeline", "StableDiffusion3Pipeline"))
    said = "FlowMatchEulerDiscreteScheduler counts its steps and never waits for the GPU"
    assert KNOB.why_not("avoided", flux) == said
    assert KNOB.why_not("avoided", sd3) is None


def test_clash_with_schedulers_that_gain_nothing() -> None:
    def said(scheduler: str, class_name: str) -> str | None:
        target = make_target(GPU, scheduler_class="DDIMScheduler", class_name=class_name)
        return KNOB.clash(complete({"scheduler_sync": "avoided", "scheduler": scheduler}), target)

    assert said("own", "StableDiffusionXLPipeline") is None
    assert said("euler", "StableDiffusionPipeline") is None
    assert (
        said("euler", "StableDiffusionXLPipeline")
        == "EulerDiscreteScheduler counts its steps and never waits for the GPU"
    )
    assert "waits for anyway" in str(said("unipc", "StableDiffusionPipeline"))
