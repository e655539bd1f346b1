"""A goal's limits, and the sizes and durations in which users write them."""

import pytest

from autotune.errors import UserError
from autotune.goal import Goal, read_bytes, read_levels, read_minimise, read_seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GB", 8 * 10**9),
        ("8GiB", 8 * 2**30),
        ("500 mb", 500 * 10**6),
        ("1500kib", 1_536_000),
        ("4000000", 4_000_000),
        ("1000000b", 10**6),
    ],
)
def test_a_size_is_read_in_decimal_and_binary_units(text: str, expected: int) -> None:
    assert read_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("250ms", 0.25), ("10min", 600), (" 30 S ", 30)],
)
def test_a_duration_is_read_in_its_unit(text: str, expected: float) -> None:
    assert read_seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "GB", "lots", "8 TB!", "-1GB", "0", "0GB", "0.2", "12", "999kB", "8G B", "1e3", "1" * 400]
)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="8GB"):
        read_bytes(text)


@pytest.mark.parametrize("text", ["", "soon", "0s", "-5m", "5 days", "1:30", "1e3s", "9" * 30 + "h"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="30s"):
        read_seconds(text)


def test_a_violation_is_the_share_by_which_a_limit_is_overstepped() -> None:
    goal = Goal(max_vram_bytes=100, max_latency_s=2.0, max_quality_drop=0.5)
    found = goal.violations(3.0, 50, 0.75)
    assert found == pytest.approx({"max_quality_drop": 0.25, "max_vram": -0.5, "max_latency": 0.5})


def test_a_limit_that_is_just_kept_is_kept() -> None:
    goal = Goal(max_vram_bytes=100, max_latency_s=2.0, max_quality_drop=0.5)
    assert max(goal.violations(2.0, 100, 0.5).values()) == 0


def test_a_limit_that_was_not_set_is_no_constraint() -> None:
    assert set(Goal(max_quality_drop=0.3).violations(1e9, 10**15, 0.0)) == {"max_quality_drop"}


def test_a_goal_from_before_there_were_several_sizes_minimises_the_sum() -> None:
    old = {"max_vram_bytes": None, "max_latency_s": None, "max_quality_drop": 0.3}
    assert Goal.parse(old, "an old study") == Goal(max_quality_drop=0.3, minimise="sum")


@pytest.mark.parametrize("word", ["sum", "each"])
def test_what_is_minimised_is_the_sum_or_each(word: str) -> None:
    assert read_minimise(word) == word


@pytest.mark.parametrize("word", ["", "Sum", "max", "all"])
def test_nothing_else_is_minimised(word: str) -> None:
    with pytest.raises(UserError, match="--minimise takes sum or each"):
        read_minimise(word)


def test_the_limit_of_a_place_is_a_share_too_and_what_is_not_known_violates_nothing() -> None:
    goal = Goal(max_quality_drop=0.5, max_worst_place_levels=40)
    assert goal.violations(1.0, 1, 0.0, 60.0)["max_worst_place"] == pytest.approx(0.5)
    assert goal.violations(1.0, 1, 0.0)["max_worst_place"] == 0


def test_a_limit_of_host_memory_is_a_share_and_unknown_memory_violates_nothing() -> None:
    goal = Goal(max_quality_drop=0.5, max_ram_bytes=32 * 10**9)
    assert goal.violations(1.0, 1, 0.0, None, 48 * 10**9)["max_ram"] == pytest.approx(0.5)
    assert goal.violations(1.0, 1, 0.0)["max_ram"] == 0
    assert "max_ram" not in Goal(max_quality_drop=0.5).violations(1.0, 1, 0.0, None, 1)
    for wrong in (0, -1, 256, float("nan")):
        with pytest.raises(UserError, match="give levels above 0, of at most 255"):
            read_levels(wrong)
