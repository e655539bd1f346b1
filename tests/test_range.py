"""Range: which values it holds, how it is written, and the numbers that are tried."""

import json
import math

import pytest

from autotune.config import Range, read_range
from autotune.errors import UserError

RANGES = (
    Range(low=8, high=50),
    Range(low=0.03, high=0.2, log=True),
    Range(low=0.03, high=0.2, log=True, prefix="first_block:"),
    Range(low=2, high=8, prefix="deepcache:"),
    Range(low=128, high=2048, log=True),
    Range(low=0.0, high=1.0),
    Range(low=64, high=515, step=8),
)
every_range = pytest.mark.parametrize("each", RANGES, ids=str)


@every_range
def test_a_range_survives_json_and_its_word_is_read_as_the_same(each: Range) -> None:
    assert Range.parse(json.loads(json.dumps(each.to_json())), "it") == each
    assert Range.parse(read_range(str(each)), "it") == each
    assert type(Range.parse(each.to_json(), "it").low) is type(each.low)


@every_range
def test_a_value_is_its_number_again_and_lies_where_the_number_does(each: Range) -> None:
    for step in range(101):
        number = each.at(step / 100)
        assert each.number(each.value(number)) == number
        assert each.low <= number <= each.high
        assert type(number) is type(each.low)
        assert each.at(each.position(number)) == number, "rounding once is enough"
        if not each.is_whole:
            assert math.isclose(each.position(number), step / 100, abs_tol=0.005)


def test_the_scale_is_even_or_logarithmic() -> None:
    assert Range(low=0.0, high=1.0).grid() == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert Range(low=1.0, high=10000.0, log=True).grid() == (1.0, 10.0, 100.0, 1000.0, 10000.0)
    assert Range(low=64, high=515, step=8).grid() == (64, 176, 288, 400, 512)
    assert Range(low=2, high=4, prefix="deepcache:").grid() == ("deepcache:2", "deepcache:3", "deepcache:4")


@every_range
def test_the_numbers_around_a_value_come_as_close_as_a_tenth_and_are_of_the_range(each: Range) -> None:
    for value in each.grid():
        near = each.around(value)
        assert near
        assert value not in near
        assert all(other in each for other in near)
        number = each.number(value)
        assert number is not None
        numbers = [n for other in near if (n := each.number(other)) is not None]
        closest = min(abs(each.position(n) - each.position(number)) for n in numbers)
        assert closest < 0.02 or (each.is_whole and min(abs(n - number) for n in numbers) == each.step)


def test_types_matter_and_another_text_is_another_value() -> None:
    steps, share = Range(low=1, high=50), Range(low=0.0, high=1.0)
    cache = Range(low=0.03, high=0.2, prefix="first_block:")
    assert 8 in steps
    assert 0.5 in share
    assert "first_block:0.05" in cache
    assert 72 in Range(low=64, high=512, step=8)
    assert 73 not in Range(low=64, high=512, step=8)
    for stranger in (True, 8.0, "8", 0, 51, None):
        assert stranger not in steps, stranger
    for stranger in (True, 1, "0.5", 1.5, math.nan):
        assert stranger not in share, stranger
    for stranger in (0.05, "first_block:0.050", "first_block:", "first_block:x", "first_block:0.3", "deepcache:0.05"):
        assert stranger not in cache, stranger


@pytest.mark.parametrize(
    ("word", "fields"),
    [
        ("8..50", {"low": 8, "high": 50, "log": False, "step": 1, "prefix": ""}),
        (" 0.03 .. 0.2, log ", {"low": 0.03, "high": 0.2, "log": True, "step": 1, "prefix": ""}),
        ("first_block:1e-3..0.2,log", {"low": 0.001, "high": 0.2, "log": True, "step": 1, "prefix": "first_block:"}),
        ("64..512, step 8", {"low": 64, "high": 512, "log": False, "step": 8, "prefix": ""}),
        ("bf16", None),
        ("deepcache:3", None),
        ("../weights", None),
        ("8..", None),
        ("8..50, logarithmic", None),
    ],
)
def test_words_that_name_a_range(word: str, fields: dict[str, object] | None) -> None:
    assert read_range(word) == fields


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"low": 50, "high": 8}, "50..8 is no range: the first number must be less than the second"),
        ({"low": 0.0, "high": 1.0, "log": True}, "0.0..1.0 has no logarithms: begin above 0, or leave out log"),
        ({"low": 0.0, "high": float("inf")}, "is no range"),
        ({"low": True, "high": 3}, "low and high are numbers, not true or false"),
        ({"low": 1}, "high: field required"),
        ({"low": 1, "high": 3, "stride": 2}, "stride: extra inputs"),
        ({"low": 0.5, "high": 3.0, "step": 2}, "step 2 is for whole numbers on an even scale"),
        ({"low": 1, "high": 9, "step": 0}, "step 0 is for whole numbers on an even scale"),
    ],
)
def test_what_is_no_range_is_refused_in_one_sentence(fields: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as caught:
        Range.parse(fields, "the range of steps")
    assert str(caught.value).startswith("the range of steps can't be used: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
