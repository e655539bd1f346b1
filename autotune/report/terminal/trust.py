"""A comparison of two configs, an ablation, and the A/A test of a machine, as people read them."""

import shlex

from autotune.report import words
from autotune.report.terminal.theme import Step
from autotune.tuning.ablation import Ablation
from autotune.tuning.compare import Comparison
from autotune.tuning.selftest import POWER, ROUNDS, SelfTest

VERDICTS = {
    "FASTER": "the second is faster",
    "SLOWER": "the second is slower",
    "SAME": "as fast as each other",
    "UNCLEAR": "can't be told apart here: give more --rounds, or a quieter machine",
}


def comparison_words(seen: Comparison) -> str:
    """Both configs, then the verdict with its interval."""
    verdict = seen.verdict
    sides = [
        (seen.first, seen.first_latency_s, seen.first_peak_memory_bytes),
        (seen.second, seen.second_latency_s, seen.second_peak_memory_bytes),
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
        f"interleaved rounds on {seen.device})"
    )
    lost = "" if seen.metric == "likeness" else f"CLIP score {seen.drop.as_change}, "
    lines.append(f"the second's pictures: {lost}SSIM {seen.ssim_mean:.3f} (worst {seen.ssim_worst:.3f}) to the first's")
    return "\n".join(lines)


def comparison_steps(seen: Comparison) -> list[Step]:
    """To use the faster one, or to look closer."""
    if seen.verdict.word == "UNCLEAR":
        more = ["autotune", "compare", seen.first, seen.second, "--rounds", str(2 * seen.verdict.pairs)]
        return [(shlex.join(more), "twice as many rounds")]
    if seen.verdict.word == "SAME":
        return []
    faster = seen.second if seen.verdict.word == "FASTER" else seen.first
    return [(shlex.join(["autotune", "run", faster, "--prompt", "a prompt of yours", "-o", "out.png"]), "use it")]


def ablation_words(made: Ablation) -> str:
    """What each knob brought, then what became of those that brought nothing."""
    width = max((len(one.name) for one in made.left_out), default=0)
    lines = [f"what each setting of trial {made.trial} brings, the others as they are:"]
    for one in made.left_out:
        verdict, saved = one.verdict, one.memory_saved_bytes
        if verdict is None or saved is None:
            lines.append(f"{one.name:<{width}}  can't be left out: {one.failure}")
            continue
        speed = f"{verdict.speedup - 1:+.1%} +-{(verdict.high - verdict.low) / 2:.1%} speed"
        memory = f"{words.memory(abs(saved))} {'less' if saved >= 0 else 'more'} memory"
        nothing = ": nothing beyond the noise" if one.brings_nothing else ""
        lines.append(f"{one.name:<{width}}  {speed}, {memory}{nothing}")
    return "\n".join([*lines, *([made.minimal.why] if made.minimal else [])])


def selftest_steps(pipeline: str) -> list[Step]:
    return [(shlex.join(["autotune", "search", "--pipeline", pipeline]), "find the best settings here")]


def selftest_words(seen: SelfTest) -> str:
    """How far this machine can be trusted today."""
    pairs, different = len(seen.logs), seen.judged_different
    smallest = f"{seen.smallest_speedup - 1:.1%}" if seen.smallest_speedup else "none up to 2x"
    lines = [
        f"{pairs} pairs of the same config on {seen.device}: {seen.workload}",
        f"two processes differ by {seen.typical:.1%} (the median pair), by {seen.worst:.1%} at worst",
        f"pairs that stand out from the others: {len(different)} of {pairs}",
        f"a comparison of {ROUNDS} rounds would call equals different in {seen.false_alarms:.1%} of the cases",
        f"the smallest speedup that it sees in {POWER:.0%} of the cases: {smallest}",
        f"processes whose calls differ by more than a tenth: {seen.noisy} of {2 * pairs}",
    ]
    thrown = sum(seen.disturbed.values())
    why = "; ".join(f"{count} x {reason}" for reason, count in sorted(seen.disturbed.items(), key=lambda x: -x[1])[:5])
    lines.append(f"calls thrown away: {thrown} beside {seen.calls} that count" + (f" ({why})" if why else ""))
    lines += [f"a pair is missing: {reason}" for reason in seen.failed[:3]]
    return "\n".join(lines)
