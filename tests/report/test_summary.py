"""What a report says of a study: every figure from the study's files, and a page for whatever state it is in."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import changed, failed, likeness, measured, shared, stopped
from studies import HOSTILE, VALUES, large, study, usual

from autotune.errors import UserError
from autotune.frozen_model import write_json
from autotune.goal import Goal
from autotune.production.tuned_config import BesideSingle, Confirmation, OnSecondCard
from autotune.report.markdown import escaped, markdown
from autotune.report.page.measured import how_measured
from autotune.report.page.page import page, write_report
from autotune.report.summary import answer, read_summary
from autotune.study.record import read_trials
from autotune.trial import Trial
from autotune.tuning.ablation import Ablation, LeftOut

ROOT = Path(__file__).parent.parent.parent


def test_the_answer_is_the_confirmed_speed_the_memory_and_the_quality(tmp_path: Path) -> None:
    said = answer(read_summary(usual(tmp_path / "study").path))
    assert said.startswith("1.99x the baseline's speed (95 % interval ")
    assert "3 interleaved rounds), 20% less memory, no detectable loss of quality" in said
    assert said.endswith("SSIM 0.850 to the baseline's pictures.")


def test_a_figure_of_one_process_is_said_to_be_one(tmp_path: Path) -> None:
    folder = study(tmp_path, [measured(0), measured(1, VALUES[0], latency_s=0.5)], best=1)
    assert "2.00x the baseline's speed in one process each (not confirmed)" in answer(read_summary(folder.path))


def test_a_difference_within_the_noise_is_not_called_faster(tmp_path: Path) -> None:
    noisy = Confirmation(baseline_latency_s=(1.0, 1.2, 0.9), tuned_latency_s=(0.9, 1.1, 1.0))
    folder = study(tmp_path, [measured(0), measured(1, VALUES[0], latency_s=0.9)], best=1, confirmation=noisy)
    assert answer(read_summary(folder.path)).startswith("The baseline's speed, no difference beyond the noise")


def test_a_detectable_loss_is_said_with_its_interval(tmp_path: Path) -> None:
    from autotune.production.tuned_config import ConfirmedQuality
    from autotune.statistics.paired import paired

    lost = ConfirmedQuality(
        metric="clip", drop=paired([0.2, 0.3, 0.25, 0.22] * 8), prompts=32, ssim_mean=0.9, ssim_worst=0.8
    )
    seen = Confirmation(baseline_latency_s=(1.0,) * 3, tuned_latency_s=(0.5,) * 3, quality=lost)
    folder = study(tmp_path, [measured(0), measured(1, VALUES[0], latency_s=0.5)], best=1, confirmation=seen)
    assert re.search(r"CLIP score -0\.24 \(-0\.2\d to -0\.2\d\) over 32 pairs", answer(read_summary(folder.path)))


def test_likeness_is_never_sold_as_quality(tmp_path: Path) -> None:
    trials = [measured(0, judged=likeness(1.0)), measured(1, VALUES[0], latency_s=0.5, judged=likeness(0.97))]
    folder = study(tmp_path, trials, best=1, goal=Goal(max_quality_drop=10.0))
    said = answer(read_summary(folder.path))
    assert "SSIM 0.970 to the baseline's pictures (their quality was not judged)" in said
    assert "CLIP" not in said


def test_every_trial_has_a_row_with_its_kind_and_its_reason(tmp_path: Path) -> None:
    folder = usual(tmp_path / "study")
    (folder.trial(5) / "log.txt").write_text("out of memory")
    rows = read_summary(folder.path).rows
    kinds = ["baseline", "pick", "front", "over the limits", "recipe", "failed", "failed"]
    assert [row.kind for row in rows] == kinds
    assert (rows[5].outcome, rows[5].reason, rows[5].log) == ("out_of_memory", "made up", "trials/0005/log.txt")
    assert rows[6].log is None
    assert [row.config for row in rows[:2]] == ["baseline", "dtype=bf16"]


def states(path: Path) -> dict[str, Path]:
    """Studies that have less than one would like."""
    Goal(max_quality_drop=1, max_latency_s=0.1)
    return {
        "no trial": study(path / "none", []).path,
        "one trial": study(path / "one", [measured(0)], best=0).path,
        "the baseline failed": study(path / "failed", [failed(0, cause="crash"), failed(1, VALUES[0])]).path,
        "all others failed": study(path / "others", [measured(0), failed(1, VALUES[0]), failed(2, VALUES[1])]).path,
        "no pictures": study(path / "bare", [measured(0), measured(1, VALUES[0])], pictures=False).path,
        "nothing keeps the limits": study(
            path / "limits", [measured(0)], goal=Goal(max_quality_drop=1, max_latency_s=0.1)
        ).path,
    }


STATES = (
    "no trial",
    "one trial",
    "the baseline failed",
    "all others failed",
    "no pictures",
    "nothing keeps the limits",
)


@pytest.mark.parametrize("state", STATES)
def test_there_is_a_page_for_every_state(tmp_path: Path, state: str) -> None:
    summary = read_summary(states(tmp_path)[state])
    made = page(summary)
    assert answer(summary).endswith((".", "?"))
    assert made.count("<tr id=") == len(summary.trials)
    assert "None" not in re.sub(r"<script.*?</script>", "", made, flags=re.S)
    assert markdown(summary)


def test_a_study_that_goes_on_has_a_report_without_best_json(tmp_path: Path) -> None:
    folder = study(tmp_path, [measured(0), measured(1, VALUES[0], latency_s=0.5)])
    summary = read_summary(folder.path)
    assert summary.pick is not None
    assert summary.pick.number == 1
    assert "autotune run" not in page(summary), "there is no best.json to run yet"


def test_words_of_users_are_text_in_the_page_and_in_the_markdown(tmp_path: Path) -> None:
    worse = f'{HOSTILE}"><img src=x onerror=alert(2)> `[a](javascript:alert(3))` | </script>'
    trials = [measured(0), measured(1, VALUES[0], latency_s=0.5, origin=worse), failed(2, VALUES[1])]
    folder = study(tmp_path, trials, best=1, prompts=(worse, "b"))
    path = folder.trial(2) / "trial.json"
    data = json.loads(path.read_text())
    data["outcome"]["reason"] = worse
    write_json(path, data)
    summary = read_summary(folder.path)
    made, short = page(summary), markdown(summary)
    assert len(re.findall(r"<script", made)) == 3
    assert len(re.findall(r"</script", made)) == 3
    assert "<img src=x" not in made
    assert "&lt;script&gt;alert(1)" in made
    assert "<" not in short.replace("```json", "").split("## The front")[1]


def test_markdown_escapes_what_is_markup() -> None:
    assert escaped("a|b *c* `d` <e>\nf") == r"a\|b \*c\* \`d\` &lt;e&gt; f"


def test_the_page_asks_the_network_for_nothing_and_stays_small(tmp_path: Path) -> None:
    folder = large(tmp_path / "study")
    write_report(read_summary(folder.path))
    made = folder.report.read_text(encoding="utf-8")
    assert len(made.encode()) < 5_000_000
    assert made.count("<tr id=") == 500
    plain = re.sub(r'<script id="plotly".*?</script>', "", made, flags=re.S)
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|@import|url\(""", plain)


