"""What every knob promises, whoever wrote it: the search and the reports rely on nothing else."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, gpu, make_target
from live import WORKLOAD, acting, loaded

import autotune.knobs
from autotune.building import build
from autotune.config import Config, Value
from autotune.devices.probe import versions
from autotune.knob import Knob
from autotune.knobs import all_knobs, complete, find_knob
from autotune.study.space_file import shipped_space_file
from autotune.target import Target

DEVICES = (CPU, gpu(7, 0, multiprocessors=80), gpu(7, 5, multiprocessors=40), gpu(8, 0), gpu(8, 9), gpu(9, 0))
ROOT = Path(autotune.knobs.__file__).parent
FILES = sorted(ROOT.rglob("[!_]*.py"))


def module_of(path: Path) -> str:
    return ".".join(("autotune.knobs", *path.relative_to(ROOT).with_suffix("").parts))


every_knob = pytest.mark.parametrize("knob", all_knobs().values(), ids=all_knobs())


PROBED: dict[str, Any] = {  # what only probing the demo tells
    "scheduler_class": "DDIMScheduler",
    "compatible_schedulers": ("DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"),
    "callback_tensors": ("latents", "prompt_embeds", "negative_prompt_embeds"),
}
OF_PIXELS = {"class_name": "IFPipeline", "vae_class": None, "vae_tile_px": None, "scheduler_class": "DDPMScheduler"}
TRANSFORMER = {
    "class_name": "FluxPipeline",
    "denoiser_class": "FluxTransformer2DModel",
    "convolutions": 0,
    "attention_downsamples": (),
    "scheduler_class": "FlowMatchEulerDiscreteScheduler",
    "flow_matching": True,
}


def targets() -> Iterator[Target]:
    """The demo on every kind of device, in workloads where slicing and tiling act and where they don't; and others."""
    for device in DEVICES:
        yield make_target(device)
        yield make_target(device, batch=2, side=128, vae_upcasts_fp16=True, **PROBED)
    yield make_target(DEVICES[-1], side=1024, **OF_PIXELS)
    yield make_target(DEVICES[-1], side=1024, **TRANSFORMER)


SHIPPED = [shipped_space_file(name) for name in ("default.toml", "demo.toml")]


NAMED: dict[str, tuple[Value, ...]] = {"encoding": ("once",), "group_offload": ("leaf_disk",)}


def values_of(knob: Knob) -> list[Value]:
    """What the knob offers, what the shipped space files add, and what only the user names."""
    shipped = [v for file in SHIPPED for v in file.knobs.get(knob.name, ())]
    return list(dict.fromkeys([*knob.values, *shipped, *NAMED.get(knob.name, ())]))


def pairs(knob: Knob) -> Iterator[Config]:
    """Each value of the knob beside each value of each other knob."""
    for value in values_of(knob):
        for other in all_knobs().values():
            for its_value in values_of(other):
                yield complete({**acting(other.name, its_value), **acting(knob.name, value), other.name: its_value})


def is_sentence(text: str | None) -> bool:
    """Can it follow "KNOB=VALUE: " and end with the full stop that the caller sets?"""
    return text is None or (text.strip() == text != "" and "\n" not in text and text[-1] not in ".!?:")


def test_every_file_is_the_knob_of_its_name() -> None:
    names = [path.stem for path in FILES]
    assert names
    assert [import_module(module_of(path)).KNOB.name for path in FILES] == names
    assert set(names) <= set(all_knobs())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_knob_imports_no_other_knob(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert "autotune.knob" in imported
    assert not imported & {"autotune.knobs", *map(module_of, FILES)}


def test_listing_the_knobs_loads_no_torch() -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'torchao', 'tomesd', 'accelerate', 'numpy'}"
    code = f"import sys; from autotune.knobs import all_knobs; all_knobs(); print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_knobs_are_listed_in_the_order_of_their_stages_and_modifiers_after_what_they_modify() -> None:
    knobs = list(all_knobs().values())
    assert [knob.stage for knob in knobs] == sorted(knob.stage for knob in knobs)
    names = list(all_knobs())
    modifiers = {knob.name: knob.modifies for knob in knobs if knob.modifies}
    assert modifiers
    assert all(names.index(modified) < names.index(name) for name, modified in modifiers.items() if modified)


