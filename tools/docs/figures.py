"""figures: the tables of what was measured, read off the files that benchmarks and the demo left in reports/."""

import json
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
REPORTS = ROOT / "reports"
WHERE = REPORTS / "showcase" / "where"  # a line: device, versions and days of the files that do not say it themselves


class Figure(NamedTuple):
    """What was measured, its value, the command, the file in reports/ that has it, and whether the README shows it."""

    what: str
    value: str
    command: str
    file: str
    in_readme: bool = False


def figures() -> list[Figure]:
    """Every figure as the files have it now. Raises SystemExit where a file does not say it any more."""
    agrees = r"their mean ([\d.]+) \(95 % interval ([\d.]+) to ([\d.]+)\)"
    mean, low, high = _found("benchmarks/latency_agrees.txt", agrees)
    loaded = _found("benchmarks/latency_agrees.txt", r"the plain loop's ratio to it is ([\d.]+)")[0]
    verified = _found("benchmarks/verify.txt", r"^([\d.]+x) the speed in the file \(95 % interval ([\d.]+) to ([\d.]+)")
    alarms = _found("selftest-demo-cpu/selftest.txt", r"^false alarms of a comparison of 3 rounds: ([\d.]+)%")[0]
    overhead = _found("benchmarks/load_overhead.txt", r"overhead, median: ([\d.]+) s")[0]
    forked = _found("benchmarks/trial_overhead.txt", r"^fork: start and end ([\d.]+) s")[0]
    spawned = _found("benchmarks/trial_overhead.txt", r"^spawn: start and end ([\d.]+) s")[0]
    first = re.findall(r": ([\d.]+) s to the first picture", _text("benchmarks/cold_start.txt"))
    costs = re.findall(r"ours over naive: ([\d.]+) \(quartiles", _text("benchmarks/search_cost.txt"))
    share = ", ".join(costs)
    return [
        Figure(*_demo(), "demo-cpu/report.html", True),
        Figure(
            "a measured latency beside a plain loop's",
            f"ratio {float(mean):.3f} (95 % interval {float(low):.3f} to {float(high):.3f})",
            "python benchmarks/latency_agrees.py",
            "benchmarks/latency_agrees.txt",
            True,
        ),
        Figure(
            "equal configs that a comparison of 3 rounds calls different",
            f"{alarms} % of the comparisons",
            "autotune selftest --pipeline demo --pairs 20",
            "selftest-demo-cpu/selftest.txt",
            True,
        ),
        Figure(
            "device time of a search, as a share of the usual loop's",
            f"{share} on the recorded spaces",
            "python benchmarks/search_cost.py",
            "benchmarks/search_cost.txt",
            True,
        ),
        Figure(
            "`load` beyond diffusers' own loading",
            f"{float(overhead):.2f} s",
            "python benchmarks/load_overhead.py --rounds 9",
            "benchmarks/load_overhead.txt",
            True,
        ),
        Figure(
            "a loaded config beside what its file says",
            f"ratio {float(loaded):.2f}",
            "python benchmarks/latency_agrees.py best.json",
            "benchmarks/latency_agrees.txt",
        ),
        Figure(
            "the demo's file, verified later",
            f"{verified[0]} ({verified[1]} to {verified[2]})",
            "autotune verify best.json",
            "benchmarks/verify.txt",
        ),
        Figure(
            "a trial's start and end: forked, afresh",
            f"{float(forked):.2g} s, {float(spawned):.2g} s",
            "python benchmarks/trial_overhead.py",
            "benchmarks/trial_overhead.txt",
        ),
        Figure(
            "the first picture: uncompiled, compiled, with artifacts",
            ", ".join(f"{seconds} s" for seconds in first),
            "python benchmarks/cold_start.py",
            "benchmarks/cold_start.txt",
        ),
        Figure(
            "predicted bytes of weights: the largest error",
            _largest_error(),
            "python benchmarks/fit_error.py",
            "benchmarks/fit_error.txt",
        ),
    ]


def _demo() -> tuple[str, str, str]:
    best = json.loads(_text("demo-cpu/best.json"))
    size = f"{best['workload']['width']}x{best['workload']['height']}"
    about = best["about"].partition(" the baseline's speed")[0]
    interval = re.search(r"95 % interval [\d.]+ to [\d.]+", best["about"])
    change = re.search(r"CLIP score [^,]*? over \d+ pairs", best["about"])
    parts = [part[0] for part in (interval, change) if part]
    value = f"{about} the baseline's speed ({'; '.join(parts)})" if parts else best["about"]
    return f"the demo's pick, {best['workload']['steps']} steps at {size}", value, best["command"]


def _measured_on(file: str) -> str:
    """The day, the device and the versions of a figure: the study's own, or the first line of a benchmark's output."""
    if file.startswith("demo-cpu/"):
        best = json.loads(_text("demo-cpu/best.json"))
        return f"{best['created'][:10]}, {best['device']['name']}, torch {best['versions']['torch']}"
    first = _text(file).partition("\n")[0]
    return first.removeprefix("# ") if first.startswith("# ") else WHERE.read_text(encoding="utf-8").strip()


def _largest_error() -> str:
    errors = [abs(float(error)) for error in re.findall(r"error ([+-][\d.]+)%", _text("benchmarks/fit_error.txt"))]
    exact = sum(error < 0.005 for error in errors)
    return f"{max(errors):.2f} %; {exact} of {len(errors)} are exact"


def _text(file: str) -> str:
    return (REPORTS / file).read_text(encoding="utf-8")


def _found(file: str, pattern: str) -> tuple[str, ...]:
    found = re.search(pattern, _text(file), re.M)
    if found is None:
        raise SystemExit(f"reports/{file} has no line like {pattern!r}")
    return found.groups()


def table(page: Path) -> str:
    """The table of a page: in the README a part of the figures, elsewhere all. Below it: where each was measured."""
    readme = page == ROOT / "README.md"
    up = "../" * (len(page.relative_to(ROOT).parts) - 1)
    shown = [figure for figure in figures() if figure.in_readme or not readme]
    places = list(dict.fromkeys(_measured_on(figure.file) for figure in shown))
    rows = [
        f"| {f.what} | {f.value} | [`{f.command}`]({up}reports/{f.file}) | {places.index(_measured_on(f.file)) + 1} |"
        for f in shown
    ]
    head = ["| what | measured | by | on |", "|---|---|---|--:|"]
    notes = [f"{number}: {place}." for number, place in enumerate(places, start=1)]
    return "\n".join([*head, *rows, "", f"*{' '.join(notes)}*"])
