"""verify(): does an exported config still keep the figures in its file on this machine? Fresh processes.

Latency is compared with the latencies of the confirmation, process by process; pictures with the thumbnails in the
file; memory with the peak in the file. No knob value is replaced by a near one: a config that is not supported on this
device is broken.
"""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from autotune.errors import UserError
from autotune.execution.interpreter import other_interpreter
from autotune.execution.runner import Runner
from autotune.execution.scratch import scratch
from autotune.frozen_model import FrozenModel
from autotune.measurement import Measurement
from autotune.pictures.own import give_again
from autotune.pipelines.factory import rebuilt
from autotune.production.fingerprint import choose_device, device_differences, file_differences, version_differences
from autotune.production.thumbnail import DIFFERS, Thumbnail, thumbnail_of, with_thumbnails
from autotune.production.tuned_config import TunedConfig
from autotune.statistics.peak_memory import is_larger
from autotune.statistics.verdict import SAME_WITHIN, Verdict, judge_apart
from autotune.study_folder import StudyFolder, picture_name
from autotune.trial import NOT_THE_CONFIG, Failure

Word = Literal["holds", "faster", "slower", "larger", "broken"]
LARGER = 0.1  # a peak above that in the file by more than this share is larger
MOST_TIMES = 3  # at most this multiple of `rounds` is run while the interval stays wide


class Verification(FrozenModel):
    """Figures in the file (`then`) and measured (`now`). `broken`: why the config fails or draws other pictures."""

    config: str
    device: str
    remarks: tuple[str, ...] = ()  # differences to what was measured: an edit, another device, other files
    broken: str | None = None
    then_latency_s: tuple[float, ...]
    now_latency_s: tuple[float, ...] = ()
    then_peak_memory_bytes: int
    now_peak_memory_bytes: int | None = None
    picture_differences: tuple[float, ...] = ()  # mean, in levels of 255; empty: no thumbnails in the file

    @property
    def speed(self) -> Verdict | None:
        """The speed now relative to then; None where it was not measured."""
        return judge_apart(self.then_latency_s, self.now_latency_s) if len(self.now_latency_s) > 1 else None

    @property
    def word(self) -> Word:
        """The verdict in one word. `broken` goes before `slower`, and `slower` before `larger`."""
        if self.broken is not None or self.speed is None or self.now_peak_memory_bytes is None:
            return "broken"
        if self.speed.high < 1 / (1 + SAME_WITHIN):
            return "slower"
        if is_larger(self.now_peak_memory_bytes, self.then_peak_memory_bytes, LARGER):
            return "larger"
        return "faster" if self.speed.low > 1 + SAME_WITHIN else "holds"


def verify(
    path: str | Path,
    *,
    rounds: int = 3,
    images: Sequence[Path] = (),
    timeout_s: float = 1800.0,
    device: str | None = None,
    python: str | None = None,
    factory: str | None = None,
    run_code: bool = False,
    listen: Callable[[str], None] = lambda what: None,
) -> Verification:
    """Measure an exported config again in fresh processes, and draw its first pictures again.

    rounds     measure it in at least this many processes
    images     the user's own pictures that the search started from, where this machine has them no more
    timeout_s  the longest that a run may take
    device     "cuda", "cuda:N" or "cpu"; None: the kind of device that the config was measured on
    python     the interpreter of another environment, which runs the config; None: this one
    factory    FILE.py:FUNCTION of the user that builds the pipe, which `run_code` allows to run
    listen     is called with a description of each step before it starts

    Raises UserError where the file or the interpreter can't be used, and where this device is too busy to be measured.
    """
    if rounds < 2:
        raise UserError(f"{rounds} round has no interval: give --rounds 2 or more.")
    tuned = TunedConfig.load(path)
    give_again(tuned.workload, images)
    current = choose_device(tuned.device, device)
    other = other_interpreter(python) if python is not None else None
    verification = Verification(
        config=str(path),
        device=current.name,
        remarks=(
            *tuned.edited,
            *device_differences(tuned.device, current),
            *(version_differences(tuned.versions, other.versions(tuned.versions)) if other is not None else []),
        ),
        then_latency_s=stored_latency_s(tuned),
        then_peak_memory_bytes=tuned.tuned.peak_memory_bytes,
    )
    with scratch("autotune-verify-") as temporary:
        pipeline = rebuilt(tuned.pipeline, factory, run_code=run_code)
        target = tuned.target.model_copy(update={"device": current, "pipeline": pipeline})
        runner = Runner(StudyFolder(Path(temporary)), target, timeout_s, isolation="spawn", interpreter=other)
        remarks = (*verification.remarks, *file_differences(target))
        verification = verification.model_copy(update={"remarks": remarks})
        verification = _compare_pictures(verification, tuned, runner, listen)
        if verification.broken is not None:
            return verification
        return _measure(verification, tuned, runner, rounds, listen)


