"""A config is its values: order does not count, types do."""

import pytest

from autotune.config import Config, read_value


def test_equal_configs_are_equal_whatever_their_order() -> None:
    a, b = Config({"x": 1, "y": "z"}), Config({"y": "z", "x": 1})
    assert a == b
    assert hash(a) == hash(b)
    assert a.digest == b.digest
    assert repr(a) == repr(b) == "Config({'x': 1, 'y': 'z'})"


@pytest.mark.parametrize("other", [{"x": True}, {"x": 1.0}, {"x": "1"}, {"x": 2}, {"y": 1}, {"x": 1, "y": 1}, {}])
def test_configs_of_other_values_or_types_are_others(other: dict[str, int]) -> None:
    assert Config({"x": 1}) != Config(other)
    assert Config({"x": 1}).digest != Config(other).digest


def test_a_config_can_not_be_changed_and_replace_gives_another() -> None:
    config = Config({"x": 1, "y": 2})
    with pytest.raises(TypeError):
        config["x"] = 3  # type: ignore[index]
    assert dict(config.replace(x=3)) == {"x": 3, "y": 2}
    assert dict(config) == {"x": 1, "y": 2}


def test_a_digest_is_the_same_in_every_process() -> None:
    """It names files and caches: it must not change, not even with the version of Python."""
    assert Config({"dtype": "bf16", "steps": 8, "tome_ratio": 0.5, "qkv_fusion": True}).digest == "b730aa461143"


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5", 0.5), ("8", 8), ("true", True), ("false", False), ("bf16", "bf16"), ("null", "null"), ("[1]", "[1]")],
)
def test_a_value_on_the_command_line_has_the_type_that_it_looks_like(text: str, value: object) -> None:
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)
