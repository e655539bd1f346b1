"""verify(): does an exported config still do on this machine what its file says? Measured again, in fresh processes.

Latency is compared with that of the confirmation, process by process; pictures with the thumbnails that the file keeps;
memory with the peak that it names. Nothing is replaced by something near: what can't act here is broken.
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from autotune.errors import UserError
from autotune.execution.runner import Runner
from autotune.frozen_model import FrozenModel
from autotune.measurement import Measurement
from autotune.production.fingerprint import choose_device, device_differences
from autotune.production.thumbnail import DIFFERS, Thumbnail, thumbnail_of, with_thumbnails
from autotune.production.tuned_config import TunedConfig
from autotune.statistics.verdict import SAME_WITHIN, Verdict, judge_apart
from autotune.study_folder import StudyFolder, picture_name
from autotune.trial import NOT_THE_CONFIG, Failure

Word = Literal["holds", "faster", "slower", "larger", "broken"]
LARGER = 1.1  # of the peak memory that the file names
MOST_TIMES = 3  # runs, as a multiple of the least number, while the interval stays wide


class Verification(FrozenModel):
    """What was found. `broken`: the sentence why it can't run or draws other pictures; then nothing else counts."""

    config: str
    device: str
    remarks: tuple[str, ...] = ()  # in what this is not what was measured
    broken: str | None = None
    then_latency_s: tuple[float, ...]
    now_latency_s: tuple[float, ...] = ()
    then_peak_memory_bytes: int
    now_peak_memory_bytes: int | None = None
    picture_differences: tuple[float, ...] = ()  # mean of the cells, levels of 255; empty: the file keeps no pictures

    @property
    def speed(self) -> Verdict | None:
        """Of now on then; None where it was not measured."""
        return judge_apart(self.then_latency_s, self.now_latency_s) if len(self.now_latency_s) > 1 else None

    @property
    def word(self) -> Word:
        if self.broken is not None or self.speed is None or self.now_peak_memory_bytes is None:
            return "broken"
        if self.speed.high < 1 / (1 + SAME_WITHIN):
            return "slower"
        if self.now_peak_memory_bytes > LARGER * self.then_peak_memory_bytes:
            return "larger"
        return "faster" if self.speed.low > 1 + SAME_WITHIN else "holds"


def verify(
    path: str | Path,
    *,
    rounds: int = 3,
    timeout_s: float = 1800.0,
    device: str | None = None,
    listen: Callable[[str], None] = lambda what: None,
) -> Verification:
    """Measure an exported config again, in at least so many fresh processes, and draw its first pictures again.

    listen  hears what is done next

    Raises UserError where the file can't be used, or where this device is too busy to measure anything.
    """
    if rounds < 2:
        raise UserError(f"{rounds} round has no interval: give --rounds 2 or more.")
    tuned = TunedConfig.load(path)
    here = choose_device(tuned.device, device)
    seen = Verification(
        config=str(path),
        device=here.name,
        remarks=(*tuned.edited, *device_differences(tuned.device, here)),
        then_latency_s=stored_latency_s(tuned),
        then_peak_memory_bytes=tuned.tuned.peak_memory_bytes,
    )
    with tempfile.TemporaryDirectory(prefix="autotune-verify-") as temporary:
        target = tuned.target.model_copy(update={"device": here})
        runner = Runner(StudyFolder(Path(temporary)), target, timeout_s, isolation="spawn")
        return _timed(_drawn(seen, tuned, runner, listen), tuned, runner, rounds, listen)


def stored_latency_s(tuned: TunedConfig) -> tuple[float, ...]:
    """What the file says, one figure a process: those of the confirmation, or the only one that there is."""
    return tuned.confirmation.tuned_latency_s if tuned.confirmation else (tuned.tuned.latency_s,)


def _drawn(seen: Verification, tuned: TunedConfig, runner: Runner, listen: Callable[[str], None]) -> Verification:
    """With the pictures compared."""
    if not tuned.pictures:
        return seen.model_copy(update={"remarks": (*seen.remarks, "the file keeps no pictures to compare with.")})
    listen(f"drawing {len(tuned.pictures)} pictures")
    place, few = runner.folder.path / "pictures", with_thumbnails(tuned.workload)
    failure = runner.make_pictures(place, tuned.config, few, earlier=())
    if failure is not None:
        return _failed(seen, failure)
    now = _glimpses(place, few.prompts, tuned.pictures)
    differences = tuple(then.difference(again) for then, again in zip(tuned.pictures, now, strict=True))
    broken = None
    if max(differences) > DIFFERS:
        count = sum(difference > DIFFERS for difference in differences)
        broken = f"{count} of {len(differences)} pictures are other ones than those that were measured"
    return seen.model_copy(update={"picture_differences": differences, "broken": broken})


def _glimpses(place: Path, prompts: Sequence[str], then: Sequence[Thumbnail]) -> list[Thumbnail]:
    from PIL import Image

    found = []
    for one in then:
        if one.prompt not in prompts:
            raise UserError("the pictures of this file are of other prompts than its workload's.")
        with Image.open(place / "images" / picture_name(prompts.index(one.prompt))) as image:
            found.append(thumbnail_of(image, one.prompt, one.seed))
    return found


def _timed(
    seen: Verification, tuned: TunedConfig, runner: Runner, rounds: int, listen: Callable[[str], None]
) -> Verification:
    """With the latency and the memory of fresh processes, unless it is broken already."""
    measured: list[Measurement] = []
    while seen.broken is None and _too_few(seen, measured, rounds):
        listen(f"measuring, process {len(measured) + 1}")
        place = runner.folder.path / f"round-{len(measured) + 1}"
        outcome = runner.run(place, tuned.config, pictures=False, earlier=())
        if isinstance(outcome, Failure):
            return _failed(seen, outcome)
        measured.append(outcome)
    if seen.broken is not None:
        return seen
    return seen.model_copy(
        update={
            "now_latency_s": tuple(one.latency_s for one in measured),
            "now_peak_memory_bytes": round(statistics.median(one.peak_memory_bytes for one in measured)),
        }
    )


def _too_few(seen: Verification, measured: Sequence[Measurement], rounds: int) -> bool:
    """More runs than asked for only while the interval is wide: how wide decides, never what it says."""
    if len(measured) < rounds:
        return True
    verdict = judge_apart(seen.then_latency_s, [one.latency_s for one in measured])
    return len(measured) < MOST_TIMES * rounds and verdict.high / verdict.low > (1 + 2 * SAME_WITHIN) ** 2


def _failed(seen: Verification, failure: Failure) -> Verification:
    """Raises UserError where not the config is to blame but what else this device is doing."""
    if failure.cause in NOT_THE_CONFIG:
        raise UserError(f"this device can't be measured now ({failure.cause}): {failure.reason}.")
    return seen.model_copy(update={"broken": f"it can't run here ({failure.cause}): {failure.reason}"})
