"""DBCache: which blocks and steps are computed in full; by themselves its adapters draw the untouched picture."""

import logging
from pathlib import Path

import diffusers
import numpy as np
import pytest
from tiny_pipes import draw, tiny_pipe

from autotune.pipelines.rehearsal.dual_blocks import DualBlocks, first_blocks, warmup_steps

FAMILIES = ("FluxPipeline", "StableDiffusion3Pipeline", "PixArtSigmaPipeline")


@pytest.mark.parametrize(
    ("lengths", "first"),
    [([57], 8), ([24], 6), ([20, 40], 5), ([8, 48], 2), ([2], 1), ([1, 30], 1)],
)
def test_a_quarter_of_the_shortest_list_runs_at_every_step_and_at_most_eight_blocks(
    lengths: list[int], first: int
) -> None:
    assert first_blocks(lengths) == first


@pytest.mark.parametrize(("steps", "warmup"), [(50, 8), (28, 7), (8, 2), (3, 1), (1, 1)])
def test_a_quarter_of_the_steps_is_computed_in_full_and_at_most_eight(steps: int, warmup: int) -> None:
    assert warmup_steps(steps) == warmup


@pytest.mark.parametrize("family", FAMILIES)
def test_where_nothing_is_reused_the_picture_is_the_untouched_one(family: str, tmp_path: Path) -> None:
    """cache-dit replaces the forward passes of some models by its own."""
    plain = draw(tiny_pipe(family, tmp_path)[0], family)
    pipe, _ = tiny_pipe(family, tmp_path)
    cls, own = type(pipe), type(pipe).__call__
    kept = DualBlocks(pipe, 1e-9)
    pipe.transformer.register_forward_pre_hook(lambda *_: kept.begin("0", fresh=False, steps=1))
    assert np.array_equal(draw(pipe, family), plain)
    assert kept.skipped == 0
    assert kept.blocks >= 1
    assert type(pipe) is cls
    assert cls.__call__ is own, "another pipe of the class is not touched"


def test_a_pipeline_without_an_adapter_is_said(tmp_path: Path) -> None:
    pipe, _ = tiny_pipe("StableDiffusionPipeline", tmp_path)
    assert isinstance(pipe, diffusers.StableDiffusionPipeline)
    with pytest.raises(ValueError, match="cache-dit has no adapter for StableDiffusionPipeline"):
        DualBlocks(pipe, 0.1)


def test_nothing_is_printed_and_handlers_of_others_stay_as_they_are(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe, _ = tiny_pipe("FluxPipeline", tmp_path)
    DualBlocks(pipe, 0.1)
    own = logging.FileHandler(tmp_path / "log.txt")
    logging.getLogger("CACHE_DIT").addHandler(own)
    try:
        capfd.readouterr()
        DualBlocks(tiny_pipe("FluxPipeline", tmp_path)[0], 0.1)
        assert "Cache-DiT" not in "".join(capfd.readouterr())
        assert own.level == logging.NOTSET
    finally:
        logging.getLogger("CACHE_DIT").removeHandler(own)
        own.close()
