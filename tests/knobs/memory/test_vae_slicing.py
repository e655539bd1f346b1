"""vae_slicing: a batch is decoded one picture at a time, and the pictures stay."""

from typing import Any

from conftest import make_target
from live import built, difference, picture

from autotune.knobs import find_knob

KNOB = find_knob("vae_slicing")


def batches(pipe: Any) -> list[int]:
    """How many latents each call of the decoder since then was given."""
    seen: list[int] = []
    pipe.vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0]))
    return seen


def test_the_decoder_sees_one_latent_at_a_time() -> None:
    (whole, _), (sliced, effects) = built(), built(vae_slicing=True)
    seen_whole, seen_sliced = batches(whole), batches(sliced)
    assert difference(picture(whole, count=2), picture(sliced, count=2)) < 1e-4
    assert (seen_whole, seen_sliced) == ([2], [1, 1])
    assert effects["vae_slicing"].count == 1


def test_it_is_refused_where_there_is_nothing_to_slice() -> None:
    assert KNOB.why_not(True, make_target(batch=1)) == "needs a batch of at least 2; this workload has 1"
    assert KNOB.why_not(True, make_target(batch=2)) is None
    assert KNOB.why_not(True, make_target(batch=2, vae_class=None)) == "StableDiffusionPipeline has no VAE"


def test_one_size_with_a_batch_is_enough_to_slice() -> None:
    assert KNOB.why_not(True, make_target(batch=1, sizes=2)) is None
