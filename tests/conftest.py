"""make_target(), gpu() and logged_warnings(): targets and devices without a probe, and our logged warnings."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.device import Device
from autotune.execution import fork_client
from autotune.pipeline import Pipeline, Traits
from autotune.target import Target
from autotune.workload import Shape, Workload

# Every fresh cache would compile a program for each vector instruction set to see whether it runs: 12 s.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
os.environ.setdefault("AUTOTUNE_BUSY", "accept")  # other tests run at the same time
fork_client.READ_LATE.add("PYTEST_CURRENT_TEST")  # changes with every test, and no library reads it
# Every trial has an Inductor cache of its own. The same C++ is compiled once for all of them: see the file.
os.environ.setdefault("CXX", str(Path(__file__).parent / "compiler" / "g++"))
if "COMPILED_BY_TESTS" not in os.environ:  # the first process of a run; those that it starts find the folder
    os.environ["COMPILED_BY_TESTS"] = tempfile.mkdtemp(prefix="autotune-tests-compiled-")

    def pytest_unconfigure() -> None:
        shutil.rmtree(os.environ["COMPILED_BY_TESTS"])


TRAITS = Traits(
    class_name="StableDiffusionPipeline",
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    vae_class="AutoencoderKL",
    fuses_qkv=True,
    slices_attention=True,
    repeated_blocks=("BasicTransformerBlock",),
    attention_downsamples=(1, 2),
    linear_shapes=((64, 64), (128, 128), (128, 1024)),
    convolutions=40,
    vae_tile_px=64,
    vae_upcasts_fp16=False,
    size_multiple=4,
    default_width=64,
    default_height=64,
    default_steps=50,
    default_guidance_scale=7.5,
    prompt_tokens=24,
    text_encoders=("text_encoder",),
    attention_processors=("AttnProcessor2_0",),
    scheduler_class="DDIMScheduler",
    compatible_schedulers=("DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"),
    callback_tensors=("latents", "prompt_embeds", "negative_prompt_embeds"),
    conv1x1_shapes=((64, 128), (128, 64)),
    vae_faults={"tiny": "no such VAE is known for these latents", "fp16_fix": "no such VAE is known for these latents"},
)
CPU = Device(kind="cpu", name="a test's processor", memory_bytes=2**34, cores=2, sdpa_kernels=("flash", "math"))


def gpu(major: int, minor: int, *, multiprocessors: int = 108) -> Device:
    """A made-up GPU of this compute capability."""
    return Device(
        kind="cuda",
        name=f"NVIDIA sm_{major}{minor}",
        memory_bytes=40 * 10**9,
        compute_capability=(major, minor),
        multiprocessors=multiprocessors,
        sdpa_kernels=("flash", "efficient", "cudnn", "math"),
    )


def logged_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of autotune, without those of the libraries."""
    return [log.getMessage() for log in caplog.records if log.name == "autotune" and log.levelname == "WARNING"]


OTHER_SHAPES = (Shape(width=96, height=96, batch=2), Shape(width=128, height=64))


def make_target(device: Device = CPU, *, batch: int = 1, side: int = 64, sizes: int = 1, **traits: object) -> Target:
    """The target of the demo, without a probe.

    sizes   the number of sizes of the workload
    traits  override single traits of the pipeline
    """
    return Target(
        pipeline=Pipeline(
            name="demo", source="demo", scorer="demo", revision="test", traits=TRAITS.model_copy(update=traits)
        ),
        workload=Workload(
            prompts=("a large red circle at the top on a white background",),
            width=side,
            height=side,
            batch=batch,
            steps=20,
            guidance_scale=4.0,
            also=OTHER_SHAPES[: sizes - 1],
        ),
        device=device,
        versions={"torch": "0"},
    )


@pytest.fixture
def target() -> Target:
    return make_target()


@pytest.fixture
def children_are_forked() -> Iterator[None]:
    """See searches.py: for tests of what children say, not of how they are started."""
    from searches import forked_children

    with forked_children():
        yield


@pytest.fixture
def demo_folder() -> Path:
    from autotune import demo

    return demo.PIPELINE
