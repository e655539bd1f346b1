"""compare(): is one exported config faster than another here, or than itself in another Python environment?

Interleaved, each run in a fresh process.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from autotune.errors import UserError
from autotune.execution.interpreter import (
    PYTHON,
    Interpreter,
    PackageDifference,
    normalised,
    other_interpreter,
    own_interpreter,
)
from autotune.execution.runner import Runner
from autotune.execution.scratch import scratch
from autotune.frozen_model import FrozenModel
from autotune.measurement import Measurement
from autotune.pipelines.factory import rebuilt
from autotune.production.fingerprint import choose_same_kind
from autotune.production.tuned_config import TunedConfig
from autotune.statistics.interleaved import Pair, Side, interleave
from autotune.statistics.paired import Paired, paired
from autotune.statistics.verdict import Verdict, judge
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Failure

PARTS = {  # of a call -> the field of Phases with its seconds
    "text_encoding": "text_encoding_s",
    "vae_encode": "vae_encode_s",
    "denoising": "denoising_step_s",
    "vae_decode": "vae_decode_s",
}


class PartOfCall(FrozenModel):
    """The seconds of a part of a call in each round (of "denoising": of one step, with the scheduler's part in it).

    packages  those that differ between the environments and ran in this part, or are asked for by those that did
    ran       those of them that were seen to run in it
    """

    part: str
    first_s: tuple[float, ...]
    second_s: tuple[float, ...]
    packages: tuple[str, ...]
    ran: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return judge(self.first_s, self.second_s)


class Comparison(FrozenModel):
    """Two configs side by side: latency and peak memory of each round, and what the second config's pictures lose.

    python    the interpreter of the second side, which runs the same config; None: two configs in one environment
    packages  whose versions differ between the two environments
    parts     of a call, where the packages of the slower ones are asked for; those that could be timed on both sides
    """

    first: str
    second: str
    python: str | None = None
    packages: tuple[PackageDifference, ...] = ()
    parts: tuple[PartOfCall, ...] | None = None
    device: str
    first_latency_s: tuple[float, ...]
    second_latency_s: tuple[float, ...]
    first_peak_memory_bytes: tuple[int, ...]
    second_peak_memory_bytes: tuple[int, ...]
    metric: str
    drop: Paired  # quality that the second loses relative to the first: CLIP points, or 100 x (1 - SSIM)
    ssim_mean: float
    ssim_worst: float

    @property
    def verdict(self) -> Verdict:
        """The speed of the second relative to the first."""
        return judge(self.first_latency_s, self.second_latency_s)


def compare(
    first: str | Path,
    second: str | Path | None = None,
    *,
    python: str | None = None,
    bisect: bool = False,
    rounds: int = 3,
    timeout_s: float = 1800.0,
    device: str | None = None,
    factory: str | None = None,
    run_code: bool = False,
    listen: Callable[[int, Path], None] = lambda number, which: None,
) -> Comparison:
    """Measure two exported configs of the same pipeline and workload, interleaved.

    python     the interpreter of another environment, in place of a second config: the first is measured in both
    bisect     also find out which of the packages that differ run in which part of a call, and time the parts
    rounds     measure each at least this often
    timeout_s  the longest that a run may take
    device     "cuda", "cuda:N" or "cpu"; None: the kind of device that the first config was measured on
    factory    FILE.py:FUNCTION of the user that builds the pipe, which `run_code` allows to run
    listen     is called before each run with (round from 1, path of the config, or of the interpreter)

    Raises UserError where the configs are for different things, where one of them fails here, and for an interpreter
    that can't run them.
    """
    if rounds < 2:
        raise UserError(f"{rounds} round has no interval: give --rounds 2 or more.")
    if (second is None) == (python is None):
        raise UserError("give a second config, or --python with another environment's interpreter, and not both.")
    if bisect and python is None:
        raise UserError("--bisect looks for the packages that differ between two environments: give --python, too.")
    paths: dict[Side, Path] = {"first": Path(first), "second": Path(first if second is None else second)}
    other, own = (other_interpreter(python), own_interpreter()) if python is not None else (None, None)
    shown = paths if other is None else {**paths, "second": Path(other.path)}
    configs = {side: TunedConfig.load(path) for side, path in paths.items()}
    target = _target(configs["first"], configs["second"], device)
    target = target.model_copy(update={"pipeline": rebuilt(target.pipeline, factory, run_code=run_code)})
    with scratch("autotune-compare-") as temporary:
        folder = StudyFolder(Path(temporary))
        known: dict[Side, Target] = {
            side: target.model_copy(update={"calibrations": tuned.calibrations}) for side, tuned in configs.items()
        }
        runners: dict[Side, Runner] = {
            "first": Runner(folder, known["first"], timeout_s, isolation="spawn"),
            "second": Runner(folder, known["second"], timeout_s, isolation="spawn", interpreter=other),
        }

        def run(number: int, side: Side) -> Measurement | Failure:
            listen(number + 1, shown[side])
            with_pictures = folder.trial(0 if side == "first" else 1)
            place = with_pictures if number == 0 else folder.path / f"round-{number + 1}-{side}"
            outcome = runners[side].run(place, configs[side].config, pictures=number == 0, earlier=())
            if isinstance(outcome, Failure):
                where = f"by {other.path}" if other is not None and side == "second" else "here"
                raise UserError(f"{str(paths[side])!r} can't be measured {where} ({outcome.cause}): {outcome.reason}.")
            return outcome

        pairs = interleave(run, least=rounds)
        assert not isinstance(pairs, Failure)
        comparison = _comparison(shown, target, pairs)
        if other is None or own is None:
            return comparison
        packages = own.differences(other)
        found: dict[str, Any] = {"python": other.path, "packages": packages}
        if bisect:
            sides: tuple[tuple[Side, Interpreter], ...] = (("first", own), ("second", other))
            seen = [
                _packages(runners[side], folder.path / f"packages-{side}", configs[side], where)
                for side, where in sides
            ]
            found["parts"] = _parts(pairs, packages, seen)
        return comparison.model_copy(update=found)


class Seen(NamedTuple):
    """The packages of a part of a call in one environment: those that run in it, and with all that they ask for."""

    ran: frozenset[str]
    asked_for: frozenset[str]


def _packages(runner: Runner, place: Path, tuned: TunedConfig, where: Interpreter) -> dict[str, Seen]:
    """Part of a call -> its packages. Raises UserError."""
    seen = runner.packages(place, tuned.config)
    if isinstance(seen, Failure):
        raise UserError(f"which packages run can't be seen with {where.path} ({seen.cause}): {seen.reason}.")
    return {
        part: Seen(frozenset(map(normalised, [*names, PYTHON])), where.with_required([*names, PYTHON]))
        for part, names in seen.items()
    }


def _parts(
    pairs: list[Pair], packages: Sequence[PackageDifference], seen: Sequence[Mapping[str, Seen]]
) -> tuple[PartOfCall, ...]:
    """The parts of a call that every run has timed, and which of the packages that differ run in each."""
    found = []
    for part, field in PARTS.items():
        first_s, second_s = (
            tuple(s for run in side if (s := getattr(run.phases, field, None)) is not None)
            for side in zip(*pairs, strict=True)
        )
        if len(first_s) == len(second_s) == len(pairs):
            ran, there = (frozenset().union(*of) for of in zip(*(side[part] for side in seen), strict=True))
            names = tuple(package.name for package in packages if package.name in there)
            running = tuple(name for name in names if name in ran)
            found.append(PartOfCall(part=part, first_s=first_s, second_s=second_s, packages=names, ran=running))
    return tuple(found)


def _target(first: TunedConfig, second: TunedConfig, device: str | None) -> Target:
    """The target that both are measured for. Raises UserError where the second config is for another one."""
    target = Target(
        pipeline=first.pipeline.model_copy(update={"traits": None}),  # older files lack them; the weights decide them
        workload=first.workload,
        device=choose_same_kind(first.device, device),
        versions=first.versions,
    )
    difference = target.difference(
        target.model_copy(
            update={"pipeline": second.pipeline.model_copy(update={"traits": None}), "workload": second.workload}
        ),
    )
    if difference:
        raise UserError(f"the two configs are for different things ({difference}): compare configs of one search.")
    return target


def _comparison(paths: dict[Side, Path], target: Target, pairs: list[Pair]) -> Comparison:
    firsts, seconds = zip(*pairs, strict=True)
    of_first, of_second = firsts[0].quality, seconds[0].quality
    assert of_first is not None
    assert of_second is not None
    return Comparison(
        first=str(paths["first"]),
        second=str(paths["second"]),
        device=target.device.name,
        first_latency_s=tuple(run.latency_s for run in firsts),
        second_latency_s=tuple(run.latency_s for run in seconds),
        first_peak_memory_bytes=tuple(run.peak_memory_bytes for run in firsts),
        second_peak_memory_bytes=tuple(run.peak_memory_bytes for run in seconds),
        metric=of_second.metric,
        drop=paired(of_second.drops(of_first)),
        ssim_mean=of_second.ssim_mean,
        ssim_worst=of_second.ssim_worst,
    )
