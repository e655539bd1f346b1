"""Page: report.html, the report of a study, and the page of merged studies.

Each page is self-contained. The script of the plots is compressed, so that the page stays small. Words of users and
pipelines are escaped: by jinja2 in the page, and by its tojson (`</`) in the data of the scripts.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from autotune.errors import UserError
from autotune.frozen_model import write_text
from autotune.knobs import all_knobs
from autotune.report import words
from autotune.report.markdown import markdown, merged_markdown
from autotune.report.merge import Merged
from autotune.report.page.gallery import FULL_SCALE, reels
from autotune.report.page.measured import how_measured, where_time_goes
from autotune.report.page.progress import progress
from autotune.report.summary import Row, StudySummary, answer, next_steps
from autotune.study.importance import importances
from autotune.tuning.ablation import LeftOut

UNITS = {"clip": "CLIP<br>points<br>lost", "likeness": "100 x<br>(1 - SSIM)", "": ""}  # of the colour bar
MOST_REELS = 8  # configs whose pictures are shown: the pick, and the fastest of the front


def write_report(summary: StudySummary) -> None:
    """Write report.html and report.md into the study's folder, whole or not at all. Raises OSError."""
    write_text(summary.folder.report, page(summary))
    write_text(summary.folder.report_markdown, markdown(summary))


def page(summary: StudySummary) -> str:
    """The HTML of the report."""
    html: str = template("page.html.j2").render(
        summary=summary,
        answer=answer(summary),
        rows=summary.rows,
        tuned_json=json.dumps(summary.tuned.to_json(), indent=2, ensure_ascii=False) if summary.tuned else None,
        changed=_changed(summary),
        reels=_reels(summary),
        full_scale=FULL_SCALE,
        ablation=[_ablation_row(knob) for knob in summary.ablation.left_out] if summary.ablation else [],
        importances=sorted(importances(summary.record, summary.trials).items(), key=lambda pair: -pair[1]),
        measured=how_measured(summary),
        phases=where_time_goes(summary),
        steps=next_steps(summary),
        data=_data(summary),
        script=packed_plotly() if summary.baseline else None,
        autotune_version=version("diffusers-autotune"),
    )
    return html


def merged_page(merged: Merged) -> str:
    """The HTML of several studies side by side."""
    html: str = template("merged.html.j2").render(merged=merged)
    return html


def write_merged(merged: Merged, path: Path) -> tuple[Path, Path]:
    """Write several studies as a page, and as Markdown beside it. Returns both paths. Raises UserError."""
    if path.suffix != ".html":
        raise UserError(f"-o {path}: the page is an .html.")
    short = path.with_suffix(".md")
    try:
        write_text(path, merged_page(merged))
        write_text(short, merged_markdown(merged))
    except OSError as error:
        raise UserError(f"{str(path)!r} can't be written: {error.strerror}.") from None
    return path, short


def template(name: str) -> Template:
    """A template of this folder. It escapes every value; a name that is not defined is an error."""
    loader = PackageLoader("autotune.report.page", ".")
    settings = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    settings.filters |= {"seconds": words.seconds, "memory": words.memory}
    return settings.get_template(name)


@cache
def packed_plotly() -> str:
    """plotly.js as gzip in base64, 2 MB instead of 5. A browser that can't unpack it shows all but the plots."""
    script = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(script, 9, mtime=0)).decode()


def _changed(summary: StudySummary) -> list[tuple[str, str, str]]:
    """(knob, the baseline's value, the pick's value) for each knob that the pick changes."""
    if summary.tuned is None:
        return []
    pick, baseline, knobs = summary.tuned.knobs, summary.tuned.baseline_knobs, all_knobs()
    before = {name: baseline.get(name, knobs[name].default) for name in pick if name in knobs}
    return [(name, str(before[name]), str(pick[name])) for name in sorted(before) if pick[name] != before[name]]


def _reels(summary: StudySummary) -> list[dict[str, Any]]:
    """The pictures of the baseline, of the pick and of the front, each with the row of its trial."""
    if summary.baseline is None:
        return []
    wanted = [trial.number for trial in ([summary.pick] if summary.pick else []) + list(summary.front)][:MOST_REELS]
    rows = {row.number: row for row in summary.rows}
    prompts = summary.record.target.workload.prompts
    drawn_by = {trial.number: trial.pictures_of for trial in summary.trials}
    found = reels(summary.folder, wanted, prompts, drawn_by)
    return [{"row": rows[reel.trial], "shots": reel.shots} for reel in found]


def _ablation_row(knob: LeftOut) -> dict[str, Any]:
    """A row of the ablation. `bar`: the length of its bar from 0 to 1, the speed that the knob brings; None: no bar."""
    verdict, saved = knob.verdict, knob.memory_saved_bytes
    if verdict is None or saved is None:
        return {
            "name": knob.name,
            "speed": f"can't be left out: {knob.failure}",
            "memory": "",
            "quality": "",
            "bar": None,
            "idle": False,
        }
    half = (verdict.high - verdict.low) / 2
    lost = f"{knob.gained.as_change} without it" if knob.gained else "not judged"
    return {
        "name": knob.name,
        "speed": f"{verdict.speedup - 1:+.1%} +-{half:.1%}",
        "memory": f"{'saves' if saved > 0 else 'costs'} {words.memory(abs(saved))}" if saved else "the same",
        "quality": lost,
        "bar": max(0.0, min(1.0, verdict.speedup - 1)),
        "idle": knob.brings_nothing,
    }


def _data(summary: StudySummary) -> dict[str, Any]:
    """The data of the plots, as page.js.j2 reads it."""
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
