"""The profiler's names become the kernels' short ones."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autotune.measure.kernels import Profiled, count_kernels, covered, profile_steps


def test_kernels_are_counted_by_their_short_names() -> None:
    events = {
        "aten::_scaled_dot_product_flash_attention_for_cpu": 7,
        "aten::_scaled_dot_product_flash_attention": 1,
        "aten::_scaled_dot_product_efficient_attention": 2,
        "aten::_scaled_dot_product_cudnn_attention": 3,
        "aten::_scaled_dot_product_attention_math": 4,
        "aten::scaled_dot_product_attention": 17,
        "aten::bmm": 99,
    }
    assert count_kernels(events) == {"flash": 8, "efficient": 2, "cudnn": 3, "math": 4}


def test_attention_without_sdpa_has_no_kernels() -> None:
    assert count_kernels({"aten::bmm": 2, "aten::softmax": 1}) == {}


def test_in_replayed_cuda_graphs_the_gpus_own_kernels_tell() -> None:
    events = {
        "cudaGraphLaunch": 2,
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4> >": 20,
        "fmha_cutlassF_f16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)": 3,
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_f16_knob_7_64x128x64": 5,
    }
    assert count_kernels(events) == {"flash": 20, "efficient": 3, "cudnn": 5}


def test_where_operators_are_seen_their_kernels_are_not_counted_twice() -> None:
    events = {"aten::_scaled_dot_product_flash_attention": 4, "void pytorch_flash::flash_fwd_kernel<>": 4}
    assert count_kernels(events) == {"flash": 4}


def test_kernels_of_other_packages_are_told_from_torchs_own() -> None:
    assert count_kernels({"flash_attn::_flash_attn_forward": 4}) == {"flash_attn": 4}
    assert count_kernels({"xformers::efficient_attention_forward_cutlass": 3}) == {"xformers": 3}
    assert count_kernels({"FlexAttentionAutogradOp": 2}) == {"flex": 2}
    assert count_kernels({"triton_tem_fused_flex_attention_0": 2}) == {"flex": 2}
    assert count_kernels({"void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64> >": 5}) == {"flash_attn": 5}
    assert count_kernels({"void pytorch_flash::flash_fwd_kernel<>": 1, "sageattn_qk_int8": 2}) == {
        "flash": 1,
        "sage": 2,
    }


def profiled(scheduler: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Profiled, list[str]]:
    """Profile a pipe that encodes text, takes so many steps and decodes; what happened while the profiler ran."""
    seen: list[str] = []
    running = [False]

    class Profiler:
        def __init__(self, activities: Any) -> None:
            pass

        def start(self) -> None:
            running[0] = True

        def stop(self) -> None:
            running[0] = False

        @property
        def profiler(self) -> Any:
            event = SimpleNamespace(name=lambda: "aten::_scaled_dot_product_attention_math")
            return SimpleNamespace(kineto_results=SimpleNamespace(events=lambda: [event] * len(seen)))

    def do(what: str) -> None:
        if running[0]:
            seen.append(what)

    def call() -> None:
        do("text")
        scheduler.set_timesteps(steps)
        for number in range(steps):
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input()
            do(f"step {number + 1}")
            scheduler.step()
        vae.decode()

    vae = SimpleNamespace(decode=lambda: do("decode"))
    monkeypatch.setattr(torch.profiler, "profile", Profiler)
    return profile_steps(SimpleNamespace(scheduler=scheduler, vae=vae), call), seen  # type: ignore[arg-type]


class FlowScheduler:
    def __init__(self) -> None:
        self.timesteps: list[int] = []

    def set_timesteps(self, steps: int) -> None:
        self.timesteps = list(range(steps))

    def step(self) -> None:
        pass


class ScalingScheduler(FlowScheduler):
    def scale_model_input(self) -> None:
        pass


@pytest.mark.parametrize(
    ("scheduler", "steps", "expected"),
    [
        (ScalingScheduler, 9, ["step 1", "step 2", "step 3"]),
        (ScalingScheduler, 1, ["step 1"]),
        (FlowScheduler, 9, ["step 2", "step 3"]),
        (FlowScheduler, 2, ["step 2"]),
        (FlowScheduler, 1, ["step 1"]),
    ],
)
def test_of_a_whole_call_the_first_steps_are_profiled(
    scheduler: Any, steps: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, seen = profiled(scheduler(), steps, monkeypatch)
    assert seen == expected
    assert found == Profiled({"math": len(expected)}, None)


def test_a_pipe_without_a_scheduler_is_not_profiled() -> None:
    assert profile_steps(SimpleNamespace(), pytest.fail) == Profiled({}, None)  # type: ignore[arg-type]


def test_time_on_two_streams_counts_once() -> None:
    assert covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 1.8)]) == 4.0
    assert covered([]) == 0.0
