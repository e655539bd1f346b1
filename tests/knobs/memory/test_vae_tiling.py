"""vae_tiling: no tensor in the decoder is larger than a tile, and the picture stays close."""

from typing import Any

from conftest import make_target
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLQwenImage
from live import built, difference, picture

from autotune.knobs import complete, find_knob
from autotune.knobs.memory.vae_tiling import set_tile

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


def test_the_script_names_the_vae_as_the_pipeline_does() -> None:
    assert KNOB.script is not None
    for name in ("vae", "movq"):
        lines = KNOB.script(complete({"vae_tiling": True}), make_target(vae_name=name)).lines
        assert lines == (f"pipe.{name}.enable_tiling()",)


def test_a_number_is_the_side_of_a_tile_and_smaller_tiles_are_decoded_one_by_one() -> None:
    pipe, effects = built(vae_tiling=32)
    seen = sides(pipe)
    one, other = picture(built()[0], width=128, height=128), picture(pipe, width=128, height=128)
    assert max(seen) == 8
    assert len(seen) > 16
    assert abs(one - other).mean() < 0.05
    assert str(effects["vae_tiling"]) == "1 VAE set to tiles of 32 pixels"
    assert KNOB.script is not None
    again = built()[0]
    exec("\n".join(KNOB.script(complete({"vae_tiling": 32}), make_target()).lines), {"pipe": again})
    assert difference(picture(again, width=128, height=128), other) == 0


def test_a_vae_of_videos_is_given_the_same_tiles_by_its_own_names() -> None:
    tiles = {"tile_sample_min_height": 256, "tile_sample_min_width": 256}
    strides = {"tile_sample_stride_height": 192, "tile_sample_stride_width": 192}
    vae = AutoencoderKLQwenImage(base_dim=4, z_dim=4, num_res_blocks=1)
    set_tile(vae, 256)
    assert vae.use_tiling
    assert {name: getattr(vae, name) for name in tiles | strides} == tiles | strides
    overlapping = AutoencoderKLCogVideoX(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2)
    set_tile(overlapping, 256)  # by a share of its own
    assert overlapping.use_tiling
    assert {name: getattr(overlapping, name) for name in tiles} == tiles
    assert overlapping.tile_latent_min_height == 32


def test_smaller_tiles_than_the_vaes_own_act_where_its_own_hold_the_picture() -> None:
    target = make_target(side=1024, vae_tile_px=1024)  # SDXL
    assert KNOB.why_not(True, target) == "1024x1024 fits in one tile of 1024 pixels"
    assert KNOB.why_not(512, target) is None
    assert KNOB.why_not(1024, target) == "the VAE's own tiles have 1024 pixels, which is vae_tiling=true"
    assert [KNOB.accepts(v) for v in (48, 1, 33, 512.0)] == [True, False, False, False]