@every_knob
def test_a_knob_says_what_it_is_and_why(knob: Knob) -> None:
    [file] = [path for path in FILES if path.stem == knob.name]
    source = import_module(module_of(file))
    assert source.__doc__
    assert source.__doc__.strip().endswith(".")
    assert source.__doc__.startswith(f"{knob.name}: ")
    assert knob.summary
    assert is_sentence(knob.summary)
    assert len(knob.summary) <= 60


@every_knob
def test_the_default_is_first_and_accepted(knob: Knob) -> None:
    assert knob.default == knob.values[0]
    assert all(knob.accepts(value) for value in values_of(knob))
    assert not knob.accepts("a value that no knob has")


@every_knob
def test_a_value_of_another_type_is_another_value(knob: Knob) -> None:
    strangers: list[Value] = [True, 1, 1.0, "True", "1"]
    own = {type(value) for value in values_of(knob)}
    assert not [value for value in strangers if knob.accepts(value) and type(value) not in own]


@every_knob
def test_values_survive_json(knob: Knob) -> None:
    for value in values_of(knob):
        back = json.loads(json.dumps(value))
        assert isinstance(value, bool | int | float | str)
        assert (type(back), back) == (type(value), value)


@every_knob
def test_nothing_is_said_against_the_default_on_any_device(knob: Knob) -> None:
    said = [ask(knob.default, target) for target in targets() for ask in (knob.why_not, knob.not_worth_trying)]
    assert said == [None] * len(said)


@every_knob
def test_an_objection_is_a_sentence_without_its_full_stop(knob: Knob) -> None:
    asked = [knob.why_not, knob.not_worth_trying]
    said = [ask(value, target) for target in targets() for value in values_of(knob) for ask in asked]
    assert said
    assert [text for text in said if not is_sentence(text)] == []


@every_knob
def test_a_clash_is_a_sentence_and_a_default_clashes_with_nothing(knob: Knob) -> None:
    asked = 0
    configs = list(pairs(knob))
    for target in targets():
        for config in configs:
            if knob.name in config:
                said = knob.clash(config, target)
                assert is_sentence(said), said
                assert config[knob.name] != knob.default or said is None, (said, config)
                asked += 1
    assert asked


@every_knob
def test_a_modifier_refines_a_knob_that_exists_and_is_gone_with_it(knob: Knob) -> None:
    without = complete({})
    assert (knob.name in without) == (knob.modifies is None)
    if knob.modifies is not None:
        assert find_knob(knob.modifies).modifies is None
        assert knob.name in acting(knob.name, knob.default)


@every_knob
def test_a_value_acts_or_is_refused_with_a_reason(knob: Knob) -> None:
    """On this machine's processor, in a workload where slicing and tiling would act."""
    # With the packages of this environment: what needs another one is refused.
    target = make_target(batch=2, side=128, **PROBED).model_copy(update={"versions": versions()})
    refused, acted = 0, 0
    for value in values_of(knob):
        if value == knob.default:
            continue
        if knob.why_not(value, target):
            refused += 1
            continue
        config = acting(knob.name, value)
        if knob.call is not None:
            pipe = loaded()
            plain = build.call_arguments(pipe, complete({}), WORKLOAD)
            assert build.call_arguments(pipe, config, WORKLOAD) != plain
        else:
            pipe = loaded(**{name: config[name] for name, loading in all_knobs().items() if loading.load})
            changed = knob.name if knob.apply else str(knob.modifies)
            effect = build.apply(pipe, config, WORKLOAD, "cpu")[changed]
            assert effect.count > 0
            assert effect.what
        acted += 1
    assert refused + acted > 0