def stored_latency_s(tuned: TunedConfig) -> tuple[float, ...]:
    """The latencies in the file, one for each process: those of the confirmation, or the trial's only one."""
    return tuned.confirmation.tuned_latency_s if tuned.confirmation else (tuned.tuned.latency_s,)


def _compare_pictures(
    verification: Verification, tuned: TunedConfig, runner: Runner, listen: Callable[[str], None]
) -> Verification:
    """Draw the pictures of the file's thumbnails again and compare them."""
    if not tuned.pictures:
        remarks = (*verification.remarks, "the file keeps no pictures to compare with.")
        return verification.model_copy(update={"remarks": remarks})
    listen(f"drawing {len(tuned.pictures)} pictures")
    place, workload = runner.folder.path / "pictures", with_thumbnails(tuned.workload)
    failure = runner.make_pictures(place, tuned.config, workload, earlier=())
    if failure is not None:
        return _failed(verification, failure)
    now = _thumbnails(place, workload.prompts, tuned.pictures)
    differences = tuple(then.difference(again) for then, again in zip(tuned.pictures, now, strict=True))
    broken = None
    if max(differences) > DIFFERS:
        count = sum(difference > DIFFERS for difference in differences)
        broken = f"{count} of {len(differences)} pictures differ from those that were measured"
    return verification.model_copy(update={"picture_differences": differences, "broken": broken})


def _thumbnails(place: Path, prompts: Sequence[str], then: Sequence[Thumbnail]) -> list[Thumbnail]:
    """Thumbnails of the pictures in this folder, in the order of those in the file. Raises UserError."""
    from PIL import Image

    now = []
    for thumbnail in then:
        if thumbnail.prompt not in prompts:
            raise UserError("the pictures in this file have prompts that its workload does not have.")
        with Image.open(place / "images" / picture_name(prompts.index(thumbnail.prompt))) as image:
            now.append(thumbnail_of(image, thumbnail.prompt, thumbnail.seed))
    return now


def _measure(
    verification: Verification, tuned: TunedConfig, runner: Runner, rounds: int, listen: Callable[[str], None]
) -> Verification:
    """Measure latency and memory in fresh processes until the interval is narrow enough."""
    measured: list[Measurement] = []
    while _too_few(verification, measured, rounds):
        listen(f"measuring, process {len(measured) + 1}")
        place = runner.folder.path / f"round-{len(measured) + 1}"
        outcome = runner.run(place, tuned.config, pictures=False, earlier=())
        if isinstance(outcome, Failure):
            return _failed(verification, outcome)
        measured.append(outcome)
    return verification.model_copy(
        update={
            "now_latency_s": tuple(run.latency_s for run in measured),
            "now_peak_memory_bytes": round(statistics.median(run.peak_memory_bytes for run in measured)),
        }
    )


def _too_few(verification: Verification, measured: Sequence[Measurement], rounds: int) -> bool:
    """Is another run needed? Beyond `rounds`, the width of the interval decides and never the verdict."""
    if len(measured) < rounds:
        return True
    verdict = judge_apart(verification.then_latency_s, [run.latency_s for run in measured])
    return len(measured) < MOST_TIMES * rounds and verdict.high / verdict.low > (1 + 2 * SAME_WITHIN) ** 2


def _failed(verification: Verification, failure: Failure) -> Verification:
    """The config is broken. Raises UserError where the load of this device is to blame, not the config."""
    if failure.cause in NOT_THE_CONFIG:
        raise UserError(f"this device can't be measured now ({failure.cause}): {failure.reason}.")
    return verification.model_copy(update={"broken": f"it can't run here ({failure.cause}): {failure.reason}"})
