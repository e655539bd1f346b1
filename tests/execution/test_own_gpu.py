"""A child sees its own GPU alone, by its UUID, also when its job is repeated by hand."""

import json
import os
import sys
from pathlib import Path

import machines
import pytest
from conftest import CPU, make_target

from autotune.device import Device
from autotune.devices import find_device
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.probe import probe
from autotune.frozen_model import write_json
from autotune.job import ChainJob, CompatJob, DeviceJob, Job, MeasureJob, RescoreJob, ScoreJob, Stage, device_of
from autotune.worker import main as worker

TELL = """
import json, os, pathlib, sys
found = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")}
pathlib.Path(sys.argv[1], "outcome.json").write_text(json.dumps({"result": found}))
"""
FAST = "GPU-40900000-1111-2222-3333-444444444444"


def seen_by_a_child(folder: Path, job: Job) -> dict[str, str | None]:
    answer = isolate.run(folder / "job", job, timeout_s=60, isolation="spawn", command=(sys.executable, "-c", TELL))
    assert isinstance(answer, dict), answer
    return answer


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Device:
    """The second card in NVML's order, the first in CUDA's."""
    machines.two_cards().install(monkeypatch)
    return find_device("cuda:1")


def jobs(device: Device) -> list[Job]:
    target = make_target(device)
    compat = CompatJob(target=target, configs=(), folder="", at_once=1, threads=None, budget_s=1, limit_s=1)
    rescore = RescoreJob(
        metrics=(), images={}, references=(), prompts=(), device=device.torch_name, card=device, run_code=False
    )
    return [
        DeviceJob(device=device),
        MeasureJob(target=target, values={}, pictures=False),
        ChainJob(stages=(Stage(target=target, values={}),)),
        compat,
        rescore,
    ]


def test_a_child_is_shown_its_gpu_by_its_uuid(tmp_path: Path, fast: Device) -> None:
    seen = seen_by_a_child(tmp_path, MeasureJob(target=make_target(fast), values={}, pictures=False))
    assert seen == {"CUDA_VISIBLE_DEVICES": FAST, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert fast.word == "cuda:1"
    assert fast.torch_name == "cuda:0", "its name in that child"


def test_every_job_knows_its_device(fast: Device) -> None:
    assert [device_of(job) for job in jobs(fast)] == [fast] * 5
    assert device_of(ScoreJob(images="", baseline="", prompts=(), scorer=None)) is None


def test_a_child_of_the_processor_keeps_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    seen = seen_by_a_child(tmp_path, DeviceJob(device=CPU))
    assert seen == {"CUDA_VISIBLE_DEVICES": "5", "CUDA_DEVICE_ORDER": None}


def test_a_job_that_is_repeated_by_hand_runs_on_the_same_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: Device
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    write_json(tmp_path / "job.json", DeviceJob(device=fast).to_json())
    monkeypatch.setattr(sys, "argv", ["autotune.worker", str(tmp_path)])
    monkeypatch.setattr(worker, "run", lambda job, folder: {"shown": os.environ["CUDA_VISIBLE_DEVICES"]})
    worker.main()
    assert json.loads((tmp_path / "outcome.json").read_text())["result"] == {"shown": FAST}


def test_a_system_that_can_not_watch_a_child_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has neither pidfd_open nor /proc."""
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(
        UserError, match=r"which it watches by pidfd_open and /proc; darwin has not both: run this on L"
    ):
        isolate.run(tmp_path / "job", DeviceJob(device=CPU), timeout_s=1)
    assert not (tmp_path / "job").exists()


def test_on_such_a_system_that_is_the_first_thing_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not `use --device cpu`, which would end in the next sentence."""
    monkeypatch.delattr(os, "pidfd_open")
    apple = Device(kind="mps", name="Apple M3 Max", memory_bytes=2**36, shares_memory=True)
    with pytest.raises(UserError, match="run this on Linux"):
        probe(tmp_path, make_target().pipeline, apple, None)  # type: ignore[arg-type]


def test_a_kind_that_is_not_metered_is_not_tuned(tmp_path: Path) -> None:
    apple = Device(kind="mps", name="Apple M3 Max", memory_bytes=2**36, shares_memory=True)
    with pytest.raises(UserError, match=r"Apple M3 Max is an Apple GPU: its memory .*; use --device cpu"):
        probe(tmp_path, make_target().pipeline, apple, None)  # type: ignore[arg-type]
