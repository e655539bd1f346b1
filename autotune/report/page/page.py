"""report.html: one page that needs nothing but itself. The plots' script is packed, so that the page stays small.

Whatever a user or a pipeline has said is text: jinja2 escapes it in the page, and `</` in the data of the scripts.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from autotune.frozen_model import write_text
from autotune.knobs import all_knobs
from autotune.report import words
from autotune.report.markdown import markdown
from autotune.report.merge import Merged
from autotune.report.page.gallery import FULL_SCALE, reels
from autotune.report.page.measured import how_measured, where_time_goes
from autotune.report.page.progress import progress
from autotune.report.summary import Row, StudySummary, answer, next_steps
from autotune.study.importance import importances
from autotune.tuning.ablation import LeftOut

UNITS = {"clip": "CLIP<br>points<br>lost", "likeness": "100 x<br>(1 - SSIM)", "": ""}  # of the colours
MOST_REELS = 8  # configs in the contact sheet: the pick, and the fastest of the front


def write_report(summary: StudySummary) -> None:
    """Write report.html and report.md into the study's folder, whole or not at all. Raises OSError."""
    write_text(summary.folder.report, page(summary))
    write_text(summary.folder.report_markdown, markdown(summary))


def page(summary: StudySummary) -> str:
    """The whole page."""
    made: str = template("page.html.j2").render(
        summary=summary,
        answer=answer(summary),
        rows=summary.rows,
        tuned_json=json.dumps(summary.tuned.to_json(), indent=2, ensure_ascii=False) if summary.tuned else None,
        changed=_changed(summary),
        reels=_reels(summary),
        full_scale=FULL_SCALE,
        ablation=[_left_out(one) for one in summary.ablation.left_out] if summary.ablation else [],
        importances=sorted(importances(summary.record, summary.trials).items(), key=lambda pair: -pair[1]),
        measured=how_measured(summary),
        phases=where_time_goes(summary),
        steps=next_steps(summary),
        data=_data(summary),
        script=packed_plotly() if summary.baseline else None,
        autotune_version=version("diffusers-autotune"),
    )
    return made


def merged_page(merged: Merged) -> str:
    """The page of several studies."""
    made: str = template("merged.html.j2").render(merged=merged)
    return made


def template(name: str) -> Any:
    """Everything that is put into a template is escaped, and a name that is not there is an error."""
    loader = PackageLoader("autotune.report.page", ".")
    settings = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    settings.filters |= {"seconds": words.seconds, "memory": words.memory}
    return settings.get_template(name)


@cache
def packed_plotly() -> str:
    """plotly.js as gzip in base64: 2 of its 5 MB. The browser unpacks it; all but the plots works without."""
    script = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(script, 9, mtime=0)).decode()


def _changed(summary: StudySummary) -> list[tuple[str, str, str]]:
    """(knob, the baseline's value, the pick's) of what the pick changes."""
    if summary.tuned is None:
        return []
    mine, theirs, knobs = summary.tuned.knobs, summary.tuned.baseline_knobs, all_knobs()
    before = {name: theirs.get(name, knobs[name].default) for name in mine if name in knobs}
    return [(name, str(before[name]), str(mine[name])) for name in sorted(before) if mine[name] != before[name]]


def _reels(summary: StudySummary) -> list[dict[str, Any]]:
    """The contact sheet: the baseline's row, the pick's, those of the front."""
    if summary.baseline is None:
        return []
    wanted = [trial.number for trial in ([summary.pick] if summary.pick else []) + list(summary.front)][:MOST_REELS]
    rows = {row.number: row for row in summary.rows}
    prompts = summary.record.target.workload.prompts
    drawn_by = {trial.number: trial.pictures_of for trial in summary.trials}
    found = reels(summary.folder, wanted, prompts, drawn_by)
    return [{"row": rows[reel.trial], "shots": reel.shots} for reel in found]


def _left_out(one: LeftOut) -> dict[str, Any]:
    """A line of the ablation in words, with the bar's length: the share of the pick's speed that is the knob's."""
    verdict, saved = one.verdict, one.memory_saved_bytes
    if verdict is None or saved is None:
        return {
            "name": one.name,
            "speed": f"can't be left out: {one.failure}",
            "memory": "",
            "quality": "",
            "bar": None,
            "idle": False,
        }
    half = (verdict.high - verdict.low) / 2
    lost = f"{one.gained.as_change} without it" if one.gained else "not judged"
    return {
        "name": one.name,
        "speed": f"{verdict.speedup - 1:+.1%} +-{half:.1%}",
        "memory": f"{'saves' if saved > 0 else 'costs'} {words.memory(abs(saved))}" if saved else "the same",
        "quality": lost,
        "bar": max(0.0, min(1.0, verdict.speedup - 1)),
        "idle": one.brings_nothing,
    }


def _data(summary: StudySummary) -> dict[str, Any]:
    """What the plots are drawn from."""
    goal = summary.record.goal
    steps = [asdict(step) for step in progress(summary.trials, summary.anchors, goal)]
    return {
        "points": [_point(row) for row in summary.rows if row.kind != "failed"],
        "failed": [{"number": row.number, "cause": row.outcome, "config": row.config} for row in summary.failed],
        "front": [trial.number for trial in summary.front],
        "progress": steps,
        "limits": {"latency_s": goal.max_latency_s, "memory_bytes": goal.max_vram_bytes},
        "unit": UNITS[_metric(summary)],
        "worst": max([goal.max_quality_drop, *(row.loss for row in summary.rows if row.loss is not None)]),
    }


def _metric(summary: StudySummary) -> str:
    quality = summary.baseline.measured.quality if summary.baseline and summary.baseline.measured else None
    return quality.metric if quality else ""


def _point(row: Row) -> Mapping[str, Any]:
    shown = ("number", "kind", "origin", "config", "speed", "quality", "latency", "memory")
    return {name: getattr(row, name) for name in shown} | {
        "latency_s": row.latency_s,
        "memory_bytes": row.memory_bytes,
        "loss": row.loss,
    }
