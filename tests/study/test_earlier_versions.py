"""A study of an earlier version (tests/data/study-2026-11-21, without pictures) is read, shown and exported."""

import json
import shutil
from pathlib import Path

import pytest

from autotune.knobs import complete, filled
from autotune.production.tuned_config import TunedConfig
from autotune.report.page.page import write_report
from autotune.report.summary import read_summary
from autotune.study.record import read_record, read_trials
from autotune.study_folder import StudyFolder
from autotune.tuning.export import export_from

EARLIER = Path(__file__).parents[1] / "data" / "study-2026-11-21"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EARLIER, tmp_path / "study"))


def test_it_has_knobs_that_are_newer_than_it_at_their_defaults(study: Path) -> None:
    written = json.loads((study / "study.json").read_text(encoding="utf-8"))["baseline"]
    assert written.keys() < complete({}).keys()
    assert read_record(StudyFolder(study)).baseline_config == complete(written)
    for trial in read_trials(StudyFolder(study)):
        assert trial.config == complete(trial.values)


def test_its_export_is_what_it_was(study: Path) -> None:
    best = TunedConfig.load(study / "best.json")
    again = export_from(study, "fastest")
    assert filled(again.knobs) == filled(best.knobs)
    assert (again.confirmation, again.tuned, again.baseline) == (best.confirmation, best.tuned, best.baseline)


def test_it_is_reported(study: Path) -> None:
    summary = read_summary(study)
    write_report(summary)
    assert [row.number for row in summary.rows] == list(range(8))
    assert "3.45x" in summary.folder.report.read_text(encoding="utf-8")
