"""vae: the pictures are decoded by the VAE asked for, loaded instead of the own one; float16 never overflows in it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import gpu, make_target
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline
from live import difference
from tiny import tiny_checkpoint, tiny_vae, vae
from tiny_pipes import draw, tiny_pipe, tiny_pipeline, tiny_traits, tiny_workload

from autotune import demo
from autotune.building import build
from autotune.errors import UserError
from autotune.knobs import complete, find_knob
from autotune.pipelines import loading, locate, resolve
from autotune.pipelines.inspect import traits_of
from autotune.pipelines.replacement_vae import NO_REPLACEMENT, REPLACEMENT_VAES, vae_fault
from autotune.target import Target

KNOB = find_knob("vae")
SD, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def another(root: Path) -> str:
    """The folder of a tiny VAE that could stand in for the tiny checkpoints' own."""
    torch.manual_seed(1)
    tiny_vae().save_pretrained(root / "another")
    return str(root / "another")


def decoder_size(pipe: Any) -> int:
    return sum(p.numel() for p in pipe.vae.decoder.parameters())


def target_of(family: str, root: Path, weights: Any = "pretrained", **traits: Any) -> Target:
    target = make_target(gpu(8, 0), side=1024)
    read = tiny_traits(family, root, weights).model_copy(update=traits)
    pipeline = tiny_pipeline(family, root, weights).model_copy(update={"traits": read})
    return target.model_copy(update={"pipeline": pipeline})


@pytest.mark.parametrize(
    "family", [SD, XL, "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline", "StableDiffusion3Pipeline"]
)
def test_another_vae_draws_another_picture_with_a_smaller_decoder(family: str, root: Path, another: str) -> None:
    (own, _), (pipe, effects) = tiny_pipe(family, root), tiny_pipe(family, root, vae=another)
    assert isinstance(pipe.vae, AutoencoderTiny)
    assert effects["vae"].count == decoder_size(pipe) < decoder_size(own)
    one, other = draw(own, family), draw(pipe, family)
    assert np.isfinite(other).all()
    assert one.shape == other.shape
    assert difference(one, other) > 0


def test_the_own_vae_is_no_change_and_no_complaint(root: Path) -> None:
    pipe, effects = tiny_pipe(SD, root)
    assert "vae" not in effects
    assert KNOB.load is not None
    assert KNOB.load("own") == {}
    assert isinstance(pipe.vae, AutoencoderKL)


@pytest.mark.parametrize("family", [SD, XL])
def test_random_weights_have_a_tiny_vae_of_the_same_latents(family: str, root: Path) -> None:
    own, _ = tiny_pipe(family, root, weights="random")
    pipe, effects = tiny_pipe(family, root, weights="random", vae="tiny")
    assert isinstance(pipe.vae, AutoencoderTiny)
    assert effects["vae"].count == decoder_size(pipe) > 0
    assert pipe.vae.config.latent_channels == own.vae.config.latent_channels
    one, other = draw(own, family), draw(pipe, family)
    assert one.shape == other.shape
    assert difference(one, other) > 0


@pytest.mark.parametrize("preset", ["sd15", "sdxl"])
def test_at_full_size_the_tiny_vae_is_taesd_and_a_small_part_of_the_own(preset: str) -> None:
    own = loading.load(resolve(preset, "random"), dtype=torch.float32, device="meta")
    pipe = loading.load(resolve(preset, "random"), dtype=torch.float32, device="meta", vae="tiny")
    assert sum(p.numel() for p in pipe.vae.parameters()) == 2_445_063
    assert decoder_size(pipe) < decoder_size(own) / 20
    assert pipe.vae.config.latent_channels == 4


@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")  # SDXL's pipeline calls it itself
def test_in_float16_the_fixed_vae_of_sdxl_is_never_cast(root: Path) -> None:
    """The own one is cast to float32 for decoding: in float16 it would draw a black picture."""
    formats = {}
    for value in ("own", "fp16_fix", "tiny"):
        pipe, _ = tiny_pipe(XL, root, weights="random", dtype="fp16", vae=value)
        seen: set[torch.dtype] = set()
        pipe.vae.decoder.register_forward_pre_hook(lambda model, given, seen=seen: seen.add(given[0].dtype))
        pixels = draw(pipe, XL, num_inference_steps=2)
        assert np.isfinite(pixels).all()
        formats[value] = seen
        assert pipe.vae.dtype == torch.float16
    assert formats == {"own": {torch.float32}, "fp16_fix": {torch.float16}, "tiny": {torch.float16}}


