"""autotune merge: every study's own baseline, what changed one setting alone, published figures of the same step."""

from pathlib import Path

import pytest
from made_up import measured
from studies import HOSTILE, VALUES, study, usual

from autotune.errors import UserError
from autotune.frozen_model import write_json
from autotune.report.markdown import merged_markdown
from autotune.report.merge import merge
from autotune.report.page.page import merged_page
from autotune.tuning.ablation import Ablation, LeftOut


def two(path: Path) -> list[Path]:
    first = study(
        path / "a", [measured(0), measured(1, VALUES[0], latency_s=0.5), measured(2, VALUES[4], latency_s=0.1)]
    )
    second = study(path / "b", [measured(0, latency_s=3.0), measured(1, VALUES[0], latency_s=1.0)])
    return [first.path, second.path]


def test_every_speedup_is_over_the_baseline_of_its_own_study(tmp_path: Path) -> None:
    merged = merge(two(tmp_path))
    line = next(line for line in merged.lines if line.name == "dtype=bf16")
    assert [cell.alone.split(" ")[0] for cell in line.cells] == ["2.00x", "3.00x"]


def test_a_config_that_changes_two_settings_says_nothing_of_either(tmp_path: Path) -> None:
    assert [line.name for line in merge(two(tmp_path)).lines] == ["dtype=bf16"]


def test_what_a_setting_brings_to_the_pick_comes_from_the_ablation(tmp_path: Path) -> None:
    paths = two(tmp_path)
    left = LeftOut(
        knobs={"qkv_fusion": True},
        put_back={"qkv_fusion": False},
        without_latency_s=(1.2, 1.2),
        pick_latency_s=(1.0, 1.0),
        without_peak_memory_bytes=(1, 1),
        pick_peak_memory_bytes=(1, 1),
    )
    made = Ablation(trial=2, values={}, rounds=2, created="today", left_out=(left,))
    write_json(paths[0] / "ablation.json", made.to_json())
    line = next(line for line in merge(paths).lines if line.name == "qkv_fusion=True")
    assert [cell.in_pick.split(" ")[0] for cell in line.cells] == ["1.20x", ""]


def test_the_published_figure_is_of_the_same_step(tmp_path: Path) -> None:
    line = next(line for line in merge(two(tmp_path)).lines if line.name == "dtype=bf16")
    assert [said for said in line.published if said.startswith("1.59x (sdxl-txt2img on A100 80GB 400W")], line.published


def test_what_is_within_the_noise_is_called_so(tmp_path: Path) -> None:
    folder = study(tmp_path / "a", [measured(0), measured(1, VALUES[1], latency_s=0.995)])
    assert merge([folder.path]).lines[0].cells[0].alone.startswith("~1x (0.9")


def test_the_page_and_its_markdown_escape_what_users_wrote(tmp_path: Path) -> None:
    path = two(tmp_path)[0] / "study.json"
    path.write_text(path.read_text().replace("a test's processor", HOSTILE))
    merged = merge([path.parent, usual(tmp_path / "usual").path])
    for made in (merged_page(merged), merged_markdown(merged)):
        assert "<script>alert" not in made
        assert "&lt;script&gt;alert" in made


def test_studies_of_one_device_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    titles = [title for title, *_ in merge(two(tmp_path)).answers]
    assert titles == ["demo on a test's processor (a)", "demo on a test's processor (b)"]


def test_a_study_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = two(tmp_path)[0]
    with pytest.raises(UserError, match="there twice"):
        merge([path, path])
