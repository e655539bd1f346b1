"""A child lives within the memory that is free, goes first where that is wrong, and tells what it took."""

import resource
from pathlib import Path
from typing import Any

import pytest
from conftest import make_target
from scripted import run_script

from autotune.job import DrawJob, MeasureJob, ScoreJob
from autotune.pipelines import locate
from autotune.trial import Failure
from autotune.worker import host
from tests.worker.test_cuda_answers import CARD

SCORE = ScoreJob(images="", baseline="", prompts=("a",), scorer=None)
GIB = 2**30


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, int]]:
    """The limits that would be set on a machine with 8 GiB free, by a process that holds 1 GiB."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(host, "free_bytes", lambda: 8 * GIB)
    monkeypatch.setattr(host, "status_bytes", lambda field: GIB)
    monkeypatch.setattr(host, "THREAD_BYTES", 0)
    monkeypatch.setattr(host, "Path", lambda name: tmp_path / "score")
    monkeypatch.setattr(resource, "setrlimit", lambda which, limit: found.append(limit))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (-1, resource.RLIM_INFINITY))
    return found


def test_a_process_may_take_what_is_free_and_goes_first(limits: list[Any], tmp_path: Path) -> None:
    (tmp_path / "score").write_text("0")
    host.live_within(SCORE)
    assert limits == [(9 * GIB, 9 * GIB)]
    assert (tmp_path / "score").read_text() == "1000"


def test_weight_files_count_but_take_no_memory(
    limits: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unet").mkdir()
    with (tmp_path / "unet" / "model.safetensors").open("wb") as file:
        file.truncate(3 * GIB)
    score = tmp_path / "score"
    monkeypatch.setattr(host, "Path", lambda name: score if "oom" in str(name) else Path(name))
    target, alone = make_target(), tmp_path / "alone.ckpt"
    with alone.open("wb") as file:
        file.truncate(GIB)
    one_file = target.pipeline.model_copy(update={"source": str(alone)})
    (tmp_path / "control").mkdir()
    with (tmp_path / "control" / "net.safetensors").open("wb") as file:
        file.truncate(2 * GIB)
    controlled = target.pipeline.model_copy(update={"controlnet": str(tmp_path / "control")})
    monkeypatch.setattr(locate, "folder_of", lambda pipeline, **_: tmp_path / "unet")
    for pipeline in (target.pipeline, one_file, controlled):
        host.live_within(DrawJob(target=target.model_copy(update={"pipeline": pipeline}), values={}))
    assert limits == [(12 * GIB, 12 * GIB), (13 * GIB, 13 * GIB), (14 * GIB, 14 * GIB)]


def test_a_limit_of_the_user_is_never_raised(limits: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2 * GIB, 4 * GIB))
    host.live_within(SCORE)
    assert limits == [(4 * GIB, 4 * GIB)]


@pytest.mark.parametrize("unknown", ["free_bytes", "status_bytes"])
def test_without_the_kernels_figures_there_is_no_limit(
    limits: list[Any], monkeypatch: pytest.MonkeyPatch, unknown: str
) -> None:
    monkeypatch.setattr(host, unknown, lambda *_: None)
    host.live_within(SCORE)
    assert limits == []


def test_a_job_on_a_gpu_has_no_limit_but_goes_first(limits: list[Any], tmp_path: Path) -> None:
    (tmp_path / "score").write_text("0")
    host.live_within(MeasureJob(target=make_target(CARD), values={}, pictures=False))
    assert limits == []
    assert (tmp_path / "score").read_text() == "1000"


def test_a_sandbox_that_does_not_allow_it_fails_no_job(
    limits: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host, "Path", lambda name: tmp_path / "no" / "such")
    host.live_within(SCORE)
    assert limits == [(9 * GIB, 9 * GIB)]
    assert "not the first to end where memory does" in caplog.text


def test_a_wish_above_the_limit_is_out_of_memory_in_a_real_child(tmp_path: Path) -> None:
    script = """
import sys
from autotune.worker import host, main
host.free_bytes = lambda: 2**28
def run(job, folder):
    import subprocess
    code = subprocess.call([sys.executable, "-c", "bytearray(2**31)"])
    assert code == 1, "what it starts has the limit, too"
    fits = bytearray(2**26)
    return {"taken": len(bytearray(2**31))}
main.run = run
sys.argv[0] = "worker"
main.main()
"""
    found = run_script(tmp_path, "spawn", script)
    assert isinstance(found, Failure)
    assert (found.cause, found.memory) == ("out_of_memory", "host")


def test_what_a_process_took_is_its_peak_before_and_after_the_kernels_own_was_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "status_bytes", lambda field: 5 * GIB)
    monkeypatch.setattr(host, "cgroup_limit_bytes", lambda: 16 * GIB)
    for above, peak in (([], 5), ([GIB, 2 * GIB], 5), ([GIB, 7 * GIB], 8)):
        found = host.taken(GIB, above)
        assert found is not None
        assert (found.peak_resident_bytes, found.peak_pinned_bytes) == (peak * GIB, None)
        assert (found.peak_bytes, found.cgroup_limit_bytes) == (peak * GIB, 16 * GIB)
    assert host.taken(None, []) is None


def test_pinned_memory_is_that_of_torchs_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "host_memory_stats", lambda: {"allocated_bytes.peak": 3 * GIB})
    found = host.taken(GIB, [])
    assert found is not None
    assert found.peak_pinned_bytes == 3 * GIB
    assert found.peak_bytes == found.peak_resident_bytes + 3 * GIB
