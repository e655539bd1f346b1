"""Verify: the result of a verification, in words and as JSON."""

import shlex
from typing import Any

from autotune.report import words
from autotune.report.terminal.theme import Step
from autotune.tuning.verify import LARGER, Verification

MEANINGS = {
    "holds": "it keeps the figures in its file",
    "faster": "faster here than its file says",
    "slower": "slower here than its file says",
    "larger": f"it needs more than {LARGER:.0%} more memory here than its file says",
    "broken": "it does not work here as its file says",
}


def verification_words(result: Verification) -> str:
    """A line for each thing that was compared, the verdict last."""
    lines = [f"note: {remark}" for remark in result.remarks]
    if result.picture_differences:
        worst = max(result.picture_differences)
        count = len(result.picture_differences)
        lines.append(f"pictures: {count} drawn again, at worst {worst:.1f} of 255 levels off")
    if result.speed is not None:
        then, now = (" ".join(map(words.seconds, s)) for s in (result.then_latency_s, result.now_latency_s))
        lines.append(f"latency: {now}, in the file {then}")
        interval = f"95 % interval {result.speed.low:.2f} to {result.speed.high:.2f}"
        lines.append(f"{result.speed.speedup:.2f}x the speed in the file ({interval}, {result.speed.pairs} processes)")
    if result.now_peak_memory_bytes is not None:
        memory = (words.memory(result.now_peak_memory_bytes), words.memory(result.then_peak_memory_bytes))
        lines.append(f"memory: {memory[0]}, in the file {memory[1]}")
    why = f": {result.broken}" if result.broken else ""
    return "\n".join([*lines, f"{result.word}: {MEANINGS[result.word]}{why}"])


def verification_data(result: Verification) -> dict[str, Any]:
    """The same as JSON."""
    speed = result.speed.to_json() if result.speed else None
    return {**result.to_json(), "verdict": result.word, "speed": speed}


def verification_steps(result: Verification, pipeline: str) -> list[Step]:
    """Where the config does not keep its figures: search again, on this machine."""
    if result.word in ("holds", "faster"):
        return []
    return [(shlex.join(["autotune", "search", "--pipeline", pipeline]), "the best settings here, as things are now")]
