"""The noise floor (promise 14): which trials tell it, and what it is where none does."""

from made_up import failed, likeness, measured, shared

from autotune.study.noise_floor import noise_floor, only_computes_otherwise
from autotune.trial import Anchor


def test_the_floor_is_told_by_the_baseline_drawn_again_and_by_whatever_only_computes_otherwise() -> None:
    trials = [
        measured(0, judged=likeness(1.0)),
        measured(1, {"memory_format": "channels_last"}, judged=likeness(0.999)),
        measured(2, {"qkv_fusion": True, "compile": "denoiser"}, judged=likeness(0.99)),
        measured(3, {"dtype": "bf16"}, judged=likeness(0.9)),
        failed(4, {"memory_format": "channels_last", "qkv_fusion": True}),
    ]
    again = Anchor(before=5, outcome=measured(0, judged=likeness(0.9999)).outcome, seconds=1.0)
    floor = noise_floor(trials, [again])
    assert (floor.again_mean, floor.otherwise_mean, floor.otherwise) == (0.9999, 0.99, 2)


def test_what_was_not_measured_is_not_told() -> None:
    floor = noise_floor([measured(0), measured(1, {"dtype": "bf16"})], [])
    assert set(floor.to_json().values()) == {None}


def test_the_baseline_itself_does_not_compute_otherwise() -> None:
    assert not only_computes_otherwise(measured(1), measured(0))


def test_of_pictures_that_were_taken_over_the_one_that_was_drawn_tells_the_floor() -> None:
    layout = {"memory_format": "channels_last"}
    floor = noise_floor([measured(0), shared(1, 0, layout, ssim=0.97)], [])
    assert (floor.otherwise_mean, floor.otherwise_worst, floor.otherwise) == (0.97, 0.97, 1)
    of_another = shared(2, 1, layout | {"qkv_fusion": True}, ssim=0.5)
    assert noise_floor([measured(0), shared(1, 0, layout, ssim=0.97), of_another], []).otherwise == 1
