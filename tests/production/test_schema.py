"""The schema is the models', it is not changed unnoticed, and an independent validator agrees with it."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import make_target
from made_up import measured, record

from autotune.measurement import ChainCost
from autotune.production.chain import ChainConfig
from autotune.production.schema import schema
from autotune.production.tuned_config import SCHEMA_VERSION, Confirmation, TunedConfig
from autotune.tuning.export import export

DATA = Path(__file__).parents[1] / "data"
OLD = DATA / "best-schema-1.json"


def validator() -> Any:
    return jsonschema.Draft202012Validator(schema())


def exported() -> TunedConfig:
    rounds = Confirmation(baseline_latency_s=(1.0, 1.05, 0.95), tuned_latency_s=(0.55, 0.55, 0.55))
    return export(record(make_target()), measured(1, {"dtype": "bf16"}, latency_s=0.5), measured(0), rounds)


def test_the_schema_is_the_committed_one() -> None:
    """Where it changes on purpose: `autotune schema > tests/data/schema-2.json`, and a new version if a field is new to
    those who have the old program."""
    committed = json.loads((DATA / f"schema-{SCHEMA_VERSION}.json").read_text())
    assert json.loads(json.dumps(schema())) == committed


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_what_is_exported_keeps_to_it() -> None:
    validator().validate(exported().to_json())


def test_a_chain_keeps_to_it() -> None:
    cost = ChainCost(first_call_s=1.0, warmup_s=(1.0,), latency_samples_s=(1.0,), peak_memory_bytes=1)
    stages, costs = (exported(), exported()), (cost, cost)
    made = ChainConfig(about="", created="", command="", stages=stages, baseline=costs, tuned=costs)
    validator().validate(made.to_json())


def test_a_file_of_the_first_version_keeps_to_it_and_loads(caplog: pytest.LogCaptureFixture) -> None:
    data = json.loads(OLD.read_text())
    assert data["schema_version"] == 1
    validator().validate(data)
    tuned = TunedConfig.load(OLD)
    assert tuned.config["dtype"] == "bf16"
    assert tuned.is_measured, "an old file can't tell that it was edited"
    assert (tuned.serving, tuned.pictures, tuned.speedup) == (None, (), None)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("knobs",), []),
        (("knobs", "dtype"), None),
        (("workload", "width"), "wide"),
        (("tuned", "latency_s"), 0),
        (("about",), None),
        (("pictures",), [{"prompt": "a", "seed": 1, "cells": "short"}]),
        (("something new",), 1),
    ],
)
def test_the_validator_refuses_what_loading_refuses(path: tuple[str, ...], value: Any) -> None:
    data = copy.deepcopy(exported().to_json())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert not validator().is_valid(data)


def test_a_reader_finds_what_they_want_at_the_top() -> None:
    data = exported().to_json()
    first = list(data)[:7]
    assert first == ["schema_version", "about", "speedup", "created", "command", "knobs", "serving"]
    assert data["speedup"]["low"] < data["speedup"]["speedup"] < data["speedup"]["high"]
    assert data["serving"] == {"sizes": ["64x64@1"], "prompt_words": [11, 11]}


def test_an_edited_knob_loads_and_its_numbers_are_no_longer_its_own(tmp_path: Path) -> None:
    exported().save(tmp_path / "best.json")
    assert TunedConfig.load(tmp_path / "best.json").is_measured
    data = json.loads((tmp_path / "best.json").read_text())
    for change in ({"knobs": {**data["knobs"], "dtype": "fp32"}}, {"workload": {**data["workload"], "steps": 7}}):
        (tmp_path / "mine.json").write_text(json.dumps({**data, **change}))
        mine = TunedConfig.load(tmp_path / "mine.json")
        assert not mine.is_measured
        assert mine.edited == ["this config was edited after it was measured: its numbers are of another one."]
    (tmp_path / "same.json").write_text(json.dumps({**data, "about": "mine", "created": "today"}))
    assert TunedConfig.load(tmp_path / "same.json").is_measured
