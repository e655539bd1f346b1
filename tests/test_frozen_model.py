"""Nouns are frozen, strict, and say in one sentence what is wrong with the JSON that should be one."""

import importlib
from pkgutil import iter_modules

import pytest
from pydantic import ValidationError

import autotune
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel


class Point(FrozenModel):
    x: int
    y: tuple[float, ...] = ()


def test_a_noun_survives_its_json() -> None:
    point = Point(x=1, y=(0.5, 2))
    assert Point.parse(point.to_json(), "a point") == point


def test_a_noun_can_not_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Point(x=1).x = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "x: field required"),
        ({"x": "many"}, "x: input should be a valid integer"),
        ({"x": 1, "z": 2}, "z: extra inputs are not permitted"),
        ({"x": 1, "y": [0.5, "a"]}, "y.1: input should be a valid number"),
        ([], "the whole: input should be a valid dictionary"),
        (None, "the whole: "),
    ],
)
def test_what_is_no_noun_is_one_sentence_with_the_field(data: object, says: str) -> None:
    with pytest.raises(UserError) as caught:
        Point.parse(data, "the file 'a.json'")
    assert str(caught.value).startswith(f"the file 'a.json' can't be used: {says}")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_every_noun_of_autotune_is_frozen_and_refuses_unknown_fields() -> None:
    for module in iter_modules(autotune.__path__):
        importlib.import_module(f"autotune.{module.name}")
    found = {cls for cls in FrozenModel.__subclasses__() if cls.__module__.startswith("autotune.")}
    assert len(found) > 15
    assert all(cls.model_config.get("frozen") and cls.model_config.get("extra") == "forbid" for cls in found)
