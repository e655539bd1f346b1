"""A verification in words: what the file says, what was found, and what that means."""

import shlex

from autotune.report import words
from autotune.report.terminal.theme import Step
from autotune.tuning.verify import LARGER, Verification

MEANINGS = {
    "holds": "it does here what its file says",
    "faster": "faster here than its file says",
    "slower": "slower here than its file says",
    "larger": f"it needs more than {LARGER - 1:.0%} more memory here than its file says",
    "broken": "it does not do here what its file says",
}


def verification_words(seen: Verification) -> str:
    """A line for each thing that was looked at, the verdict last."""
    lines = [f"note: {remark}" for remark in seen.remarks]
    if seen.picture_differences:
        worst = max(seen.picture_differences)
        lines.append(f"pictures: {len(seen.picture_differences)} drawn again, {worst:.1f} of 255 levels off at worst")
    if seen.speed is not None:
        then, now = (" ".join(map(words.seconds, s)) for s in (seen.then_latency_s, seen.now_latency_s))
        lines.append(f"latency: {now}, in the file {then}")
        interval = f"95 % interval {seen.speed.low:.2f} to {seen.speed.high:.2f}"
        lines.append(f"{seen.speed.speedup:.2f}x the speed in the file ({interval}, {seen.speed.pairs} processes)")
    if seen.now_peak_memory_bytes is not None:
        memory = (words.memory(seen.now_peak_memory_bytes), words.memory(seen.then_peak_memory_bytes))
        lines.append(f"memory: {memory[0]}, in the file {memory[1]}")
    why = f": {seen.broken}" if seen.broken else ""
    return "\n".join([*lines, f"{seen.word}: {MEANINGS[seen.word]}{why}"])


def verification_steps(seen: Verification, pipeline: str) -> list[Step]:
    """Where it doesn't do what its file says: what does, here and now?"""
    if seen.word in ("holds", "faster"):
        return []
    return [(shlex.join(["autotune", "search", "--pipeline", pipeline]), "the best settings here, as things are now")]
