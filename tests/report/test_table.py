"""autotune table: every format says the same, raw figures stay raw, and hostile words stay in their cell."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up import changed, failed, measured
from pyarrow import parquet
from studies import VALUES, study, usual

from autotune.errors import UserError
from autotune.measurement import HostMemory
from autotune.report.page.measured import how_measured
from autotune.report.summary import read_summary
from autotune.report.table import formatted, samples_rows, trials_rows, write_parquet


def test_there_is_one_row_a_trial_with_its_knobs_figures_quality_and_outcome(tmp_path: Path) -> None:
    rows = trials_rows(usual(tmp_path / "study").path)
    assert [row["trial"] for row in rows] == list(range(7))
    first, failure = rows[1], rows[5]
    assert (first["knob_dtype"], first["latency_s"], first["peak_memory_bytes"]) == ("bf16", 0.5, 80 * 2**20)
    assert first["speedup_low"] < first["speedup"] == 2.0 < first["speedup_high"]
    assert (first["quality_drop"], first["quality_drop_low"], first["pairs"]) == (0.0, 0.0, 2)
    assert (failure["outcome"], failure["reason"], failure["latency_s"]) == ("out_of_memory", "made up", None)
    assert [row["on_front"] for row in rows] == [False, True, True, True, False, False, False]
    assert [row["keeps_limits"] for row in rows[:4]] == [True, True, True, False]


def test_the_hosts_memory_is_in_the_table_and_in_the_report(tmp_path: Path) -> None:
    hosts = [HostMemory(peak_resident_bytes=2 * 10**9, peak_pinned_bytes=pinned) for pinned in (None, 3 * 10**9)]
    trials = [changed(measured(number, VALUES[number]), host=host) for number, host in enumerate(hosts)]
    folder = study(tmp_path / "study", [*trials, measured(2)]).path
    assert [row["host_memory_bytes"] for row in trials_rows(folder)] == [2 * 10**9, 5 * 10**9, None]
    line = dict(how_measured(read_summary(folder)))["host memory"]
    assert line == "a process took 2.00 GB to 5.00 GB at its peak; up to 3.00 GB of it pinned"


def test_csv_and_json_are_read_back_as_the_same_rows(tmp_path: Path) -> None:
    rows = trials_rows(usual(tmp_path / "study").path)
    assert json.loads(formatted(rows, "json")) == [dict(row) for row in rows]
    read = list(csv.DictReader(io.StringIO(formatted(rows, "csv"))))
    assert read == [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]


def test_tables_for_people_leave_out_what_says_the_same_of_every_trial(tmp_path: Path) -> None:
    text = formatted(trials_rows(usual(tmp_path / "study").path), "markdown")
    assert "knob_dtype" in text
    assert "knob_offload" not in text
    assert {line.count(" | ") for line in text.splitlines() if "---" not in line} == {text.splitlines()[0].count(" | ")}


def test_what_is_markup_in_a_reason_stays_text(tmp_path: Path) -> None:
    odd = failed(1, VALUES[0]).model_copy(update={"origin": "50% & a|b_c <b>\n\\end{tabular}"})
    rows = trials_rows(study(tmp_path / "study", [measured(0), odd]).path)
    latex, markdown = formatted(rows, "latex"), formatted(rows, "markdown")
    assert r"50\% \& a|b\_c <b> \textbackslash{}end\{tabular\}" in latex
    assert latex.count(r"\end{tabular}") == 1
    assert {line.count(" & ") for line in latex.splitlines() if line.endswith(r"\\")} == {
        latex.splitlines()[2].count(" & ")
    }
    assert r"50% & a\|b_c &lt;b> \end{tabular}" in markdown
    assert len(markdown.splitlines()) == 4


def test_every_timed_call_is_a_row_of_the_samples(tmp_path: Path) -> None:
    rows = samples_rows(usual(tmp_path / "study").path)
    assert len(rows) == 5 * (1 + 2 + 5), "five trials were measured, each with a first call, two to warm up, five timed"
    timed = [row for row in rows if row["number"] == 1 and row["phase"] == "timed"]
    assert [row["latency_s"] for row in timed] == [0.5] * 5


def test_a_study_without_trials_is_an_empty_table(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", [])
    assert json.loads(formatted(trials_rows(folder.path), "json")) == []
    for how in ("csv", "markdown", "latex"):
        assert formatted(trials_rows(folder.path), how)


def test_an_unknown_format_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'latex'"):
        formatted([], "latx")


@pytest.mark.parametrize("rows_of", [trials_rows, samples_rows])
def test_parquet_has_every_row_and_a_knob_whose_values_are_words_and_numbers(tmp_path: Path, rows_of: Any) -> None:
    rows, path = list(rows_of(usual(tmp_path / "study").path)), tmp_path / "table.parquet"
    if rows_of is trials_rows:
        rows = [{**row, "knob_steps": "workload" if row["trial"] == 0 else 8, "knob_tome_ratio": 0} for row in rows]
        rows[-1] = {**rows[-1], "knob_tome_ratio": 0.5}
    write_parquet(rows, path)
    read = parquet.read_table(path).to_pylist()
    assert len(read) == len(rows)
    if rows_of is trials_rows:
        assert {row["knob_steps"] for row in read} == {"workload", "8"}
        assert {row["knob_tome_ratio"] for row in read} == {0.0, 0.5}


def test_without_pyarrow_parquet_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'pyarrow>=21'"):
        write_parquet([], tmp_path / "table.parquet")