def test_the_fixed_vae_is_of_the_own_ones_shape(root: Path) -> None:
    (own, _), (pipe, effects) = (
        tiny_pipe(XL, root, weights="random", dtype="fp16", vae=value) for value in ("own", "fp16_fix")
    )
    assert own.vae.config.force_upcast
    assert not pipe.vae.config.force_upcast
    assert effects["vae"].count == decoder_size(own)


def test_the_real_fixed_vae_is_never_upcast_whatever_its_configuration_says(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae(force_upcast=True, scaling_factor=0.13025).save_pretrained(tmp_path / "fixed")
    monkeypatch.setitem(REPLACEMENT_VAES, "fp16_fix", {(4, 0.13025): str(tmp_path / "fixed")})
    pipe, effects = tiny_pipe(XL, root, dtype="fp16", vae="fp16_fix")
    assert not pipe.vae.config.force_upcast
    assert pipe.vae.dtype == torch.float16
    assert effects["vae"].count > 0


@pytest.mark.parametrize("value", ["tiny", "fp16_fix", "another"])
def test_a_pipe_with_its_own_vae_says_how_to_load_it(value: str, root: Path, another: str) -> None:
    value = another if value == "another" else value
    pipe, _ = tiny_pipe(XL, root)
    with pytest.raises(UserError) as caught:
        build.apply(pipe, complete({"vae": value}), tiny_workload(XL), "cpu")
    assert str(caught.value) == f"vae={value} must act while loading: load the pipeline with vae={value}."


def test_a_pipe_loaded_by_hand_with_that_vae_can_be_built_on(root: Path, another: str) -> None:
    folder = tiny_pipeline(SD, root).source
    pipe = DiffusionPipeline.from_pretrained(folder, vae=AutoencoderTiny.from_pretrained(another))
    for value in (another, "tiny"):
        assert build.apply(pipe, complete({"vae": value}), tiny_workload(SD), "cpu")["vae"].count == decoder_size(pipe)


def test_a_pipe_with_a_tiny_vae_can_be_saved_and_loaded_again(root: Path, another: str, tmp_path: Path) -> None:
    pipe, _ = tiny_pipe(SD, root, vae=another)
    pipe.save_pretrained(tmp_path)
    assert isinstance(DiffusionPipeline.from_pretrained(tmp_path).vae, AutoencoderTiny)


def test_a_vae_of_other_latents_is_refused_while_loading(root: Path, tmp_path: Path) -> None:
    tiny_vae(latent_channels=16).save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError) as caught:
        tiny_pipe(SD, root, vae=str(tmp_path / "wide"))
    said = str(caught.value)
    assert said.startswith(f"the VAE '{tmp_path}/wide' decodes latents of 16 channels, 2 pixels a cell; those of ")
    assert said.endswith(" have 4 channels, 2 pixels a cell.")


def test_a_folder_that_is_no_vae_is_refused_while_loading(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="can't be loaded"):
        tiny_pipe(SD, root, vae=str(tmp_path / "empty"))
    with pytest.raises(UserError, match="is a UNet2DConditionModel, no VAE"):
        tiny_pipe(SD, root, vae=str(demo.PIPELINE / "unet"))


def test_a_pipeline_of_pixels_has_none_to_replace(root: Path, another: str) -> None:
    target = target_of("IFPipeline", root)
    for value in ("tiny", "fp16_fix", another):
        assert KNOB.why_not(value, target) == "IFPipeline has no VAE"
    with pytest.raises(UserError, match="has no VAE that vae=tiny could replace"):
        tiny_pipe("IFPipeline", root, weights="random", vae="tiny")


def test_no_vae_is_offered_for_latents_that_nobody_distilled(root: Path) -> None:
    """The demo's are its own; those of the tiny checkpoints have another size than the numbers promise."""
    assert traits_of(resolve("demo")).vae_faults == {"tiny": NO_REPLACEMENT, "fp16_fix": NO_REPLACEMENT}
    assert tiny_traits(XL, root).vae_faults == {"tiny": NO_REPLACEMENT, "fp16_fix": NO_REPLACEMENT}
    assert tiny_traits(XL, root, "random").vae_faults == {}
    assert KNOB.why_not("tiny", target_of(XL, root)) == NO_REPLACEMENT
    assert KNOB.why_not("tiny", target_of(XL, root, "random")) is None
    with pytest.raises(UserError, match=f"vae=tiny: {NO_REPLACEMENT}"):
        loading.load(resolve("demo"), dtype=torch.float32, device="cpu", vae="tiny")


