"""Replays as they are shown."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from simulated import simulated

from autotune.recordings.parquet import write_table
from autotune.report.page.replay import (
    by_seconds,
    by_trials,
    columns,
    markdown,
    page,
    rows,
    terminal_table,
    write_replay,
)
from autotune.research.replay.convergence import MARKS, Convergence, Replayed, marks_of
from autotune.research.replay.replay import heads, replay


def replayed() -> Replayed:
    curves = [
        Convergence(seed=0, found=(0, 0.5, 0.95), picks=(0.5, 0.96, 1), device_s=(60, 120, 180), faults=0),
        Convergence(seed=1, found=(0, 0.7, 0.92), picks=(0.5, 0.5, 0.94), device_s=(60, 90, 240), faults=1),
        Convergence(seed=2, found=(0, 0.6, 0.91), picks=(0.5, 0.7, 0.95), device_s=(60, 100, 300), faults=0),
    ]
    return Replayed(table="a.parquet", sampler="tpe", curves=tuple(curves))


def test_a_row_says_the_medians_in_their_order() -> None:
    assert rows([replayed()]) == [("tpe", "3", "never", "0.920", "3", "16.7%", "4.0", "5.0")]


def of_length(trials: int) -> Replayed:
    found = tuple(trial / trials for trial in range(trials))
    seconds = tuple(360.0 * (trial + 1) for trial in range(trials))
    curve = Convergence(seed=0, found=found, picks=found, device_s=seconds, faults=trials - 1)
    return Replayed(table="a.parquet", sampler="evolution", curves=(curve,))


@pytest.mark.parametrize(
    ("trials", "marks"), [(8, ["at 8"]), (40, ["at 10", "at 20", "at 40"]), (70, ["at 10", "at 20", "at 40", "at 70"])]
)
def test_no_share_is_shown_of_more_trials_than_were_run(trials: int, marks: list[str]) -> None:
    replayed = [of_length(trials)]
    assert [name for name in columns(replayed) if name.startswith("at ")] == marks
    assert len(rows(replayed)[0]) == len(columns(replayed))
    assert marks_of([of_length(300)]) == MARKS


@pytest.mark.parametrize("trials", [70, 300])
def test_nothing_is_cut_in_a_terminal_of_80_columns(trials: int) -> None:
    replayed = [of_length(trials)]
    console = Console(width=80, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(terminal_table(replayed))
    *head, row = capture.get().splitlines()
    assert row.split() == list(rows(replayed)[0])
    assert sorted(" ".join(head).split()) == sorted(" ".join(columns(replayed)).split())


def test_the_band_is_the_quartiles_around_the_median() -> None:
    band = by_trials(replayed().curves)
    assert band["x"] == [1, 2, 3]
    assert band["median"] == pytest.approx([0, 0.6, 0.92])
    assert all(
        low <= median <= high for low, median, high in zip(band["low"], band["median"], band["high"], strict=True)
    )
    along = by_seconds(replayed().curves, lambda curve: curve.found)
    assert along["x"][-1] == 180, "as far as the shortest went"
    assert along["median"][0] == 0
    assert along["median"][-1] == pytest.approx(0.7)
    assert by_seconds(replayed().curves, lambda curve: curve.picks)["median"][-1] == pytest.approx(0.7)


def test_the_files_say_what_was_replayed_and_of_what(tmp_path: Path) -> None:
    table = tmp_path / "<b>.parquet"
    write_table(simulated(0, rows=30), table)
    found = replay([table], samplers=("random",), seeds=3, budget=8)
    write_replay(tmp_path / "out", found, heads([table]))
    data = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert data["replayed"][0]["curves"][2]["found"] == list(found[0].curves[2].found)
    assert data["tables"][str(table)]["rows"] == 30
    made = (tmp_path / "out" / "replay.html").read_text()
    assert "&lt;b&gt;.parquet" in made
    assert "<b>.parquet" not in made
    assert "http://" not in made.replace("http://www.w3.org", "").split('id="plotly"')[0], "nothing is fetched"
    assert markdown(found, heads([table])) == (tmp_path / "out" / "replay.md").read_text()
    assert "| random |" in markdown(found, heads([table]))
    assert page(found, heads([table])).count('class="plot"') == 3
