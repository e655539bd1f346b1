"""How many trials it takes to find the best threshold: as a range, and as three, ten or twenty listed values.

    python benchmarks/ranges_simulated.py [--worlds 12] [--samplers auto,tpe] [--trials 30]

Nothing is measured. A world has five knobs of the demo's with a made-up effect each, and one threshold, `tome_ratio`
from 0.02 to 0.75. A higher one is faster, and loses more quality: the loss grows with a power of it and reaches the
limit somewhere. The best threshold is the highest that keeps the limit beside the best other settings. It counts as
found by the trial from which on the best config so far has a threshold within a tenth of it. The latency is that of the
best config, over the fastest that there is. In the mean, a threshold that was not found counts as found one trial later
than the last.
"""

import argparse
import itertools
import math
import random
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

from autotune.config import Config, Range, Value
from autotune.goal import Goal
from autotune.knobs import complete
from autotune.measurement import Measurement, Quality
from autotune.study.record import Record
from autotune.study.space import make_space
from autotune.study.space_file import SpaceFile
from autotune.study.storage import InMemory
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Trial

LIMIT, NOISE = 0.3, 0.01  # of the quality loss
WITHIN = 0.1
RANGE = Range(low=0.02, high=0.75)
SEARCHED: dict[str, tuple[Value, ...]] = {
    "dtype": ("fp32", "bf16"),
    "qkv_fusion": (False, True),
    "memory_format": ("contiguous", "channels_last"),
    "compile": ("off", "regional", "denoiser"),
    "quantization": ("none", "int8_dynamic", "int8_weight_only"),
}


def evenly(count: int) -> tuple[Value, ...]:
    """So many values of the range, evenly spread."""
    return tuple(RANGE.at(step / (count - 1)) for step in range(count))


OFFERS: dict[str, tuple[tuple[Value, ...], tuple[Range, ...]]] = {
    "a range": ((0.0,), (RANGE,)),
    "3 values": ((0.0, *evenly(3)), ()),
    "10 values": ((0.0, *evenly(10)), ()),
    "20 values": ((0.0, *evenly(20)), ()),
}


class World:
    """The made-up effects of the settings."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.effects = {(name, v): rng.uniform(-0.3, 0.1) for name, values in SEARCHED.items() for v in values[1:]}
        self.losses = {pair: max(0.0, rng.gauss(-0.02, 0.04)) for pair in self.effects}
        self.gain, self.power = rng.uniform(0.5, 1.5), rng.uniform(1.5, 4.0)
        self.limit_at = rng.uniform(0.1, 0.65)  # where the threshold alone reaches the limit
        self.rng = rng

    def latency_s(self, config: Mapping[str, Value]) -> float:
        return math.exp(self._sum(self.effects, config) - self.gain * float(config["tome_ratio"]))

    def loss(self, config: Mapping[str, Value]) -> float:
        return self._sum(self.losses, config) + LIMIT * (float(config["tome_ratio"]) / self.limit_at) ** self.power

    def best(self) -> dict[str, Value]:
        """The fastest settings that keep the limit."""
        found = []
        for values in itertools.product(*SEARCHED.values()):
            others: dict[str, Value] = dict(zip(SEARCHED, values, strict=True))
            left = max(0.0, 1 - self._sum(self.losses, others) / LIMIT)
            found.append({**others, "tome_ratio": min(self.limit_at * left ** (1 / self.power), float(RANGE.high))})
        return min(found, key=self.latency_s)

    @staticmethod
    def _sum(effects: Mapping[tuple[str, Value], float], config: Mapping[str, Value]) -> float:
        return sum(effect for (name, value), effect in effects.items() if config.get(name) == value)

    def measured(self, config: Config) -> Measurement:
        latency_s = self.latency_s(config) * math.exp(self.rng.gauss(0, 0.01))
        score = 30 - self.loss(config) + (self.rng.gauss(0, NOISE) if config != complete({}) else 0.0)
        return Measurement(
            load_s=1.0,
            apply_s=0.0,
            first_call_s=latency_s,
            warmup_s=(),
            latency_samples_s=(latency_s,) * 5,
            load_peak_memory_bytes=10**9,
            run_peak_memory_bytes=10**9,
            peak_memory_bytes=10**9,
            effects={},
            attention_kernels={},
            quality=Quality(metric="clip", scorer="made up", clip_scores=(score,), ssim=(0.9,), psnr_db=(30.0,)),
        )


def search(target: Target, world: World, offer: str, sampler: str, seed: int, trials: int) -> tuple[float, float]:
    """(trials after which the best threshold is found, for good; latency over the fastest that there is)."""
    listed, ranges = OFFERS[offer]
    fixed = {name: (value,) for name, value in complete({}).items()}
    file = SpaceFile(knobs={**fixed, **SEARCHED, "tome_ratio": listed}, ranges={"tome_ratio": ranges})
    space = make_space(target, file, fix={}, exclude=(), baseline=complete({}))
    record = Record(
        target=target,
        goal=Goal(max_quality_drop=LIMIT),
        baseline=dict(complete({})),
        space=space.values,
        ranges=space.ranges,
        command="benchmarks/ranges_simulated.py",
    )
    study = Study(StudyFolder(Path("nowhere")), record, space, sampler=sampler, seed=seed, store=InMemory())
    best, close = world.best(), []
    incumbent, fastest_s = complete({}), math.inf
    while len(study.trials) < trials and (proposal := study.ask()) is not None:
        number, config, origin = proposal
        made = world.measured(config)
        study.tell(Trial(number=number, origin=origin, values=dict(config), outcome=made, seconds=1.0))
        drop = study.trials[0].measured.quality.clip_scores[0] - made.quality.clip_scores[0]
        if drop <= LIMIT and made.latency_s < fastest_s:
            incumbent, fastest_s = config, made.latency_s
        close.append(abs(float(incumbent["tome_ratio"]) / float(best["tome_ratio"]) - 1) <= WITHIN)
    found = len(close) - next((back for back, is_close in enumerate(reversed(close)) if not is_close), len(close)) + 1
    return found if close[-1] else math.inf, world.latency_s(incumbent) / world.latency_s(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--samplers", default="auto,tpe")
    parser.add_argument("--offers", default=",".join(OFFERS))
    parser.add_argument("--trials", type=int, default=30)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from conftest import make_target

    target = make_target()
    print("| sampler | threshold | found in | mean trial | median trial | latency over the fastest |")
    for sampler in arguments.samplers.split(","):
        for offer in arguments.offers.split(","):
            done = [
                search(target, World(seed), offer, sampler, seed, arguments.trials) for seed in range(arguments.worlds)
            ]
            after = statistics.median(trial for trial, _ in done)
            mean = statistics.fmean(min(trial, arguments.trials + 1) for trial, _ in done)
            count = sum(trial < math.inf for trial, _ in done)
            middle = f"{after:g}" if after < math.inf else f"not in {arguments.trials}"
            over = statistics.fmean(ratio for _, ratio in done)
            print(f"| {sampler} | {offer} | {count} of {len(done)} | {mean:.1f} | {middle} | {over:.3f} |", flush=True)


if __name__ == "__main__":
    main()
