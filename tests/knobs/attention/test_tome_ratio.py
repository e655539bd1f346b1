"""tome_ratio: tokens really merge, as often as it says, and the same seed gives the same picture every time."""

from typing import Any

import pytest
import tomesd
from conftest import make_target
from live import built, configurations, configured, difference, loaded, picture

from autotune.building import build
from autotune.knobs import complete, find_knob
from autotune.pipelines.inspect import transformer_blocks

KNOB = find_knob("tome_ratio")


@pytest.fixture
def merges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each matching since then was told to merge."""
    seen: list[int] = []
    match = tomesd.merge.bipartite_soft_matching_random2d

    def spy(metric: Any, w: int, h: int, sx: int, sy: int, r: int, **options: Any) -> Any:
        seen.append(r)
        return match(metric, w, h, sx, sy, r, **options)

    monkeypatch.setattr(tomesd.merge, "bipartite_soft_matching_random2d", spy)
    return seen


@pytest.mark.parametrize(("deepest", "tokens"), [(1, {128}), (2, {128, 32})])
def test_as_many_blocks_merge_as_it_says(merges: list[int], deepest: int, tokens: set[int]) -> None:
    pipe, effects = built(tome_ratio=0.5, tome_max_downsample=deepest)
    picture(pipe, num_inference_steps=1)
    assert effects["tome_ratio"].count == len(merges)
    assert set(merges) == tokens  # half of 16 x 16, and of 8 x 8 where it goes deeper


@pytest.mark.parametrize(("ratio", "deepest"), [(0.25, 1), (0.5, 2), (0.75, 2)])
def test_the_tokens_that_merge_are_counted(monkeypatch: pytest.MonkeyPatch, ratio: float, deepest: int) -> None:
    """By the difference of what goes into self-attention, against the count that a trial keeps."""
    config = complete({"tome_ratio": ratio, "tome_max_downsample": deepest})
    pipe, _ = built(**config)
    before, after = [], []
    for block in transformer_blocks(pipe.unet).values():
        block.register_forward_pre_hook(lambda _, given: before.append(given[0].shape[1]))
        block.attn1.register_forward_pre_hook(lambda _, given: after.append(given[0].shape[1]))
    picture(pipe, num_inference_steps=1)
    effect = build.verify(pipe, config, {})["tome_ratio"]
    assert effect.count == sum(before) - sum(after) > 0
    assert effect.what.startswith("of ")


def test_each_ratio_draws_another_picture() -> None:
    pictures = [picture(built(tome_ratio=ratio)[0]) for ratio in (0.0, 0.25, 0.5)]
    assert difference(pictures[0], pictures[1]) > 1e-3
    assert difference(pictures[1], pictures[2]) > 1e-3
    assert difference(pictures[0], pictures[2]) < 0.5


def test_the_same_seed_draws_the_same_picture_again() -> None:
    pipe, _ = built(tome_ratio=0.5)
    first, again = picture(pipe), picture(pipe)
    other_pipe = picture(built(tome_ratio=0.5)[0])
    assert difference(first, again) == 0
    assert difference(first, other_pipe) == 0


def test_merging_leaves_the_random_numbers_of_the_process_alone() -> None:
    import torch

    pipe, _ = built(tome_ratio=0.5)
    before = torch.get_rng_state()
    picture(pipe)
    assert torch.equal(torch.get_rng_state(), before)


def test_all_blocks_of_a_kind_have_one_class_so_that_compiled_they_share_graphs() -> None:
    pipe, _ = built(tome_ratio=0.5)
    blocks = transformer_blocks(pipe.unet).values()
    assert len(blocks) == 7
    assert len({type(block) for block in blocks}) == 1


def test_merging_can_be_taken_off_again_as_tomesd_does() -> None:
    pipe, _ = built(tome_ratio=0.5)
    tomesd.remove_patch(pipe.unet)
    assert {type(block).__name__ for block in transformer_blocks(pipe.unet).values()} == {"BasicTransformerBlock"}
    assert difference(picture(pipe), picture(built()[0])) == 0


def test_where_no_level_merges_it_counts_nothing(tmp_path: Any, merges: list[int]) -> None:
    """SDXL's shape: no attention at full resolution."""
    import torch

    from autotune.pipelines.random_weights import assemble

    folder = configurations(
        tmp_path / "tiny",
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
    )
    pipe = assemble(configured(folder), dtype=torch.float32, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    assert KNOB.apply is not None
    assert KNOB.apply(pipe, complete({"tome_ratio": 0.5, "tome_max_downsample": 1}), "cpu").count == 0
    picture(pipe, num_inference_steps=1)
    assert merges == []
    effect = KNOB.apply(pipe, complete({"tome_ratio": 0.5, "tome_max_downsample": 2}), "cpu")
    picture(pipe, num_inference_steps=1)
    assert effect.count == len(merges) > 0


def test_only_ratios_that_tomesd_can_merge_are_values() -> None:
    assert [KNOB.accepts(value) for value in (0.1, 0.75)] == [True, True]
    assert [KNOB.accepts(value) for value in (0.76, 1.0, -0.5, float("nan"), 1, True)] == [False] * 6


def test_a_denoiser_without_transformer_blocks_refuses() -> None:
    refusal = KNOB.why_not(0.5, make_target(attention_downsamples=()))
    assert refusal == "UNet2DConditionModel has no transformer blocks that tomesd supports"


def test_blocks_that_attend_over_frames_refuse() -> None:
    refusal = KNOB.why_not(0.5, make_target(frames_argument="num_frames"))
    assert refusal == "tomesd merges tokens of a picture, and UNet2DConditionModel attends over frames"


def test_a_pipe_without_merging_is_left_as_it_was() -> None:
    assert not hasattr(loaded().unet, "_tome_info")
