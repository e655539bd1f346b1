"""The noise floor (promise 14): which trials show it, and what it is if none does."""

import pytest
from conftest import CPU, gpu
from made_up import failed, likeness, measured, shared

from autotune.config import Value
from autotune.device import Device
from autotune.study.noise_floor import is_equivalent, noise_floor, unlike_itself
from autotune.trial import Anchor


def test_the_noise_floor_is_read_off_the_repeated_baseline_and_equivalent_configs() -> None:
    trials = [
        measured(0, judged=likeness(1.0)),
        measured(1, {"memory_format": "channels_last"}, judged=likeness(0.999)),
        measured(2, {"qkv_fusion": True, "compile": "denoiser"}, judged=likeness(0.99)),
        measured(3, {"dtype": "bf16"}, judged=likeness(0.9)),
        failed(4, {"memory_format": "channels_last", "qkv_fusion": True}),
    ]
    again = Anchor(before=5, outcome=measured(0, judged=likeness(0.9999)).outcome, seconds=1.0)
    floor = noise_floor(trials, [again])
    assert (floor.repeated_mean, floor.equivalent_mean, floor.equivalent_trial) == (0.9999, 0.99, 2)


def test_figures_that_were_not_measured_are_none() -> None:
    floor = noise_floor([measured(0), measured(1, {"dtype": "bf16"})], [])
    assert set(floor.to_json().values()) == {None}


def test_the_baseline_itself_is_no_equivalent_config() -> None:
    assert not is_equivalent(measured(1), measured(0))


def test_for_reused_pictures_the_spot_check_shows_the_noise_floor() -> None:
    layout = {"memory_format": "channels_last"}
    floor = noise_floor([measured(0), shared(1, 0, layout, ssim=0.97)], [])
    assert (floor.equivalent_mean, floor.equivalent_worst, floor.equivalent_trial) == (0.97, 0.97, 1)
    of_another = shared(2, 1, layout | {"qkv_fusion": True}, ssim=0.5)
    assert noise_floor([measured(0), shared(1, 0, layout, ssim=0.97), of_another], []).equivalent_trial == 1


@pytest.mark.parametrize(
    ("ssim", "device", "values", "unlike"),
    [
        (0.41, CPU, {}, True),
        (1.0, CPU, {}, False),
        (0.999, CPU, {}, False),
        (0.41, gpu(9, 0), {}, False),  # kernels may add in any order
        (0.41, CPU, {"dtype": "bf16"}, False),
    ],
)
def test_a_baseline_that_is_unlike_itself_in_float32_on_a_cpu_is_another_pipeline(
    ssim: float, device: Device, values: dict[str, Value], unlike: bool
) -> None:
    again = Anchor(before=5, outcome=measured(0, values, judged=likeness(ssim)).outcome, seconds=1.0)
    said = unlike_itself(measured(0, values), again, device)
    assert (said is not None and "has SSIM 0.41 to its own pictures" in said) == unlike
