"""When two pictures are the same, and what is said where they are not."""

import pytest

from autotune.reuse import MIN_PSNR_DB, SpotCheck


def check(
    psnr_db: float | None, *, levels: int = 9, ssim: float = 0.99, least: float | None = None, **more: object
) -> SpotCheck:
    return SpotCheck(
        trial=3,
        prompt=0,
        suspects={"compile": "denoiser"},
        ssim=ssim,
        psnr_db=psnr_db,
        largest_levels=levels,
        min_psnr_db=least,
        **more,
    )


@pytest.mark.parametrize(
    ("seen", "same"),
    [
        (check(None, levels=0), True),
        (check(50.0, levels=1), True),  # rounded to 8 bits, no difference at all may be one level
        (check(50.0, levels=2), False),  # float32: nothing else may be
        (check(50.0, least=45.0), True),  # a coarser format, as far off as its rounding
        (check(44.9, least=45.0), False),
        (check(50.0, least=45.0, ssim=0.89), False),
    ],
)
def test_pictures_are_the_same_within_a_level_or_within_what_rounding_makes(seen: SpotCheck, same: bool) -> None:
    assert seen.same == same


def test_a_difference_is_said_with_the_knob_and_by_how_much() -> None:
    said = check(24.08, ssim=0.9104, least=MIN_PSNR_DB).mismatch
    assert said == "compile=denoiser changed the picture here: SSIM 0.910, PSNR 24.1 dB to trial 3's"


def test_of_several_suspects_one_is_blamed() -> None:
    seen = check(24.0).model_copy(update={"suspects": {"compile": "denoiser", "attention": "vanilla"}})
    assert seen.mismatch is not None
    assert seen.mismatch.startswith("one of compile=denoiser, attention=vanilla changed the picture here")


def test_nobody_is_blamed_where_pictures_are_the_same_or_nothing_says_how_far_they_may_be_off() -> None:
    assert check(60.0, levels=1).mismatch is None
    assert check(40.0, conclusive=False).mismatch is None
    assert not check(40.0, conclusive=False).same