def test_the_report_of_the_study_that_ships_says_what_its_files_say() -> None:
    folder = ROOT / "reports" / "demo-cpu"
    summary = read_summary(folder)
    assert [row.number for row in summary.rows] == [trial.number for trial in read_trials(summary.folder)]
    made = page(summary)
    assert answer(summary).split(",")[0].replace("'", "&#39;") in made
    pictures = sum(len(uri) for uri in re.findall(r"data:image/[^\"]+", made))
    assert len(made) - pictures < 5_000_000


def test_what_each_setting_brought_is_in_the_page_and_in_the_markdown(tmp_path: Path) -> None:
    folder = usual(tmp_path / "study")
    assert "Not measured yet." in page(read_summary(folder.path))
    figures = {
        "pick_latency_s": (1.0, 1.0),
        "pick_peak_memory_bytes": (10**8, 10**8),
        "without_peak_memory_bytes": (10**8, 10**8),
    }
    left = (
        LeftOut(knobs={"dtype": "bf16"}, put_back={"dtype": "fp32"}, without_latency_s=(1.5, 1.5), **figures),
        LeftOut(knobs={"qkv_fusion": True}, put_back={"qkv_fusion": False}, without_latency_s=(1.0, 1.0), **figures),
        LeftOut(knobs={"compile": "off"}, put_back={}, failure="clash: <b>no</b>"),
    )
    write_json(folder.ablation, Ablation(trial=1, values={}, rounds=2, created="today", left_out=left).to_json())
    summary = read_summary(folder.path)
    made, short = page(summary), markdown(summary)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in made.splitlines() if "dtype=bf16</td>" in line]
    assert cells[0][:2] == ["dtype=bf16", "+50.0% +-2.9%"]
    assert made.count("brings nothing beyond the noise") == 1
    assert "can&#39;t be left out: clash: &lt;b&gt;no&lt;/b&gt;" in made
    assert "| dtype=bf16 | +50.0% +-2.9% | +0 MB |" in short


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a study folder"):
        read_summary(tmp_path)


