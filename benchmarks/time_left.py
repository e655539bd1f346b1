"""The error of the time left that a search shows, from finished studies, trial by trial.

    python benchmarks/time_left.py STUDY [STUDY ...]

For each study, at 25, 50 and 75 % of its trials, it prints the predicted seconds of the remaining exploration, the
seconds that it took (trials and anchors, without pauses), and the relative error of the prediction. It also prints the
error of a simple prediction: the median seconds of a trial times the number of trials left. Studies that lack trials on
the disk are skipped.
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
    """(predicted seconds, seconds taken, error, error of the simple prediction) after this share of the trials."""
    done = max(1, round(share * len(trials)))
    known = [anchor for anchor in anchors if anchor.before < done]
    predicted = exploring_s(trials[:done], known, len(trials))
    assert predicted is not None
    later = [anchor.seconds for anchor in anchors if anchor.before >= done]
    taken = sum(trial.seconds for trial in trials[done:]) + sum(later)
    simple = statistics.median(trial.seconds for trial in trials[:done]) * (len(trials) - done)
    return predicted, taken, predicted / taken - 1, simple / taken - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path)
    all_errors: list[float] = []
    for path in parser.parse_args().studies:
        folder = StudyFolder(path)
        trials, anchors = read_trials(folder), read_anchors(folder)
        if len(trials) < 4 or [trial.number for trial in trials] != list(range(len(trials))):
            print(f"{path}: {len(trials)} trials on the disk, not all of the study", file=sys.stderr)
            continue
        for share in SHARES:
            predicted, taken, error, simple = errors(trials, anchors, share)
            all_errors.append(abs(error))
            print(
                f"{path}, {share:.0%} of {len(trials)} trials: {predicted:.0f} s predicted, {taken:.0f} s taken, "
                f"error {error:+.0%} (simple prediction {simple:+.0%})"
            )
    if all_errors:
        print(f"median error: {statistics.median(all_errors):.0%}")


if __name__ == "__main__":
    main()
