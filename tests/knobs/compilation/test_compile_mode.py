"""compile_mode: Inductor's own modes, refused where they would do nothing or do harm."""

import pytest
import torch
from conftest import CPU, gpu, make_target

from autotune.config import Value
from autotune.knobs import complete, find_knob
from autotune.knobs.compilation.compile_mode import CUDA_GRAPHS
from autotune.pipeline import KeptOutput

KNOB = find_knob("compile_mode")


def test_every_value_is_a_mode_of_inductor() -> None:
    assert set(KNOB.values) - {"default"} <= set(torch._inductor.list_mode_options())


@pytest.mark.parametrize("mode", KNOB.values)
def test_the_modes_named_for_cuda_graphs_are_those_that_use_them(mode: str) -> None:
    options = torch._inductor.list_mode_options(mode) if mode != "default" else {}
    assert bool(options.get("triton.cudagraphs")) == (mode in CUDA_GRAPHS)


def test_cuda_graphs_are_refused_without_a_gpu() -> None:
    assert KNOB.why_not("reduce-overhead", make_target(CPU)) == "uses CUDA graphs, which need an NVIDIA GPU"
    assert KNOB.why_not("reduce-overhead", make_target(gpu(7, 5))) is None


def test_autotuning_is_refused_where_inductor_would_silently_skip_it() -> None:
    small, large = make_target(gpu(8, 9, multiprocessors=60)), make_target(gpu(8, 9, multiprocessors=68))
    refusal = "Inductor tunes matrix products on GPUs with 68 multiprocessors or more; this GPU has 60"
    assert KNOB.why_not("max-autotune", small) == refusal
    assert KNOB.why_not("max-autotune-no-cudagraphs", small) == refusal
    assert KNOB.why_not("max-autotune", large) is None


@pytest.mark.parametrize("mode", CUDA_GRAPHS)
@pytest.mark.parametrize("offload", ["model", "sequential", "group"])
def test_clash_of_cuda_graphs_with_weights_that_move(mode: str, offload: str) -> None:
    target = make_target(gpu(8, 0))
    moving = complete({"compile": "regional", "compile_mode": mode, "offload": offload})
    staying = moving.replace(compile_mode="max-autotune-no-cudagraphs")
    assert KNOB.clash(moving, target) == "CUDA graphs do not support offloading, which moves the weights at every call"
    assert KNOB.clash(staying, target) is None


def test_clash_of_cuda_graphs_with_a_vae_that_is_cast_at_every_call() -> None:
    sdxl = make_target(gpu(8, 0), vae_upcasts_fp16=True)
    config = complete({"dtype": "fp16", "compile": "denoiser+vae", "compile_mode": "reduce-overhead"})
    assert "cast to float32 and back" in str(KNOB.clash(config, sdxl))
    assert "cast to float32 and back" in str(KNOB.clash(config.replace(compile="everything"), sdxl))
    assert KNOB.clash(config, make_target(gpu(8, 0), vae_upcasts_fp16=False)) is None
    assert KNOB.clash(config.replace(dtype="bf16"), sdxl) is None
    assert KNOB.clash(config.replace(compile="denoiser"), sdxl) is None
    assert KNOB.clash(config.replace(compile_mode="default"), sdxl) is None


def test_clash_of_cuda_graphs_with_a_controlnet_beside_a_denoiser_in_regions() -> None:
    """The pipeline marks the beginning of a step where both are wrapped whole, and nowhere else."""
    target = make_target(gpu(8, 0), controlnet_class="ControlNetModel")
    config = complete({"compile": "regional", "compile_mode": "reduce-overhead"})
    assert "where a step begins" in str(KNOB.clash(config, target))
    assert KNOB.clash(config.replace(compile="denoiser"), target) is None
    assert KNOB.clash(config.replace(compile_mode="default"), target) is None
    assert "the output of the one before" in str(KNOB.clash(config, make_target(gpu(8, 0))))


def graphs(value: str, kept: tuple[KeptOutput, ...] = (), **values: Value) -> str | None:
    """The clash of CUDA graphs with this value of compile, for a pipeline that reads these outputs late."""
    encoders = ("text_encoder", "text_encoder_2")
    target = make_target(gpu(8, 0), kept_outputs=kept, text_encoders=encoders, scheduler_class="PNDMScheduler")
    config = complete({"compile": value, "compile_mode": "reduce-overhead", **values})
    return KNOB.clash(config, target)


def test_clash_of_cuda_graphs_with_regions_that_hand_outputs_to_each_other() -> None:
    assert "each region overwrites the output of the one before" in str(graphs("regional"))
    assert graphs("denoiser") is None


def test_clash_of_cuda_graphs_with_two_text_encoders_whose_outputs_are_joined() -> None:
    kept = KeptOutput(model="text_encoder", after="text_encoder_2", by_scheduler=False, guided=True)
    assert graphs("everything", (kept,)) == (
        "StableDiffusionPipeline reads the output of text_encoder after it called text_encoder_2, "
        "whose CUDA graph overwrites it"
    )
    assert graphs("denoiser+vae", (kept,)) is None


def test_clash_of_cuda_graphs_with_a_denoiser_that_is_called_twice_a_step() -> None:
    kept = KeptOutput(model="unet", after="unet", by_scheduler=False, guided=True)
    assert "reads the output of unet after it called unet again" in str(graphs("denoiser", (kept,)))
    unguided, negative = (kept.model_copy(update=change) for change in ({"guided": False}, {"negative": True}))
    assert graphs("denoiser", (unguided,)) is None
    assert graphs("denoiser", (negative,)) is None  # the workload has no negative prompt


def test_clash_of_cuda_graphs_with_a_scheduler_that_keeps_outputs() -> None:
    """PNDM reads outputs of earlier steps; with guidance they are the pipeline's sums, not the denoiser's own."""
    kept = KeptOutput(model="unet", after="unet", by_scheduler=True, guided=False)
    assert graphs("denoiser", (kept,)) is None
    assert "the scheduler reads the output of unet" in str(graphs("denoiser", (kept,), guidance_cutoff=0.6))
    assert graphs("denoiser", (kept,), scheduler="unipc") is None
