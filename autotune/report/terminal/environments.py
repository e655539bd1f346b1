"""Environments: how the packages of two environments differ, and which of them the slower parts of a call belong to."""

import statistics
from collections.abc import Mapping, Sequence

from autotune.report import words
from autotune.tuning.compare import Comparison, PartOfCall

PARTS = {
    "text_encoding": "text encoding",
    "vae_encode": "VAE encode",
    "denoising": "a denoising step",
    "vae_decode": "VAE decode",
}
UNTOLD = (
    "what can't be told: which of the packages of one part it is; the scheduler's share, which is timed within the "
    "step; what a package does inside another's compiled code. To tell them apart, copy the environment and put "
    "packages back one at a time."
)


def environment_lines(comparison: Comparison) -> list[str]:
    """The packages that differ; where it was asked for, the parts of a call and the packages that may be to blame."""
    changed = {p.name: f"{p.first or 'not installed'} -> {p.second or 'not installed'}" for p in comparison.packages}
    if changed:
        width = max(map(len, changed))
        lines = [f"packages that differ, {len(changed)}:", *(f"  {n:<{width}}  {to}" for n, to in changed.items())]
    else:
        lines = ["the two environments have the same packages in the same versions"]
    if comparison.parts is None:
        return lines
    for part in comparison.parts:
        verdict = part.verdict
        here, there = (words.seconds(statistics.median(side)) for side in (part.first_s, part.second_s))
        speed = f"{verdict.speedup:.3f}x the speed, {verdict.low:.3f} to {verdict.high:.3f}"
        lines.append(f"{PARTS[part.part]}: {here} here, {there} there: {verdict.word} ({speed})")
    slower = [part for part in comparison.parts if part.verdict.word == "SLOWER"]
    lines += [line for part in slower for line in _suspects(part, comparison.parts, changed)]
    if not slower:
        lines.append("no part of a call is slower beyond the noise, so there is nothing to find a package for")
    return [*lines, UNTOLD]


def _suspects(part: PartOfCall, parts: Sequence[PartOfCall], changed: Mapping[str, str]) -> list[str]:
    """The packages that a slower part may be due to: those that run first, and in no part that is not slower."""
    if not part.packages:
        return [f"{PARTS[part.part]} is slower, and no package that differs runs in it"]
    elsewhere = {
        name: [PARTS[other.part] for other in parts if name in other.packages and other.verdict.word != "SLOWER"]
        for name in part.packages
    }
    lines = [f"{PARTS[part.part]} is slower; packages that differ and run in it:"]
    for name in sorted(part.packages, key=lambda name: (name not in part.ran, len(elsewhere[name]), name)):
        notes = [] if name in part.ran else ["not seen itself, one that runs asks for it"]
        notes += [f"also in what is not slower: {', '.join(elsewhere[name])}"] if elsewhere[name] else []
        told = f" ({'; '.join(notes)})" if notes else ""
        lines.append(f"  {name} {changed[name]}{told}")
    return lines
