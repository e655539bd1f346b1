"""How long a sampler takes to propose a trial (Optuna's ask), as the number of trials grows, on the demo's space.

    python benchmarks/ask_time.py [--samplers auto,tpe,random] [--trials 100]

Only ask() is timed. The outcomes are made up: every knob has an effect, and one config in ten fails. The study is in
memory. Prints the median and the maximum of the ten calls before each mark, in CPU seconds, so that other processes
don't count. For `auto` the maximum should stay below 0.2 s.
"""

import argparse
import statistics
import time
from pathlib import Path

from autotune.config import Config
from autotune.goal import Goal
from autotune.knobs import complete
from autotune.measurement import Measurement, Quality
from autotune.study.record import Record
from autotune.study.space import SearchSpace
from autotune.study.storage import InMemory
from autotune.study.study import Study
from autotune.study_folder import StudyFolder
from autotune.target import Target
from autotune.trial import Failure, Trial
from autotune.tuning.probe_space import probe_space


def outcome(number: int, config: Config) -> Measurement | Failure:
    """A made-up outcome, which depends on the config only."""
    luck = [int(config.digest[i : i + 4], 16) / 2**16 for i in (0, 4, 8)]
    if number and luck[0] < 0.1:
        return Failure(cause="crash", reason="made up")
    changed = sum(value != complete({}).get(name, value) for name, value in config.items())
    latency_s, memory_bytes = 0.9**changed * (1 + luck[1] / 10), int(1e9 * (1 + luck[2]))
    scores = (30 - 0.05 * changed,)
    return Measurement(
        load_s=1.0,
        apply_s=0.0,
        first_call_s=latency_s,
        warmup_s=(),
        latency_samples_s=(latency_s,) * 5,
        load_peak_memory_bytes=memory_bytes,
        run_peak_memory_bytes=memory_bytes,
        peak_memory_bytes=memory_bytes,
        effects={},
        attention_kernels={},
        quality=Quality(metric="clip", scorer="made up", clip_scores=scores, ssim=(0.9,), psnr_db=(30.0,)),
    )


def ask_seconds(target: Target, space: SearchSpace, sampler: str, trials: int) -> list[float]:
    """The CPU seconds of every call of ask()."""
    record = Record(
        target=target,
        goal=Goal(max_quality_drop=0.3),
        baseline=dict(complete({})),
        space=space.values,
        command="benchmarks/ask_time.py",
    )
    study = Study(StudyFolder(Path("nowhere")), record, space, sampler=sampler, store=InMemory())
    seconds = []
    while len(study.trials) < trials:
        begun = time.process_time()
        proposal = study.ask()
        seconds.append(time.process_time() - begun)
        if proposal is None:
            break
        number, config, origin = proposal
        made = outcome(number, config)
        study.tell(Trial(number=number, origin=origin, values=dict(config), outcome=made, seconds=10.0))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", default="auto,tpe,random")
    parser.add_argument("--trials", type=int, default=100)
    arguments = parser.parse_args()
    for sampler in arguments.samplers.split(","):
        target, space = probe_space("demo", "pretrained", "cpu")
        seconds = ask_seconds(target, space, sampler, arguments.trials)
        for mark in sorted({20, 50, len(seconds)}):
            last = seconds[max(mark - 10, 1) : mark]
            if last:
                print(
                    f"{sampler}: at {mark} trials median {statistics.median(last):.3f} s, maximum {max(last):.3f} s "
                    f"({space.count()} configs, {target.device.name})"
                )


if __name__ == "__main__":
    main()
