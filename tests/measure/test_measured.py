"""A whole measurement of the demo, in a child as every trial is: what it says of itself, and what it refuses to say."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autotune.devices import find_device
from autotune.execution import isolate
from autotune.execution.probe import probe
from autotune.isolation import ISOLATIONS
from autotune.job import MeasureJob
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.pipelines import resolve
from autotune.study_folder import picture_name
from autotune.target import Target
from autotune.trial import Failure
from autotune.workload import Prompts, WorkloadRequest

PROMPTS = (
    "a large red circle at the top on a white background",
    "a small blue star at the left on a yellow background",
)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> MeasureJob:
    pipeline = resolve("demo").model_copy(update={"scorer": None})
    folder = tmp_path_factory.mktemp("probe") / "probe"
    target: Target = probe(
        folder, pipeline, find_device("cpu"), WorkloadRequest(prompts=Prompts(texts=PROMPTS), steps=4)
    )
    return MeasureJob(target=target, values=dict(complete({})), pictures=True, max_memory_bytes=2**40)


def test_a_measurement_says_how_it_was_taken(job: MeasureJob, tmp_path: Path) -> None:
    """Promise 3, and the memory of each phase (11)."""
    answer = isolate.run(tmp_path / "trial", job, timeout_s=300)
    measured = Measurement.parse(answer, "the outcome")
    assert len(measured.latency_samples_s) >= 5
    assert len(measured.warmup_s) >= 3
    assert measured.stopped_by in ("spread", "plateau", "budget")
    assert measured.health is not None
    assert measured.health.others_cpu_share is not None
    assert 0 <= measured.health.others_cpu_share <= 1
    assert measured.energy_per_picture_j is None
    assert measured.phases is not None
    parts = measured.phases
    assert min(parts.text_encoding_s or 0, parts.denoising_step_s or 0, parts.vae_decode_s or 0) > 0
    run_parts = {"text_encoding", "denoising", "vae_decode"}
    assert set(measured.peaks) == {"load", "first", "run"} | run_parts
    assert measured.peaks["run"].device_bytes == max(measured.peaks[part].device_bytes for part in run_parts)
    assert measured.peak_memory_bytes == max(peak.device_bytes for peak in measured.peaks.values())
    assert measured.load_peak_memory_bytes == measured.peaks["load"].device_bytes
    assert measured.run_peak_memory_bytes == measured.peaks["run"].device_bytes > 10 * 2**20
    assert len(list((tmp_path / "trial" / "images").iterdir())) == len(PROMPTS)


def test_what_a_forked_process_measures_is_what_a_fresh_one_does(job: MeasureJob, tmp_path: Path) -> None:
    """All but the time that it took, which benchmarks/trial_overhead.py compares."""
    fork, spawn = (
        Measurement.parse(isolate.run(tmp_path / how, job, timeout_s=300, isolation=how), "the outcome")
        for how in ISOLATIONS
    )
    assert (fork.isolation, spawn.isolation) == ("fork", "spawn")
    assert (fork.attention_kernels, fork.effects) == (spawn.attention_kernels, spawn.effects)
    # five pairs were up to 5 MB apart: the heaps of the fork server and of a new interpreter differ
    assert abs(fork.run_peak_memory_bytes - spawn.run_peak_memory_bytes) < 16 * 2**20
    for number in range(len(PROMPTS)):
        mine, theirs = (tmp_path / how / "images" / picture_name(number) for how in ISOLATIONS)
        assert mine.read_bytes() == theirs.read_bytes()


@contextmanager
def burners() -> Iterator[None]:
    """One busy process for each usable core."""
    cores = len(os.sched_getaffinity(0))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_promise_8_a_measurement_beside_others_who_work_has_no_latency(
    job: MeasureJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUTOTUNE_BUSY", raising=False)
    with burners():
        outcome = isolate.run(tmp_path / "trial", job, timeout_s=300)
    assert isinstance(outcome, Failure)
    assert outcome.cause == "contended"
    assert "of the usable cores' time" in outcome.reason
