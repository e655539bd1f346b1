"""Replay: replayed searches as a table, as JSON, as Markdown and as a self-contained page."""

import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from autotune.frozen_model import write_json, write_text
from autotune.recordings.recording import Header
from autotune.report.page.page import packed_plotly, template
from autotune.research.replay.convergence import PICK, SHARES, Convergence, Replayed, marks_of

GRID = 200  # points of device time at which the curves are drawn


def write_replay(folder: Path, replayed: Sequence[Replayed], heads: Mapping[str, tuple[Header, int]]) -> None:
    """Write replay.json (every curve), replay.md (the table) and replay.html (the plots). Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: {"rows": rows, **header.to_json()} for name, (header, rows) in heads.items()}
    write_json(folder / "replay.json", {"tables": tables, "replayed": [one.to_json() for one in replayed]})
    write_text(folder / "replay.md", markdown(replayed, heads))
    write_text(folder / "replay.html", page(replayed, heads))


def columns(replayed: Sequence[Replayed]) -> tuple[str, ...]:
    """The headings of the rows of one recorded table."""
    return (
        "sampler",
        *(f"trials to {share:.0%}" for share in SHARES),
        *(f"at {trials}" for trials in marks_of(replayed)),
        "pick",
        "faults",
        "minutes to 90%",
        "to the pick",
    )


def rows(replayed: Sequence[Replayed]) -> list[tuple[str, ...]]:
    """One row a sampler, medians over the seeds."""
    marks = marks_of(replayed)
    return [
        (
            one.sampler,
            *(_count(one.median_trials_to(share)) for share in SHARES),
            *(f"{one.median_at(trials):.3f}" for trials in marks),
            _count(one.median_trials_to_pick()),
            f"{one.fault_share:.1%}",
            _minutes(one, [curve.trials_to(SHARES[0]) for curve in one.curves]),
            _minutes(one, [curve.trials_to_pick() for curve in one.curves]),
        )
        for one in replayed
    ]


def terminal_table(replayed: Sequence[Replayed]) -> Table:
    """The rows as a table for a terminal of 80 columns: headings take two lines where need be, and nothing is cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    first, *others = columns(replayed)
    table.add_column(first, no_wrap=True)
    for name in others:
        lines = textwrap.wrap(name, 7)
        table.add_column("\n".join(lines), justify="right", min_width=max(map(len, lines)))
    for row in rows(replayed):
        table.add_row(*row)
    return table


def _count(trials: float | None) -> str:
    return "never" if trials is None else f"{trials:g}"


def _minutes(one: Replayed, counts: Sequence[int | None]) -> str:
    """The device time of so many trials, median over the seeds; "never" where at least half of them are None."""
    pairs = zip(one.curves, counts, strict=True)
    median = statistics.median(curve.device_s[count - 1] if count else float("inf") for curve, count in pairs)
    return "never" if median == float("inf") else f"{median / 60:.1f}"


def about(name: str, header: Header, count: int) -> str:
    """A recorded table in a sentence."""
    target, allowed = header.target, header.allowed_configs
    part = "all" if header.is_whole else f"{count} of {allowed or 'uncounted'} allowed"
    return f"{Path(name).name}: {target.pipeline.name} on {target.device.name}, {target.calls}; {part} configs"


def markdown(replayed: Sequence[Replayed], heads: Mapping[str, tuple[Header, int]]) -> str:
    """replay.md: for each recorded table, the table of its samplers."""
    parts = ["# Searches replayed on recorded spaces", LEGEND]
    for name, (header, count) in heads.items():
        mine = [one for one in replayed if one.table == name]
        seeds = len(mine[0].curves) if mine else 0
        parts.append(f"## {about(name, header, count)}\n\n{seeds} seeds; versions {_versions(header)}")
        head = columns(mine)
        lines = [head, ("---", *("--:" for _ in head[1:])), *rows(mine)]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def _versions(header: Header) -> str:
    return ", ".join(f"{name} {version}" for name, version in header.target.versions.items())


LEGEND = (
    "Shares of the hypervolume of the table's true front, among the configs that keep the goal's limits: 0 is the "
    "baseline alone, 1 the true front. Medians over the seeds. The baseline and the recipes count as trials. Pick: the "
    f"trials until the fastest config found that keeps the limits has {PICK:.0%} of the speed of the fastest that "
    "there is. Faults: the share of all trials that failed by the config's fault. Minutes are of device time. "
    "Random is the least that a sampler must beat."
)


def page(replayed: Sequence[Replayed], heads: Mapping[str, tuple[Header, int]]) -> str:
    """The HTML of the replays."""
    sections = []
    for name, (header, count) in heads.items():
        mine = [one for one in replayed if one.table == name]
        drawn = {
            one.sampler: {
                "trials": by_trials(one.curves),
                "seconds": by_seconds(one.curves, lambda curve: curve.found),
                "picks": by_seconds(one.curves, lambda curve: curve.picks),
            }
            for one in mine
        }
        sections.append(
            {"title": about(name, header, count), "columns": columns(mine), "rows": rows(mine), "drawn": drawn}
        )
    html: str = template("replay.html.j2").render(
        sections=sections,
        legend=LEGEND,
        data=[section["drawn"] for section in sections],
        script=packed_plotly(),
    )
    return html


def by_trials(curves: Sequence[Convergence]) -> dict[str, list[Any]]:
    """The median and the quartiles after each trial."""
    places = range(1, max(len(curve.found) for curve in curves) + 1)
    return _band(list(places), [[curve.at(trials) for curve in curves] for trials in places])


def by_seconds(curves: Sequence[Convergence], of: Callable[[Convergence], Sequence[float]]) -> dict[str, list[Any]]:
    """The median and the quartiles along the device time, up to the end of the shortest search."""
    end = min(curve.device_s[-1] for curve in curves)
    places = [end * step / GRID for step in range(GRID + 1)]
    return _band(places, [[_after(curve.device_s, of(curve), seconds) for curve in curves] for seconds in places])


def _after(device_s: Sequence[float], values: Sequence[float], seconds: float) -> float:
    done = sum(1 for taken in device_s if taken <= seconds)
    return values[done - 1] if done else 0.0


def _band(places: list[Any], values: Sequence[Sequence[float]]) -> dict[str, list[Any]]:
    quartiles = [statistics.quantiles(list(some) * 2, n=4, method="inclusive") for some in values]
    names = ("low", "median", "high")
    return {"x": places} | {name: [four[i] for four in quartiles] for i, name in enumerate(names)}
