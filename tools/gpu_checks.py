"""GPU checks: whether the files that a step has left show what the step is for. Says what is missing.

Exit status: 1 where something is wrong, 75 where nothing is but the same command has to go on, 0 otherwise.

python -m tools.gpu_checks ladder FOLDER
python -m tools.gpu_checks search STUDY TRIALS
python -m tools.gpu_checks selftest FILE.json
python -m tools.gpu_checks compat FILE.json
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

GOES_ON = 75  # EX_TEMPFAIL of sysexits.h


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def ladder(folder: Path) -> Iterator[str]:
    """Every rung is measured or says why not; at least the first two are measured, or there is nothing to compare."""
    rows = read(folder / "ladder.json")["table"]
    if not (folder / "ladder.md").is_file():
        yield "ladder.md is missing"
    if sum("latency_s" in row for row in rows) < 2:
        yield f"fewer than two of {len(rows)} rungs were measured"
    yield from (f"rung {row['name']!r} says nothing" for row in rows if "latency_s" not in row and not row.get("notes"))


def search(study: Path, least: str) -> Iterator[str]:
    """The study is a GPU's, has so many trials, the baseline was measured, and its pick was exported."""
    device = read(study / "study.json")["target"]["device"]
    if device["kind"] == "cpu":
        yield f"it ran on the processor ({device['name']})"
    trials = [read(path)["outcome"] for path in sorted(study.glob("trials/*/trial.json"))]
    measured = [outcome for outcome in trials if "latency_samples_s" in outcome]
    if len(trials) < int(least):
        yield f"{len(trials)} trials instead of {least} or more"
    if not trials or "latency_samples_s" not in trials[0]:
        yield f"the baseline was not measured: {trials[0].get('reason') if trials else 'no trial'}"
    if len(measured) < 2:
        yield "nothing but the baseline was measured"
    errors = [outcome for outcome in trials if outcome.get("cause") in ("error", "crash", "environment")]
    yield from (f"a trial ended with {outcome['cause']}: {outcome['reason']}" for outcome in errors)
    if not (study / "best.json").is_file():
        yield "best.json is missing"


def selftest(path: Path) -> Iterator[str]:
    """A comparison of the baseline with itself finds no difference in 95 % of the cases, none of them above 5 %."""
    found = read(path)
    if found["false_alarms"] > 0.05:
        yield f"a config differs from itself in {found['false_alarms']:.1%} of the comparisons"
    if found["worst"] > 0.05:
        yield f"two processes of one config differ by {found['worst']:.1%}"
    yield from (f"a pair is missing: {reason}" for reason in found.get("failed", ()))


def compat(path: Path) -> Iterator[str]:
    """Every value and pair runs, or is refused by a rule: what fails is a rule that is missing."""
    pipelines = read(path)["pipelines"]
    if not pipelines:
        yield "no pipeline was tried"
    for pipeline, found in pipelines.items():
        for group in ("singles", "pairs"):
            for pair, check in found.get(group, {}).items():
                if check["outcome"] == "failed":
                    yield f"{pipeline}, {pair}: {check.get('reason')}"


def left(path: Path) -> int:
    """Number of pairs that were not come to."""
    found = read(path)["pipelines"].values()
    checks = [check for one in found for group in ("singles", "pairs") for check in one.get(group, {}).values()]
    return sum(check["outcome"] == "not run" for check in checks)


CHECKS: dict[str, Callable[..., Iterator[str]]] = {
    "ladder": ladder,
    "search": search,
    "selftest": selftest,
    "compat": compat,
}


def main(words: list[str]) -> int:
    kind, path, *more = words
    faults = list(CHECKS[kind](Path(path), *more))
    for fault in faults:
        print(f"{path}: {fault}")
    if faults:
        return 1
    if kind == "compat" and left(Path(path)):
        print(f"{path}: {left(Path(path))} are left")
        return GOES_ON
    print(f"{path}: as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
