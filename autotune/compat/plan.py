"""Plan: the checks of one pipeline: every value alone, every pair of values of two knobs, and what the rules refuse."""

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
from autotune.study.space import SearchSpace, make_space
from autotune.study.space_file import SHIPPED, SpaceFile
from autotune.target import Target

TINY = Path(__file__).parent / "tiny"
PROMPTS = ("a large red circle at the top on a white background", "a small blue square on a black background")
STEPS = 4  # the fewest in which every cache reuses something
SIDE_WITHOUT_VAE = 32
PLAIN = complete({})


@dataclass(frozen=True)
class Check:
    """One value, or two values of different knobs, as a config. A knob that a value modifies is not at its default.

    refused  the sentence with which the rules refuse the config; None: they allow it
    without  for each value that changes the picture: "knob=value" -> the config without the value
    rank     0: every value is the first one that its knob has on this target
    """

    values: tuple[tuple[str, Value], ...]
    config: Config
    refused: str | None
    without: Mapping[str, Config]
    rank: int

    @property
    def name(self) -> str:
        """The values, such as "dtype=bf16 + memory_format=channels_last"."""
        return " + ".join(self.parts)

    @property
    def parts(self) -> list[str]:
        return sorted(name_of(knob, value) for knob, value in self.values)

    @property
    def reference(self) -> Config:
        """The config without the knobs that don't change the picture."""
        return complete({n: v for n, v in self.config.items() if all_knobs()[n].changes_output})

    @property
    def needs(self) -> tuple[Config, ...]:
        """The configs whose pictures the verdict needs."""
        return (PLAIN, *self.without.values(), self.reference, self.config)

    @property
    def acting(self) -> set[str]:
        """The knobs that are not at their default."""
        return {name for name, value in self.config.items() if value != all_knobs()[name].default}


@dataclass(frozen=True)
class Plan:
    """All checks of one pipeline."""

    target: Target
    impossible: Mapping[str, str]  # "knob=value" -> why it is not available
    singles: tuple[Check, ...]
    pairs: tuple[Check, ...]


def name_of(knob: str, value: Value) -> str:
    return f"{knob}={value}"


def tiny_pipelines() -> dict[str, Pipeline]:
    """Name -> pipeline: the trained demo, and the folders of `tiny/`."""
    pipelines = {"sd": resolve("demo").model_copy(update={"scorer": None})}
    for folder in sorted(path.parent for path in TINY.glob("*/model_index.json")):
        # With the name of a preset, the preset's architecture would replace the folder's.
        pipelines[folder.name] = resolve(str(folder), "random").model_copy(update={"name": f"tiny-{folder.name}"})
    return pipelines


def choose(names: str | None) -> dict[str, Pipeline]:
    """The tiny pipelines with these names ("sd,sdxl"), or all. Raises UserError for an unknown name."""
    known = tiny_pipelines()
    chosen = [name.strip() for name in names.split(",")] if names else list(known)
    for name in chosen:
        if name not in known:
            raise UserError(f"--pipelines {name!r} is unknown, {nearest(name, known)}")
    return {name: known[name] for name in known if name in chosen}


def fitted(target: Target) -> Target:
    """The target with a workload in which every knob can act: two pictures, each of more than one tile of the VAE."""
    traits, multiple = target.pipeline.known, target.pipeline.known.size_multiple
    least = traits.vae_tile_px * 5 // 4 if traits.vae_tile_px else SIDE_WITHOUT_VAE
    side = -(-least // multiple) * multiple
    size = {"width": side, "height": side, "batch": len(PROMPTS)}
    return target.model_copy(update={"workload": target.workload.model_copy(update=size)})


def space_of(target: Target) -> SearchSpace:
    """The search space of all offered values."""
    return make_space(target, SpaceFile(knobs=_offered()), fix={}, exclude=(), baseline=PLAIN)


def make_plan(target: Target) -> Plan:
    """Every possible value alone, and every pair of values of two knobs."""
    space = space_of(target)
    impossible = {name_of(*which): why for which, why in space.impossible.items()}
    free = []
    for name in space.values:
        knob, changed = all_knobs()[name], _possible(space, name)
        if knob.modifies is None or knob.modifies in space.free:
            free += [(name, value) for value in changed]
        else:
            impossible |= {name_of(name, value): f"{knob.modifies} is not available here" for value in changed}
    singles = tuple(check(space, value) for value in free)
    pairs = [check(space, a, b) for a, b in itertools.combinations(free, 2) if a[0] != b[0]]
    return Plan(target, impossible, singles, tuple(sorted(pairs, key=lambda check: check.name)))


def check(space: SearchSpace, *values: tuple[str, Value]) -> Check:
    """The check of these values, together with a value for each knob that they modify.

    That is the first value with which the rules allow the config, or the first of all where they allow none.
    """
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
    """Check.without: the configs that show whether each value has an effect."""
    configs = {}
    for name, value in chosen.items():
        rest = complete({n: v for n, v in config.items() if n != name})
        if all_knobs()[name].changes_output and not space.objection(rest):
            configs[name_of(name, value)] = rest
    return configs


def _offered() -> dict[str, tuple[Value, ...]]:
    """Knob -> the values that it offers, and one more that it accepts from a space file, if a shipped file has one."""
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
    """Add every value of a knob in the decoded TOML, at any depth, to `named`."""
    if isinstance(data, list):
        for item in data:
            _collect(item, named)
    for key, value in data.items() if isinstance(data, dict) else ():
        if key in all_knobs():
            named.setdefault(key, []).extend(value if isinstance(value, list) else [value])
        else:
            _collect(value, named)