def test_without_a_network_the_way_to_download_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(locate, "part_folder", _not_there)
    pipeline = resolve(str(tiny_checkpoint(SD, tmp_path / "sd")))
    said = vae_fault(pipeline, "tiny", vae(block_out_channels=(16,) * 4, **_levels(4)).config)
    assert said == "run `hf download madebyollin/taesd`"


def _not_there(source: str) -> Path:
    raise UserError(f"run `hf download {source}`.")


def _levels(count: int) -> dict[str, Any]:
    return {"down_block_types": ("DownEncoderBlock2D",) * count, "up_block_types": ("UpDecoderBlock2D",) * count}


def test_the_fixed_vae_is_for_those_that_overflow_in_float16(root: Path) -> None:
    sd, xl = target_of(SD, root, "random"), target_of(XL, root, "random")
    assert KNOB.why_not("fp16_fix", sd) == NO_REPLACEMENT
    assert KNOB.why_not("fp16_fix", xl) is None
    assert KNOB.clash(complete({"vae": "fp16_fix", "dtype": "fp16"}), xl) is None
    for dtype in ("fp32", "bf16"):
        assert "does not overflow" in str(KNOB.clash(complete({"vae": "fp16_fix", "dtype": dtype}), xl))


def test_any_hub_id_or_folder_is_a_value(another: str) -> None:
    assert [KNOB.accepts(v) for v in ("own", "tiny", "fp16_fix", "owner/name", another)] == [True] * 5
    assert [KNOB.accepts(v) for v in ("other", "", "/", 1, True)] == [False] * 5
    assert KNOB.why_not("/not/there", make_target()) == "the folder /not/there does not exist"
    assert KNOB.why_not(another, make_target()) is None


def test_fused_projections_go_with_a_tiny_vae(root: Path, another: str) -> None:
    plain, (fused, effects) = tiny_pipe(SD, root, vae=another)[0], tiny_pipe(SD, root, vae=another, qkv_fusion=True)
    assert effects["qkv_fusion"].count > 0
    assert difference(draw(plain, SD), draw(fused, SD)) < 0.02


def test_slicing_goes_with_a_tiny_vae(root: Path, another: str) -> None:
    plain, (sliced, _) = tiny_pipe(SD, root, vae=another)[0], tiny_pipe(SD, root, vae=another, vae_slicing=True)
    batches: list[int] = []
    sliced.vae.decoder.register_forward_pre_hook(lambda _, given: batches.append(len(given[0])))
    assert difference(draw(plain, SD, batch=2), draw(sliced, SD, batch=2)) < 0.02
    assert batches == [1, 1]


def test_a_tiny_vae_decodes_large_latents_in_tiles() -> None:
    """At its own size: eight pixels a cell, tiles of 512 pixels."""
    torch.manual_seed(0)
    made = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    ).eval()
    latents, sides = torch.randn(1, 4, 96, 96), []
    with torch.no_grad():
        whole = made.decode(latents).sample
        made.enable_tiling()
        made.decoder.register_forward_pre_hook(lambda _, given: sides.append(max(given[0].shape[-2:])))
        tiled = made.decode(latents).sample
    assert len(sides) == 4
    assert max(sides) == 64
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.05 * whole.std()


def test_clash_of_tiles_that_a_tiny_vae_would_not_need_or_not_cut() -> None:
    both = complete({"vae": "tiny", "vae_tiling": True})
    small, large = make_target(side=512), make_target(side=1024)
    assert KNOB.clash(both, small) == "a picture of 512 pixels fits into one tile of the tiny VAE, which has 512 pixels"
    assert KNOB.clash(both, large) is None
    wide = make_target(side=1024, flow_matching=True, inputs={"image": "photo"})
    assert "four channels only" in str(KNOB.clash(both, wide))
    assert KNOB.clash(complete({"vae": "tiny"}), small) is None
