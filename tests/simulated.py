"""simulated(): made-up recordings of a search space, for tests and for trying samplers.

They resemble real spaces: nearly additive in log latency and log memory, with a few interactions, knobs without effect,
faults that follow values and pairs, and noise. The published figures of samplers come from recorded spaces.
"""

import copy
import itertools
import math
import random
import statistics
from collections.abc import Mapping

from conftest import CPU, gpu, make_target

from autotune.config import Config, Value
from autotune.goal import Goal
from autotune.knobs import all_knobs, complete
from autotune.recordings.recording import Header, Recording, Row
from autotune.study.space import SearchSpace, make_space
from autotune.study.space_file import Recipe, SpaceFile, shipped_space_file

Effects = dict[tuple[str, Value], float]
Pair = tuple[tuple[str, Value], tuple[str, Value]]


class World:
    """The effects of each value in a simulated space, alone and together with others.

    fault_rules  the number of pairs of values that crash
    idle         the share of the knobs without an effect on latency
    """

    def __init__(self, space: SearchSpace, seed: int, *, fault_rules: int = 3, idle: float = 0.25) -> None:
        self.rng = rng = random.Random(seed)
        self.scale_s, self.scale_bytes = 1.0, 1e9  # latency and memory of the baseline
        self.limit_bytes = math.inf  # a config that needs more runs out of memory
        changed = [(n, v) for n, values in space.free.items() for v in values if v != values[0]]
        busy = {name for name in space.free if rng.random() > idle}
        self.latency: Effects = {c: rng.gauss(-0.12, 0.25) if c[0] in busy else 0.0 for c in changed}
        self.memory: Effects = {c: rng.gauss(-0.05, 0.2) if rng.random() < 0.6 else 0.0 for c in changed}
        seen = [c for c in changed if all_knobs()[c[0]].changes_output]
        self.loss: Effects = {c: max(0.0, rng.gauss(0.02, 0.15)) for c in seen}
        pairs = [p for p in itertools.combinations(changed, 2) if p[0][0] != p[1][0]]
        strong = [p for p in pairs if p[0][0] in busy and p[1][0] in busy]
        self.together = {p: rng.gauss(0, 0.2) for p in rng.sample(strong, min(len(strong), 1 + len(strong) // 20))}
        self.faults: list[tuple[tuple[str, Value], ...]] = list(rng.sample(pairs, min(len(pairs), fault_rules)))
        one_of_many = [(n, v) for n, v in changed if len(space.free[n]) > 2]
        self.faults += [(rng.choice(one_of_many),)] if fault_rules and one_of_many else []

    def elsewhere(self, seed: int, *, alike: float = 0.8) -> "World":
        """The same pipeline on another device, where the effects of the values differ.

        alike  the correlation of the effects, about; -1: what was fast is slow
        """
        other, rng = copy.copy(self), random.Random(seed)
        other.rng = rng

        def moved(effects: Effects) -> Effects:
            size = statistics.pstdev(effects.values())
            rest = math.sqrt(1 - alike**2) * size
            return {c: alike * effect * rng.uniform(0.7, 1.3) + rng.gauss(0, rest) for c, effect in effects.items()}

        other.latency = {c: 1.6 * effect for c, effect in moved(self.latency).items()}
        other.memory = {c: 0.7 * effect for c, effect in moved(self.memory).items()}
        other.scale_s, other.scale_bytes = 7.0 * self.scale_s, 30.0 * self.scale_bytes
        return other

    def row(self, number: int, origin: str, config: Config) -> Row:
        """The simulated measurement of a config, or its failure."""
        common = {"trial": number, "origin": origin, "values": dict(config)}
        memory_bytes = self.memory_bytes(config)
        if number and memory_bytes > self.limit_bytes:
            return Row(**common, outcome="out_of_memory", reason="simulated", seconds=self.rng.uniform(5, 15))
        broken = next((rule for rule in self.faults if self._has(config, rule)), None)
        crashes = number and (broken is not None or self.rng.random() < 0.01)
        if crashes:
            reason = f"simulated: {broken or 'by chance'}"
            return Row(**common, outcome="crash", reason=reason, seconds=self.rng.uniform(5, 15))
        both = sum(effect for pair, effect in self.together.items() if self._has(config, pair))
        latency_s = self.scale_s * math.exp(self._sum(self.latency, config) + both + self.rng.gauss(0, 0.015))
        memory_bytes = int(memory_bytes * math.exp(self.rng.gauss(0, 0.005)))
        loss = max(0.0, self._sum(self.loss, config) + (self.rng.gauss(0, 0.02) if number else 0.0))
        scores = (30.0 - loss,)
        return Row(
            **common,
            outcome="measured",
            seconds=8 + 8 * latency_s + (20 if config.get("compile", "off") != "off" else 0),
            latency_s=latency_s,
            latency_samples_s=(latency_s,) * 3,
            peak_memory_bytes=memory_bytes,
            quality_loss=max(0.0, 30.0 - scores[0]),
            clip_scores=scores,
            ssim=(0.9,),
            psnr_db=(30.0,),
        )

    def memory_bytes(self, config: Config) -> int:
        """The peak memory of a config, without noise."""
        return int(self.scale_bytes * math.exp(self._sum(self.memory, config)))

    @staticmethod
    def _has(config: Config, rule: tuple[tuple[str, Value], ...]) -> bool:
        return all(config.get(name) == value for name, value in rule)

    @staticmethod
    def _sum(effects: Effects, config: Config) -> float:
        return sum(effects.get(pair, 0.0) for pair in config.items())


def demo_space(file: SpaceFile | None = None, *, on_gpu: bool = False) -> SearchSpace:
    target = make_target(gpu(9, 0) if on_gpu else CPU)
    shipped = file or shipped_space_file("default.toml" if on_gpu else "demo.toml")
    made = make_space(target, shipped, fix={}, exclude=(), baseline=complete({}))
    made.ranges = {}  # a world has an effect for each listed value, and a table is of these alone
    return made


def narrow_space(**knobs: tuple[Value, ...]) -> SearchSpace:
    """A space of these values; all other knobs are at their defaults."""
    fixed = {name: (value,) for name, value in complete({}).items()}
    return demo_space(SpaceFile.parse({"knobs": fixed | knobs}, "the test's space"))


def simulated(
    seed: int,
    *,
    space: SearchSpace | None = None,
    rows: int | None = None,
    recipes: Mapping[str, Mapping[str, Value]] | None = None,
    fault_rules: int = 3,
    fits: float | None = None,
    world: World | None = None,
) -> Recording:
    """A simulated recording.

    space  default: the demo's space on a CPU
    rows   the number of configs, drawn at random; None: all configs of the space
    fits   the share of the configs that fit in the memory; None: all
    world  the effects of the values; None: those of the seed
    """
    space = space or demo_space()
    world, rng = world or World(space, seed, fault_rules=fault_rules), random.Random(seed + 1)
    if recipes is None:
        recipes = {recipe.name: recipe.values for recipe in shipped_space_file("demo.toml").recipes}
    configs: dict[Config, str] = {complete({}): "baseline"}
    for name, values in recipes.items():
        if not space.objection(complete(values)):
            configs.setdefault(complete(values), name)
    found = list(space.all_configs()) if rows is None else []
    while rows is not None and len(configs) + len(found) < rows:
        drawn = space.random(rng, [*configs, *found])
        if drawn is None:
            break
        found.append(drawn)
    for config in found:
        configs.setdefault(config, "sampler")
    if fits is not None:
        needed = sorted(world.memory_bytes(config) for config in configs)
        world.limit_bytes = needed[int(fits * (len(needed) - 1))]
    limit = None if fits is None else int(world.limit_bytes)
    made = tuple(world.row(number, origin, config) for number, (config, origin) in enumerate(configs.items()))
    header = Header(
        autotune_version="0",
        made="2026-01-01",
        command="simulated, not measured",
        target=space.target,
        goal=Goal(max_quality_drop=0.3, max_vram_bytes=limit),
        baseline=dict(complete({})),
        space=space.values,
        recipes=tuple(Recipe(name=n, values=dict(c)) for c, n in configs.items() if n not in ("baseline", "sampler")),
        metric="clip",
        scorer="demo@0",
        allowed_configs=None if rows else len(made),
        is_whole=rows is None,
    )
    return Recording(header=header, rows=made).check("the simulated table")
