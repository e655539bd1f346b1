"""compare(): two exported configs, interleaved, in real processes; bad input is refused before one starts."""

from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from made_up import measured, record

from autotune.errors import UserError
from autotune.report.terminal.trust import comparison_words
from autotune.statistics import interleaved
from autotune.tuning.compare import compare
from autotune.tuning.export import export


def exported(folder: Path, name: str, values: dict[str, Any], **target: Any) -> Path:
    """A config of the demo as if it had been found by a search."""
    path = folder / f"{name}.json"
    trial, baseline = measured(1, values), measured(0)
    made = export(record(make_target(**target)), trial, baseline, None)
    few = made.workload.model_copy(update={"steps": 4})
    made.model_copy(update={"workload": few}).save(path)
    return path


def test_a_config_of_half_the_steps_is_faster_and_its_pictures_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaved, "MOST_TIMES", 1)  # three pairs, however wide their interval
    full, half = exported(tmp_path, "full", {"steps": 20}), exported(tmp_path, "half", {"steps": 4})
    heard: list[tuple[int, str]] = []
    seen = compare(full, half, device="cpu", listen=lambda number, which: heard.append((number, which.name)))
    assert seen.verdict.word == "FASTER"
    assert seen.verdict.speedup > 1.5
    assert heard[:4] == [(1, "full.json"), (1, "half.json"), (2, "half.json"), (2, "full.json")]
    assert seen.ssim_mean < 1
    assert "FASTER: the second is faster" in comparison_words(seen)


def test_configs_for_different_things_are_refused(tmp_path: Path) -> None:
    one, other = exported(tmp_path, "one", {}), exported(tmp_path, "other", {}, batch=2)
    with pytest.raises(UserError, match=r"different things.*batch 1, not 2"):
        compare(one, other, device="cpu")


def test_a_file_that_is_no_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no config"):
        compare(tmp_path / "none.json", tmp_path / "none.json", device="cpu")


def test_a_single_round_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no interval"):
        compare(tmp_path / "a.json", tmp_path / "b.json", rounds=1)
