"""Markdown: report.md, a study in short for a pull request or model card, and the Markdown of a merge."""

import json
import re

from autotune.report.merge import Merged
from autotune.report.page.measured import how_measured
from autotune.report.summary import Row, StudySummary, answer

COLUMNS = ("trial", "config", "latency", "speed", "memory", "quality")


def markdown(summary: StudySummary) -> str:
    """report.md: the answer, the pick, the front, the ablation, the failures, and how it was measured."""
    parts = [f"# autotune: {escaped(summary.title)}", f"**{escaped(answer(summary))}**"]
    if summary.tuned is not None:
        knobs = json.dumps({"knobs": summary.tuned.knobs}, indent=2)
        parts += [f"```json\n{knobs}\n```"]
    shown = {trial.number for trial in summary.front} | ({0} if summary.baseline else set())
    rows = sorted((row for row in summary.rows if row.number in shown), key=lambda row: row.latency_s or 0.0)
    if rows:
        head = [f"| {' | '.join(COLUMNS)} |", "|---|---|--:|--:|--:|---|"]
        parts += ["## The front", "\n".join([*head, *(_line(row) for row in rows)])]
    if summary.ablation and summary.ablation.left_out:
        parts += ["## What each knob of the pick brings", _ablation(summary)]
    if summary.failed:
        listed = [f"- trial {r.number}, {escaped(r.config)}: {r.outcome}: {escaped(r.reason)}" for r in summary.failed]
        listed += [f"- {escaped(one)}: no further trial has this value" for one in summary.failing_values]
        parts += [f"## {len(summary.failed)} of {len(summary.trials)} trials failed", "\n".join(listed)]
    told = [f"- {what}: {escaped(said)}" for what, said in how_measured(summary)]
    return "\n\n".join([*parts, "## How it was measured", "\n".join(told)]) + "\n"


def merged_markdown(merged: Merged) -> str:
    """Several studies side by side: their answers, then a table of techniques."""
    titles = [escaped(title) for title, *_ in merged.answers]
    told = [f"- {escaped(title)} ({escaped(workload)}): {escaped(said)}" for title, workload, said in merged.answers]
    lines = [f"| technique | {' | '.join(titles)} | published |", f"|{'---|' * (len(titles) + 2)}"]
    for line in merged.lines:
        cells = [(("alone", cell.alone), ("in the pick", cell.in_pick)) for cell in line.cells]
        said = ["; ".join(f"{how} {escaped(what)}" for how, what in cell if what) for cell in cells]
        lines.append(f"| {escaped(line.name)} | {' | '.join(said)} | {escaped('; '.join(line.published))} |")
    return "\n\n".join(["# autotune: studies side by side", "\n".join(told), "\n".join(lines)]) + "\n"


def _line(row: Row) -> str:
    number = f"{row.number}{' (pick)' if row.kind == 'pick' else ''}"
    cells = (number, row.config, row.latency, row.speed, row.memory, row.quality)
    return f"| {' | '.join(map(escaped, cells))} |"


def _ablation(summary: StudySummary) -> str:
    assert summary.ablation is not None
    lines = ["| knob | speed | memory |", "|---|--:|--:|"]
    for knob in summary.ablation.left_out:
        verdict, saved = knob.verdict, knob.memory_saved_bytes
        if verdict is None or saved is None:
            lines.append(f"| {escaped(knob.name)} | can't be left out: {escaped(knob.failure or '')} | |")
        else:
            half = (verdict.high - verdict.low) / 2
            speed, memory = f"{verdict.speedup - 1:+.1%} +-{half:.1%}", f"{-saved / 1e6:+.0f} MB"
            lines.append(f"| {escaped(knob.name)} | {speed} | {memory} |")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """The text on one line, with everything escaped that Markdown or HTML would read as markup."""
    flat = " ".join(text.split())
    plain = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", plain)
