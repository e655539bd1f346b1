"""Made-up studies on disk, for the tests of what reads them."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conftest import make_target
from made_up import failed, measured, record
from PIL import Image

from autotune.frozen_model import write_json
from autotune.goal import Goal
from autotune.production.tuned_config import Confirmation
from autotune.study.record import Record, write_trial
from autotune.study_folder import StudyFolder, picture_name
from autotune.trial import Trial
from autotune.tuning.export import export

HOSTILE = "<script>alert(1)</script>"
VALUES: tuple[dict[str, Any], ...] = (
    {"dtype": "bf16"},
    {"qkv_fusion": True},
    {"memory_format": "channels_last"},
    {"tome_ratio": 0.5},
    {"dtype": "bf16", "qkv_fusion": True},
)


def study(
    path: Path,
    trials: Sequence[Trial],
    *,
    best: int | None = None,
    confirmation: Confirmation | None = None,
    prompts: tuple[str, ...] = ("a red circle", "a blue square"),
    goal: Goal | None = None,
    pictures: bool = True,
) -> StudyFolder:
    """A study of these trials. `best`: the trial of its best.json."""
    folder = StudyFolder(path)
    folder.create()
    write_json(folder.study, _record(prompts, goal).to_json())
    for trial in trials:
        write_trial(folder, trial)
        if trial.measured and pictures:
            draw(folder, trial.number, len(prompts))
    if best is not None:
        chosen = next(trial for trial in trials if trial.number == best)
        export(_record(prompts, goal), chosen, trials[0], confirmation).save(folder.best)
    return folder


def _record(prompts: tuple[str, ...], goal: Goal | None) -> Record:
    target = make_target()
    workload = target.workload.model_copy(update={"prompts": prompts})
    space = dict.fromkeys(("qkv_fusion",), (False, True)) | {"dtype": ("fp32", "bf16")}
    return record(target.model_copy(update={"workload": workload}), goal=goal, space=space)


def draw(folder: StudyFolder, number: int, count: int) -> None:
    """Tiny pictures whose colour tells the trial and the prompt."""
    images = folder.trial(number) / "images"
    images.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (16, 16), (40 * index % 256, 10 * number % 256, 120)).save(images / picture_name(index))


def usual(path: Path, **more: Any) -> StudyFolder:
    """A study with something of everything: a pick, a front, a recipe, one over the limits, failures."""
    trials = [
        measured(0, origin="baseline"),
        measured(1, VALUES[0], latency_s=0.5, memory_bytes=80 * 2**20, origin="bfloat16"),
        measured(2, VALUES[1], latency_s=0.9, memory_bytes=60 * 2**20),
        measured(3, VALUES[2], latency_s=0.2, loss=4.0),
        measured(4, VALUES[4], latency_s=0.7, memory_bytes=90 * 2**20, origin="fast diffusion"),
        failed(5, VALUES[3], "out_of_memory"),
        failed(6, {"tome_ratio": 0.25}, "crash"),
    ]
    confirmation = Confirmation(baseline_latency_s=(1.0, 1.01, 1.0), tuned_latency_s=(0.5, 0.5, 0.51))
    return study(path, trials, best=1, confirmation=confirmation, **more)


def large(path: Path, count: int = 500) -> StudyFolder:
    """So many trials, one in seven failed."""
    rng = random.Random(0)
    trials = [measured(0, origin="baseline")]
    for number in range(1, count):
        values = VALUES[number % len(VALUES)]
        if number % 7 == 0:
            trials.append(failed(number, values, rng.choice(("out_of_memory", "crash", "timeout"))))
            continue
        latency_s, memory_bytes = rng.uniform(0.2, 2.0), rng.randrange(40, 300) * 2**20
        trials.append(
            measured(number, values, latency_s=latency_s, memory_bytes=memory_bytes, loss=rng.choice((0.0, 0.1, 0.5)))
        )
    return study(path, trials, best=1, pictures=False)
