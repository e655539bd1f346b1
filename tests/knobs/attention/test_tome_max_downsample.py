"""tome_max_downsample: a level without attention is refused, where tomesd would silently do nothing."""

from conftest import make_target
from live import built, difference, picture

from autotune.knobs import find_knob

KNOB = find_knob("tome_max_downsample")


def test_a_level_without_attention_is_refused() -> None:
    sdxl = make_target(attention_downsamples=(2, 4))
    assert KNOB.why_not(1, sdxl) == "this UNet has attention at the downsampling factors 2, 4 only"
    assert KNOB.why_not(8, sdxl) == "this UNet has attention at the downsampling factors 2, 4 only"
    assert KNOB.why_not(2, sdxl) is None
    assert KNOB.why_not(4, sdxl) is None


def test_every_level_that_is_there_can_be_had() -> None:
    sd15 = make_target(attention_downsamples=(1, 2, 4, 8))
    assert [KNOB.why_not(value, sd15) for value in KNOB.values] == [None] * 4


def test_merging_deeper_changes_the_picture_more() -> None:
    plain = picture(built()[0])
    shallow, deep = (picture(built(tome_ratio=0.5, tome_max_downsample=level)[0]) for level in (1, 2))
    assert 0 < difference(plain, shallow) < difference(plain, deep)
