"""Knobs and measurements on a real GPU, with the demo and tiny checkpoints. Takes about a minute."""

import pytest
import torch
from live import built, difference, loaded, picture, profiled_kernels

from autotune.building import build
from autotune.devices import find_device
from autotune.devices.probe import probe_device
from autotune.knobs import complete
from autotune.measure import latency
from autotune.measure.memory import CudaMeter
from autotune.measure.phases import phases
from autotune.measure.watch import watch_for
from tools.gpu_step import NOT_POSSIBLE

pytestmark = pytest.mark.gpu
MIB = 2**20


def on_gpu(**values: object) -> tuple[object, dict[str, object]]:
    pipe = loaded(**values)
    from live import WORKLOAD

    return pipe, build.apply(pipe, complete(values), WORKLOAD, "cuda:0")


@pytest.mark.parametrize("kernel", ["flash", "efficient", "cudnn", "math"])
def test_a_forced_kernel_is_the_one_that_runs(kernel: str) -> None:
    if kernel not in probe_device(find_device("cuda")).sdpa_kernels:
        pytest.skip(f"{NOT_POSSIBLE}the {kernel} kernel")
    values = {"dtype": "fp16", "attention": f"sdpa_{kernel}"}
    pipe, _ = on_gpu(**values)
    seen = profiled_kernels(pipe)
    assert set(seen) == {kernel}
    assert build.verify(pipe, complete(values), seen)["attention"].count > 0


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune-no-cudagraphs"])
def test_a_compiled_denoiser_draws_the_eager_picture(mode: str) -> None:
    eager = picture(on_gpu(dtype="fp16")[0])
    pipe, _ = on_gpu(dtype="fp16", compile="denoiser", compile_mode=mode)
    assert difference(eager, picture(pipe)) < 0.05
    assert difference(picture(pipe), picture(pipe)) == 0


@pytest.mark.parametrize("value", ["model", "sequential", "group"])
def test_offloaded_weights_leave_the_gpu_after_a_call(value: str) -> None:
    plain = picture(on_gpu()[0])
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    pipe, _ = on_gpu(offload=value)
    assert difference(plain, picture(pipe)) < 1e-3
    weights = sum(p.numel() * p.element_size() for p in pipe.unet.parameters())
    assert torch.cuda.memory_allocated() - before < weights


def test_true_float32_differs_from_tf32() -> None:
    if not probe_device(find_device("cuda")).at_least(8):
        pytest.skip(f"{NOT_POSSIBLE}TF32, which needs compute capability 8.0")
    on, off = (picture(built(loaded().to("cuda"), tf32=value)[0]) for value in ("on", "off"))
    assert 0 < difference(on, off) < 0.1


def test_the_step_of_the_scheduler_does_not_synchronize() -> None:
    """With the knob on, the profiler sees no synchronization inside the denoising loop."""

    def waits(**values: object) -> int:
        from torch.profiler import ProfilerActivity, profile

        pipe, _ = on_gpu(scheduler="ddim", **values)
        picture(pipe)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            picture(pipe, num_inference_steps=20)
        return sum(event.count for event in profiler.key_averages() if event.key == "aten::_local_scalar_dense")

    assert waits(scheduler_sync="avoided") <= waits() - 15


def test_the_memory_of_a_phase_is_what_the_allocator_held_and_more() -> None:
    meter = CudaMeter("cuda:0")
    meter.start("run")
    block = torch.empty(256 * MIB, dtype=torch.uint8, device="cuda")
    del block
    meter.stop()
    assert (
        256 * MIB
        <= meter.peaks["run"].reserved_bytes
        < meter.peaks["run"].device_bytes
        < torch.cuda.get_device_properties(0).total_memory
    )


def test_a_watched_gpu_reports_its_clock_temperature_and_energy() -> None:
    pipe, watching = on_gpu()[0], watch_for(find_device("cuda"))
    sampled = latency.sample(lambda number: picture(pipe), watching, keep=5, device="cuda:0")
    health, energy_j = watching.health(), watching.energy_j()
    assert len(sampled.samples_s) >= 5
    assert health is not None
    assert health.sm_clock_max_mhz
    assert health.temperature_c
    assert health.power_w
    assert energy_j is None or energy_j > 0


def test_the_parts_of_a_call_are_inside_it() -> None:
    pipe = on_gpu()[0]
    picture(pipe)
    found = phases(pipe, lambda: picture(pipe), "cuda:0")
    call_s, _ = latency.timed(lambda: picture(pipe), "cuda:0")
    assert found.text_encoding_s
    assert found.vae_decode_s
    assert found.denoising_step_s
    assert found.text_encoding_s + found.vae_decode_s + 2 * found.denoising_step_s < 1.5 * call_s
