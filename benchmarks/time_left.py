"""How wrong the time left is that a search shows: finished studies played again, trial by trial.

    python benchmarks/time_left.py STUDY [STUDY ...]

For each study, at 25, 50 and 75 % of its trials: the seconds that were told to be left of the exploring, those that it
then took (trials and runs of the baseline, without pauses), and the error as a share of these. Beside it the error of
what was shown before: the median trial times the trials left. Only studies with all their trials on the disk count.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from autotune.study.record import read_anchors, read_trials
from autotune.study.time_left import exploring_s
from autotune.study_folder import StudyFolder
from autotune.trial import Anchor, Trial

SHARES = (0.25, 0.5, 0.75)


def errors(trials: Sequence[Trial], anchors: Sequence[Anchor], share: float) -> tuple[float, float, float, float]:
    """(seconds told, seconds taken, error, error of the median) after this share of the trials."""
    done = max(1, round(share * len(trials)))
    known = [anchor for anchor in anchors if anchor.before < done]
    told = exploring_s(trials[:done], known, len(trials))
    assert told is not None
    later = [anchor.seconds for anchor in anchors if anchor.before >= done]
    taken = sum(trial.seconds for trial in trials[done:]) + sum(later)
    plain = statistics.median(trial.seconds for trial in trials[:done]) * (len(trials) - done)
    return told, taken, told / taken - 1, plain / taken - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path)
    every: list[float] = []
    for path in parser.parse_args().studies:
        folder = StudyFolder(path)
        trials, anchors = read_trials(folder), read_anchors(folder)
        if len(trials) < 4 or [trial.number for trial in trials] != list(range(len(trials))):
            print(f"{path}: {len(trials)} trials on the disk, not a whole study", file=sys.stderr)
            continue
        for share in SHARES:
            told, taken, error, plain = errors(trials, anchors, share)
            every.append(abs(error))
            print(
                f"{path}, {share:.0%} of {len(trials)} trials: {told:.0f} s told, {taken:.0f} s taken, "
                f"error {error:+.0%} (by the median alone {plain:+.0%})"
            )
    if every:
        print(f"median error: {statistics.median(every):.0%}")


if __name__ == "__main__":
    main()
