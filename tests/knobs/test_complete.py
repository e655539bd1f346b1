"""A config is completed with the defaults, and every typo in it is answered with the nearest word."""

import json

import pytest

from autotune.config import Config, read_value
from autotune.errors import UserError
from autotune.knobs import all_knobs, check_value, complete, find_knob


def test_a_config_survives_json() -> None:
    config = complete({"tome_ratio": 0.5, "vae_tiling": True, "steps": 8})
    assert Config(json.loads(json.dumps(dict(config)))) == config


def test_every_value_of_every_knob_can_be_written_on_the_command_line() -> None:
    for knob in all_knobs().values():
        for value in knob.values:
            text = value if isinstance(value, str) else json.dumps(value)
            assert read_value(text) == check_value(knob.name, value)
            assert type(read_value(text)) is type(value)


def test_a_config_is_completed_with_the_defaults() -> None:
    assert complete({}) == Config({name: k.default for name, k in all_knobs().items() if k.modifies is None})
    assert complete({"dtype": "bf16"}) == complete({}).replace(dtype="bf16")


def test_a_modifier_is_there_only_beside_what_it_modifies() -> None:
    assert "compile_mode" not in complete({"compile": "off", "compile_mode": "reduce-overhead"})
    assert complete({"compile": "regional"})["compile_mode"] == "default"
    assert complete({"compile": "regional", "compile_mode": "reduce-overhead"})["compile_mode"] == "reduce-overhead"


def test_completing_twice_changes_nothing() -> None:
    config = complete({"compile": "regional", "tome_ratio": 0.5})
    assert complete(config) == config


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("dtpe", "bf16", "unknown knob 'dtpe': did you mean 'dtype'?"),
        ("xyzzy", 1, "unknown knob 'xyzzy': known: allocator, cudnn_benchmark,"),
        ("dtype", "bf61", "dtype can't be 'bf61': did you mean 'bf16'?"),
        ("dtype", 16, "dtype can't be 16: did you mean 'fp16'?"),
        ("dtype", "double", "dtype can't be 'double': known: fp32, fp16, bf16"),
        ("qkv_fusion", 1, "qkv_fusion can't be 1: "),
        ("tome_ratio", 1, "tome_ratio can't be 1: "),
        ("steps", True, "steps can't be True: known: workload"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_word(name: str, value: str | int, says: str) -> None:
    with pytest.raises(UserError) as caught:
        complete({name: value})
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_a_knob_is_found_by_its_name() -> None:
    assert find_knob("dtype").name == "dtype"
