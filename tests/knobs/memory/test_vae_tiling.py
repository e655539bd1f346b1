"""vae_tiling: no tensor in the decoder is larger than a tile, and the picture stays close."""

from typing import Any

from conftest import make_target
from live import built, difference, picture

from autotune.knobs import find_knob

KNOB = find_knob("vae_tiling")


def sides(pipe: Any) -> list[int]:
    """The longer side of the latents in each call of the decoder since then."""
    seen: list[int] = []
    pipe.vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(max(given[0].shape[-2:])))
    return seen


def test_a_large_picture_is_decoded_in_tiles_and_stays_close() -> None:
    (whole, _), (tiled, effects) = built(), built(vae_tiling=True)
    seen_whole, seen_tiled = sides(whole), sides(tiled)
    one, other = (picture(pipe, width=128, height=128) for pipe in (whole, tiled))
    assert seen_whole == [32]
    assert len(seen_tiled) > 1
    assert max(seen_tiled) == 16
    assert other.shape == one.shape == (1, 128, 128, 3)
    assert difference(one, other) > 0
    assert abs(one - other).mean() < 0.05
    assert effects["vae_tiling"].count == 1


def test_it_is_refused_where_one_tile_holds_the_picture() -> None:
    assert KNOB.why_not(True, make_target(side=64, vae_tile_px=64)) == "64x64 fits in one tile of 64 pixels"
    assert KNOB.why_not(True, make_target(side=128, vae_tile_px=64)) is None


def test_it_is_refused_without_a_vae_or_without_tiles() -> None:
    assert KNOB.why_not(True, make_target(side=128, vae_tile_px=None)) == "AutoencoderKL does not support tiling"
    assert KNOB.why_not(True, make_target(side=128, vae_class=None)) == "StableDiffusionPipeline has no VAE"


def test_one_size_larger_than_a_tile_is_enough() -> None:
    assert KNOB.why_not(True, make_target(side=64, sizes=2, vae_tile_px=64)) is None
    assert KNOB.why_not(True, make_target(side=64, sizes=3, vae_tile_px=128)) == "128x64 fits in one tile of 128 pixels"
