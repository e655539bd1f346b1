"""compare(): is one exported config faster than another here? Interleaved, each run in a fresh process."""

from collections.abc import Callable
from pathlib import Path

from autotune.errors import UserError
from autotune.execution.runner import Runner
from autotune.execution.scratch import scratch
from autotune.frozen_model import FrozenModel
from autotune.measurement import Measurement
from autotune.production.fingerprint import choose_same_kind
from autotune.production.tuned_config import TunedConfig
from autotune.statistics.interleaved import Pair, Side, interleave
from autotune.statistics.paired import Paired, paired
from autotune.statistics.verdict import Verdict, judge
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Failure


class Comparison(FrozenModel):
    """Two configs side by side: latency and peak memory of each round, and what the second config's pictures lose."""

    first: str
    second: str
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
    second: str | Path,
    *,
    rounds: int = 3,
    timeout_s: float = 1800.0,
    device: str | None = None,
    listen: Callable[[int, Path], None] = lambda number, which: None,
) -> Comparison:
    """Measure two exported configs of the same pipeline and workload, interleaved.

    rounds     measure each at least this often
    timeout_s  the longest that a run may take
    device     "cuda", "cuda:N" or "cpu"; None: the kind of device that the first config was measured on
    listen     is called before each run with (round from 1, path of the config)

    Raises UserError where the configs are for different things, and where one of them fails here.
    """
    if rounds < 2:
        raise UserError(f"{rounds} round has no interval: give --rounds 2 or more.")
    paths: dict[Side, Path] = {"first": Path(first), "second": Path(second)}
    configs = {side: TunedConfig.load(path) for side, path in paths.items()}
    target = _target(configs["first"], configs["second"], device)
    with scratch("autotune-compare-") as temporary:
        folder = StudyFolder(Path(temporary))
        runner = Runner(folder, target, timeout_s, isolation="spawn")

        def run(number: int, side: Side) -> Measurement | Failure:
            listen(number + 1, paths[side])
            with_pictures = folder.trial(0 if side == "first" else 1)
            place = with_pictures if number == 0 else folder.path / f"round-{number + 1}-{side}"
            outcome = runner.run(place, configs[side].config, pictures=number == 0, earlier=())
            if isinstance(outcome, Failure):
                raise UserError(f"{str(paths[side])!r} can't be measured here ({outcome.cause}): {outcome.reason}.")
            return outcome

        pairs = interleave(run, least=rounds)
        assert not isinstance(pairs, Failure)
        return _comparison(paths, target, pairs)


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
