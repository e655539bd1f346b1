"""What is asked of one pipeline: every value alone, every pair of values of two knobs, and the rules' word on each."""

import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.config import Config, Value
from autotune.errors import UserError, nearest
from autotune.knobs import all_knobs, complete
from autotune.pipeline import Pipeline
from autotune.pipelines import resolve
from autotune.study.space import SHIPPED, SearchSpace, SpaceFile, make_space
from autotune.target import Target

TINY = Path(__file__).parent / "tiny"
PROMPTS = ("a large red circle at the top on a white background", "a small blue square on a black background")
STEPS = 3
SIDE_WITHOUT_VAE = 32
PLAIN = complete({})


@dataclass(frozen=True)
class Check:
    """One value, or two of different knobs, as a config: whatever they modify, or is modified by them, has a value at
    which they act."""

    values: tuple[tuple[str, Value], ...]
    config: Config
    refused: str | None  # the sentence of the rules
    without: Mapping[str, Config]  # of each value that changes pictures, "knob=value" -> the config without it
    rank: int  # 0: every value is the first that its knob has here

    @property
    def name(self) -> str:
        return " + ".join(self.parts)

    @property
    def parts(self) -> list[str]:
        return sorted(name_of(knob, value) for knob, value in self.values)

    @property
    def reference(self) -> Config:
        """Without the knobs that change nothing but how the picture is computed."""
        return complete({n: v for n, v in self.config.items() if all_knobs()[n].changes_output})

    @property
    def needs(self) -> tuple[Config, ...]:
        """The configs whose pictures decide."""
        return (PLAIN, *self.without.values(), self.reference, self.config)

    @property
    def acting(self) -> set[str]:
        """The knobs that are not at their default."""
        return {name for name, value in self.config.items() if value != all_knobs()[name].default}


@dataclass(frozen=True)
class Plan:
    target: Target
    impossible: Mapping[str, str]  # "knob=value" -> why
    singles: tuple[Check, ...]
    pairs: tuple[Check, ...]


def name_of(knob: str, value: Value) -> str:
    return f"{knob}={value}"


def tiny_pipelines() -> dict[str, Pipeline]:
    """By name: the trained demo, and the folders of `tiny/`."""
    found = {"sd": resolve("demo").model_copy(update={"scorer": None})}
    for folder in sorted(path.parent for path in TINY.glob("*/model_index.json")):
        # No preset's name: its architecture would be taken instead of the folder.
        found[folder.name] = resolve(str(folder), "random").model_copy(update={"name": f"tiny-{folder.name}"})
    return found


def choose(names: str | None) -> dict[str, Pipeline]:
    """Those of a list with commas, or all. Raises UserError."""
    known = tiny_pipelines()
    wanted = [name.strip() for name in names.split(",")] if names else list(known)
    for name in wanted:
        if name not in known:
            raise UserError(f"--pipelines {name!r} is unknown, {nearest(name, known)}")
    return {name: known[name] for name in known if name in wanted}


def fitted(target: Target) -> Target:
    """With a workload in which every knob has something to do: two pictures of more than one tile of the VAE."""
    traits, multiple = target.pipeline.known, target.pipeline.known.size_multiple
    wanted = traits.vae_tile_px * 5 // 4 if traits.vae_tile_px else SIDE_WITHOUT_VAE
    side = -(-wanted // multiple) * multiple
    size = {"width": side, "height": side, "batch": len(PROMPTS)}
    return target.model_copy(update={"workload": target.workload.model_copy(update=size)})


def space_of(target: Target) -> SearchSpace:
    return make_space(target, SpaceFile(knobs=_offered()), fix={}, exclude=(), baseline=PLAIN)


def make_plan(target: Target) -> Plan:
    space = space_of(target)
    impossible = {name_of(*which): why for which, why in space.impossible.items()}
    free = []
    for name in space.values:
        knob, changed = all_knobs()[name], _possible(space, name)
        if knob.modifies is None or knob.modifies in space.free:
            free += [(name, value) for value in changed]
        else:
            impossible |= {name_of(name, value): f"{knob.modifies} can't act here" for value in changed}
    singles = tuple(check(space, value) for value in free)
    pairs = [check(space, a, b) for a, b in itertools.combinations(free, 2) if a[0] != b[0]]
    return Plan(target, impossible, singles, tuple(sorted(pairs, key=lambda check: check.name)))


def check(space: SearchSpace, *values: tuple[str, Value]) -> Check:
    """With the first value of what they modify that the rules allow, or the first of all and its refusal."""
    chosen = dict(values)
    modified = [all_knobs()[name].modifies for name in chosen]
    carriers = list(dict.fromkeys(m for m in modified if m is not None and m not in chosen))
    checks = []
    for carried in itertools.product(*(_possible(space, name) for name in carriers)):
        config = space.config({**dict(zip(carriers, carried, strict=True)), **chosen})
        rank = max(_possible(space, name).index(value) for name, value in values)
        checks.append(Check(values, config, space.objection(config), _without(space, chosen, config), rank))
    return next((check for check in checks if not check.refused), checks[0])


def _possible(space: SearchSpace, name: str) -> list[Value]:
    return [value for value in space.values[name] if value != all_knobs()[name].default]


def _without(space: SearchSpace, chosen: Mapping[str, Value], config: Config) -> dict[str, Config]:
    found = {}
    for name, value in chosen.items():
        rest = complete({n: v for n, v in config.items() if n != name})
        if all_knobs()[name].changes_output and not space.objection(rest):
            found[name_of(name, value)] = rest
    return found


def _offered() -> dict[str, tuple[Value, ...]]:
    """What each knob offers, and one of the values that it takes from space files only and that a shipped one names."""
    named: dict[str, list[Value]] = {}
    folder = next(folder for folder in SHIPPED if folder.is_dir())
    for path in sorted(folder.rglob("*.toml")):
        _collect(tomllib.loads(path.read_text(encoding="utf-8")), named)
    offered = {}
    for name, knob in all_knobs().items():
        more = [value for value in named.get(name, ()) if knob.accepts(value) and value not in knob.values]
        offered[name] = (*knob.values, *more[-1:])
    return offered


def _collect(data: Any, named: dict[str, list[Value]]) -> None:
    """Every value that stands beside a knob's name, however deep."""
    if isinstance(data, list):
        for item in data:
            _collect(item, named)
    for key, value in data.items() if isinstance(data, dict) else ():
        if key in all_knobs():
            named.setdefault(key, []).extend(value if isinstance(value, list) else [value])
        else:
            _collect(value, named)