def test_a_report_says_how_the_processes_were_started(tmp_path: Path) -> None:
    def trial(number: int, how: str | None) -> Trial:
        made = measured(number, VALUES[number])
        return made.model_copy(update={"outcome": made.outcome.model_copy(update={"isolation": how})})

    def said(name: str, *how: str | None) -> str | None:
        folder = study(tmp_path / name, [trial(number, one) for number, one in enumerate(how)])
        return dict(how_measured(read_summary(folder.path))).get("processes")

    assert said("old", None, None) is None
    alike, mixed = said("alike", "fork", "fork"), said("mixed", "fork", "fork", "spawn")
    assert (
        alike == "each trial in a process of its own: forked off one that had loaded the libraries (--isolation spawn)"
    )
    assert mixed is not None
    assert "forked off one that had loaded the libraries (2 trials), an interpreter of its own (1 trials)" in mixed


def test_pictures_of_a_batch_beside_single_ones_are_a_line_of_the_report(tmp_path: Path) -> None:
    folder = study(tmp_path, [measured(0), measured(1, VALUES[1], latency_s=0.5)], best=1)
    summary = read_summary(folder.path)
    assert summary.tuned is not None
    assert "batch" not in dict(how_measured(summary)), "of a batch of 1, or without a confirmation, nothing is said"

    def said(beside: BesideSingle) -> str:
        again = Confirmation(baseline_latency_s=(1.0,), tuned_latency_s=(0.5,), beside_single=beside)
        tuned = summary.tuned.model_copy(update={"confirmation": again})
        return dict(how_measured(replace(summary, tuned=tuned)))["batch"]

    line = said(BesideSingle(batch=4, pictures=8, equal=6, ssim_mean=0.99912, ssim_worst=0.9971))
    assert "batch 4 beside those of batch 1, same prompts and seeds: SSIM 0.9991 (worst 0.9971), 6 of 8 equal" in line
    assert said(BesideSingle(batch=4, fault="it is too large")).endswith("those of batch 1: it is too large")


def test_a_second_card_is_a_line_of_the_report_also_where_it_was_lost(tmp_path: Path) -> None:
    summary = read_summary(study(tmp_path, [measured(0), measured(1, VALUES[1], latency_s=0.5)], best=1).path)
    assert summary.tuned is not None

    def said(second: OnSecondCard | None) -> str | None:
        again = Confirmation(baseline_latency_s=(1.0,), tuned_latency_s=(0.5,), second_card=second)
        tuned = summary.tuned.model_copy(update={"confirmation": again})
        return dict(how_measured(replace(summary, tuned=tuned))).get("second card")

    assert said(None) is None
    both = said(OnSecondCard(card="b/gpu-0", baseline_latency_s=(1.0, 1.0), tuned_latency_s=(0.5, 0.5)))
    assert both is not None
    assert both.startswith("b/gpu-0: 2.00x the baseline's speed")
    alone = "the pick is confirmed on one card alone"
    assert said(OnSecondCard(card="b/gpu-0", fault="its node died.")) == f"{alone}; b/gpu-0: its node died."
    assert said(OnSecondCard(card=None, fault="no card is left.")) == f"{alone}; on a second one: no card is left."


def test_a_candidate_that_was_not_confirmed_is_a_line_of_the_report(tmp_path: Path) -> None:
    folder = study(tmp_path, [measured(0), measured(1, VALUES[1], latency_s=0.5)], best=0)
    assert "not confirmed" not in dict(how_measured(read_summary(folder.path)))
    folder.not_confirmed(1).parent.mkdir(parents=True)
    folder.not_confirmed(1).write_text("a call takes 0.9 s, more than the limit of 0.85 s\n")
    said = dict(how_measured(read_summary(folder.path)))["not confirmed"]
    assert said == "trial 1: a call takes 0.9 s, more than the limit of 0.85 s"


def test_what_a_trial_has_reused_and_a_mismatch_are_said(tmp_path: Path) -> None:
    from autotune.reuse import SpotCheck

    check = SpotCheck(trial=0, prompt=0, suspects={"qkv_fusion": True}, ssim=0.5, psnr_db=20.0, largest_levels=99)
    trials = [
        measured(0),
        shared(1, 0, VALUES[2]),
        stopped(2, VALUES[0], latency_s=3.0),
        changed(measured(3, VALUES[1]), spot_check=check),
    ]
    summary = read_summary(study(tmp_path, trials, best=0).path)
    rows = summary.rows
    assert [row.kind for row in rows] == ["baseline", "front", "stopped", "front"]
    assert rows[1].reason == "pictures as trial 0's (one compared, SSIM 0.999)"
    assert (rows[2].reason, rows[2].quality, rows[2].loss) == ("stopped: can't reach the front", "not judged", None)
    assert rows[2].speed == "0.33x"
    said = dict(how_measured(summary))
    assert said["mismatches"] == "qkv_fusion=True changed the picture here: SSIM 0.500, PSNR 20.0 dB to trial 0's"
    assert said["pictures"].startswith(
        "1 trial drew one alone, equal to that of an earlier trial, and reused its quality"
    )
    assert "1 trial drew none" in said["pictures"]
    assert "can&#39;t reach the front" in page(summary)
