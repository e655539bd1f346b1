"""Replays as they are shown."""

import json
from pathlib import Path

import pytest
from simulated import simulated

from autotune.recordings.parquet import write_table
from autotune.report.page.replay import by_seconds, by_trials, markdown, page, rows, write_replay
from autotune.research.replay.convergence import Convergence, Replayed
from autotune.research.replay.replay import heads, replay


def replayed() -> Replayed:
    curves = [
        Convergence(seed=0, found=(0, 0.5, 0.95), picks=(0.5, 0.96, 1), device_s=(60, 120, 180), faults=0),
        Convergence(seed=1, found=(0, 0.7, 0.92), picks=(0.5, 0.5, 0.94), device_s=(60, 90, 240), faults=1),
        Convergence(seed=2, found=(0, 0.6, 0.91), picks=(0.5, 0.7, 0.95), device_s=(60, 100, 300), faults=0),
    ]
    return Replayed(table="a.parquet", sampler="tpe", curves=tuple(curves))


def test_a_row_says_the_medians_in_their_order() -> None:
    assert rows([replayed()]) == [("tpe", "3", "never", *("0.920",) * 4, "3", "16.7%", "4.0", "5.0")]


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
