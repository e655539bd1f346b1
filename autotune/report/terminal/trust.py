"""Trust: the results of compare, ablate and selftest, in words and as JSON."""

import shlex
from typing import Any

from autotune.report import words
from autotune.report.terminal.environments import environment_lines
from autotune.report.terminal.theme import Step
from autotune.tuning.ablation import Ablation
from autotune.tuning.compare import Comparison
from autotune.tuning.selftest import POWER, ROUNDS, SelfTest

VERDICTS = {
    "FASTER": "the second is faster",
    "SLOWER": "the second is slower",
    "SAME": "both are equally fast",
    "UNCLEAR": "the noise is too large to tell them apart: give more --rounds, or use a quieter machine",
}


def round_line(number: int, what: str, rounds: int | None = None) -> str:
    """ "round 2: a.json", or "round 2 of 3: the tuned chain" where the number of rounds is known."""
    return f"round {number}{f' of {rounds}' if rounds else ''}: {what}"


def pair_line(number: int, pairs: int, first_s: float, second_s: float) -> str:
    """ "pair 2 of 20: 421 ms, 423 ms"."""
    return f"pair {number} of {pairs}: {words.seconds(first_s)}, {words.seconds(second_s)}"


def comparison_words(comparison: Comparison) -> str:
    """Both configs, then the verdict with its interval."""
    verdict = comparison.verdict
    first = comparison.first if comparison.python is None else f"{comparison.first}, this environment"
    second = comparison.second if comparison.python is None else f"{comparison.first}, {comparison.python}"
    sides = [
        (first, comparison.first_latency_s, comparison.first_peak_memory_bytes),
        (second, comparison.second_latency_s, comparison.second_peak_memory_bytes),
    ]
    width = max(len(path) for path, *_ in sides)
    lines = [
        f"{path:<{width}}  {' '.join(words.seconds(one) for one in latencies_s)}  {words.memory(max(peaks))}"
        for path, latencies_s, peaks in sides
    ]
    interval = f"{verdict.low:.3f} to {verdict.high:.3f}"
    lines.append(f"{verdict.word}: {VERDICTS[verdict.word]}")
    lines.append(
        f"the second's speed is {verdict.speedup:.3f}x the first's (95 % interval {interval}, {verdict.pairs} "
        f"interleaved rounds on {comparison.device})"
    )
    score = "" if comparison.metric == "likeness" else f"CLIP score {comparison.drop.as_change}, "
    likeness = f"SSIM {comparison.ssim_mean:.3f} (worst {comparison.ssim_worst:.3f})"
    lines.append(f"the second's pictures: {score}{likeness} to the first's")
    if comparison.python is not None:
        lines += environment_lines(comparison)
    return "\n".join(lines)


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """The same as JSON."""
    data = {**comparison.to_json(), "verdict": comparison.verdict.to_json()}
    if comparison.parts is not None:
        data["parts"] = [{**part.to_json(), "verdict": part.verdict.to_json()} for part in comparison.parts]
    return data


def comparison_steps(comparison: Comparison) -> list[Step]:
    """Use the faster config; where it is unclear which one that is, measure more rounds."""
    verdict, first, second = comparison.verdict, comparison.first, comparison.second
    other = [second] if comparison.python is None else ["--python", comparison.python]
    if verdict.word == "UNCLEAR":
        more = ["autotune", "compare", first, *other, "--rounds", str(2 * verdict.pairs)]
        return [(shlex.join(more), "twice as many rounds")]
    if comparison.python is not None:
        asked = verdict.word == "SLOWER" and comparison.parts is None and comparison.packages
        why = ["autotune", "compare", first, *other, "--bisect"]
        return [(shlex.join(why), "which packages run in the slower parts of a call")] if asked else []
    if verdict.word == "SAME":
        return []
    faster = second if verdict.word == "FASTER" else first
    return [(shlex.join(["autotune", "run", faster, "--prompt", "a prompt of yours", "-o", "out.png"]), "use it")]


def ablation_words(ablation: Ablation) -> str:
    """What each knob brings, then whether those that bring nothing were dropped."""
    width = max((len(knob.name) for knob in ablation.left_out), default=0)
    lines = [f"what each setting of trial {ablation.trial} brings, the others unchanged:"]
    for knob in ablation.left_out:
        verdict, saved = knob.verdict, knob.memory_saved_bytes
        if verdict is None or saved is None:
            lines.append(f"{knob.name:<{width}}  can't be left out: {knob.failure}")
            continue
        speed = f"{verdict.speedup - 1:+.1%} +-{(verdict.high - verdict.low) / 2:.1%} speed"
        memory = f"{words.memory(abs(saved))} {'less' if saved >= 0 else 'more'} memory"
        nothing = ": nothing beyond the noise" if knob.brings_nothing else ""
        lines.append(f"{knob.name:<{width}}  {speed}, {memory}{nothing}")
    return "\n".join([*lines, *([ablation.minimal.why] if ablation.minimal else [])])


def selftest_steps(pipeline: str) -> list[Step]:
    """Search the pipeline that was tested."""
    return [(shlex.join(["autotune", "search", "--pipeline", pipeline]), "find the best settings here")]


def selftest_data(test: SelfTest) -> dict[str, Any]:
    """The result of an A/A test as JSON."""
    derived = {"false_alarms": test.false_alarms, "smallest_speedup": test.smallest_speedup, "worst": test.worst}
    return {**test.to_json(), **derived}


def selftest_words(test: SelfTest) -> str:
    """How noisy this machine is, and how small a speedup it can show."""
    pairs, outliers = len(test.logs), test.judged_different
    smallest = f"{test.smallest_speedup - 1:.1%}" if test.smallest_speedup else "none up to 2x"
    lines = [
        f"{pairs} pairs of the same config on {test.device}: {test.workload}",
        f"the two processes of a pair differ by {test.typical:.1%} (median), by {test.worst:.1%} at worst",
        f"outliers: {len(outliers)} of {pairs} pairs",
        f"false alarms of a comparison of {ROUNDS} rounds: {test.false_alarms:.1%}",
        f"the smallest speedup that such a comparison shows with a power of {POWER:.0%}: {smallest}",
        f"processes whose calls differ by more than a tenth: {test.noisy} of {2 * pairs}",
    ]
    discarded = sum(test.disturbed.values())
    reasons = sorted(test.disturbed.items(), key=lambda pair: -pair[1])[:5]
    why = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    lines.append(f"calls discarded: {discarded} beside {test.calls} that count" + (f" ({why})" if why else ""))
    lines += [f"a pair is missing: {reason}" for reason in test.failed[:3]]
    return "\n".join(lines)
