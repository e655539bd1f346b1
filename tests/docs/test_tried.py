"""Where a knob has run is what the reports say, and a docstring claims no GPU that no report has seen."""

import json
from pathlib import Path

import pytest

from autotune.knobs import all_knobs
from tools.docs.knobs import _file
from tools.docs.tried import GPU, sentence, tried, where

MARK = "ot yet seen on a gpu"
NEED_A_GPU = ("cudnn_benchmark", "fp16_accumulation", "reduced_sums", "tunable_op", "inductor_flags")


def report(folder: Path, kind: str, **singles: str) -> None:
    verdicts = {name.replace("__", "="): {"outcome": outcome} for name, outcome in singles.items()}
    data = {"device": {"kind": kind}, "pipelines": {"sd": {"singles": verdicts}}}
    (folder / f"compat-{kind}.json").write_text(json.dumps(data))


def test_a_value_that_worked_somewhere_is_said_to_have_run_there(tmp_path: Path) -> None:
    report(tmp_path, "cpu", compile__regional="fine", compile__denoiser="failed", tf32__high="impossible")
    assert where("compile", tmp_path) == "a CPU"
    assert where("tf32", tmp_path) == "not yet"
    assert sentence("compile", tmp_path).endswith("on a CPU: `regional`; on a GPU: none yet")
    report(tmp_path, "cuda", compile__regional="fine", tf32__high="fine")
    assert where("compile", tmp_path) == "a CPU and a GPU"
    assert tried("tf32", tmp_path)[GPU] == ["high"]


@pytest.mark.parametrize("name", NEED_A_GPU)
def test_a_knob_says_that_no_gpu_has_seen_it_until_one_has(name: str) -> None:
    assert name in all_knobs()
    text = " ".join(_file(all_knobs()[name]).read_text(encoding="utf-8").lower().split())
    assert (MARK in text) == (not tried(name)[GPU])
