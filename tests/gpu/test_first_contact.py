"""First three minutes on a GPU: probe, watch, memory cap, time limit, out of memory, fork. See tools/gpu_steps.py"""

import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from autotune.devices import find_device
from autotune.execution import isolate
from autotune.execution.probe import probe
from autotune.isolation import Isolation
from autotune.job import MeasureJob
from autotune.knobs import complete
from autotune.measurement import Measurement
from autotune.pipelines import resolve
from autotune.target import Target
from autotune.trial import Failure
from autotune.tuning.probe_space import default_prompts
from autotune.workload import request_workload

pytestmark = pytest.mark.gpu
GIB, MIB = 2**30, 2**20


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    demo = resolve("demo").model_copy(update={"scorer": None})
    request = request_workload(default_prompts(demo).first(1), steps=4)
    return probe(tmp_path_factory.mktemp("probe"), demo, find_device("cuda"), request)


def measured(target: Target, folder: Path, how: Isolation) -> Measurement:
    """What a child measures of the untouched demo."""
    job = MeasureJob(target=target, values=dict(complete({})), pictures=False)
    answer = isolate.run(folder, job, timeout_s=120, isolation=how)
    assert not isinstance(answer, Failure), answer.reason
    return Measurement.parse(answer, "the outcome")


def test_the_probe_tells_what_the_card_can(target: Target) -> None:
    device = target.device
    print("\n".join([device.name, *device.evidence]))
    assert device.is_gpu
    assert device.memory_bytes > GIB
    assert device.uuid
    assert "math" in device.sdpa_kernels
    assert device.compile_fault is None


def test_a_trial_tells_what_the_watch_and_the_meter_saw(target: Target, tmp_path: Path) -> None:
    found = measured(target, tmp_path / "job", "spawn")
    print(found.health, found.peaks, found.discarded)
    assert found.health is not None
    assert found.health.sm_clock_max_mhz
    assert found.health.temperature_c
    assert 64 * MIB < found.peak_memory_bytes < target.device.memory_bytes
    assert len(found.latency_samples_s) >= 3


def test_forked_children_begin_within_a_second(target: Target, tmp_path: Path) -> None:
    """The first one waits for the server to load the libraries."""
    first, second = (measured(target, tmp_path / name, "fork") for name in ("first", "second"))
    isolate.close()
    print(first.start_s, second.start_s)
    assert (first.isolation, second.isolation) == ("fork", "fork")
    assert second.start_s is not None
    assert second.start_s < 1


CAPPED = """
import torch
from autotune.measure.memory import cap, meter_for
meter = meter_for("cuda:0")
cap("cuda:0", 2 * 2**30)
meter.start("run")
block = torch.empty(2**30, dtype=torch.uint8, device="cuda")
meter.stop()
assert 2**30 < meter.peaks["run"].device_bytes <= 2 * 2**30, meter.peaks
try:
    torch.empty(2**30, dtype=torch.uint8, device="cuda")
except torch.OutOfMemoryError:
    print("as on a card of 2 GiB")
"""


def test_a_cap_makes_a_smaller_card() -> None:
    done = subprocess.run([sys.executable, "-c", CAPPED], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "as on a card of 2 GiB"


def test_a_trial_that_needs_more_than_its_limit_is_out_of_memory(target: Target, tmp_path: Path) -> None:
    job = MeasureJob(target=target, values=dict(complete({})), pictures=False, max_memory_bytes=MIB)
    answer = isolate.run(tmp_path / "job", job, timeout_s=120, isolation="spawn")
    assert isinstance(answer, Failure)
    assert answer.cause == "out_of_memory", answer.reason


TOO_LARGE = """
import torch
from autotune.worker.classify import classify
try:
    torch.empty(2**44, dtype=torch.uint8, device="cuda")
except Exception as error:
    print(classify(error).cause)
"""


def test_more_than_the_card_has_is_out_of_memory() -> None:
    done = subprocess.run([sys.executable, "-c", TOO_LARGE], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "out_of_memory"


HOLDS_MEMORY = """
import sys, time, torch
block = torch.ones(2**30, dtype=torch.uint8, device="cuda")
torch.cuda.synchronize()
open(sys.argv[-1] + "/holds", "w").close()
time.sleep(600)
"""


def used_bytes(target: Target) -> int:
    pynvml.nvmlInit()
    uuid = target.device.uuid
    assert uuid
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(uuid)).used)


def test_a_child_at_its_time_limit_is_killed_and_gives_its_memory_back(target: Target, tmp_path: Path) -> None:
    job = MeasureJob(target=target, values=dict(complete({})), pictures=False)
    before, command = used_bytes(target), [sys.executable, "-c", HOLDS_MEMORY]
    answer = isolate.run(tmp_path / "job", job, timeout_s=20, isolation="spawn", command=command)
    assert (tmp_path / "job" / "holds").exists(), "20 s were too short to begin"
    assert isinstance(answer, Failure)
    assert answer.cause == "timeout"
    assert used_bytes(target) < before + 256 * MIB


UNDER_A_LIMIT = """
import resource, torch
from autotune.devices.host_memory import status_bytes
limit = status_bytes("VmData") + 6 * 2**30
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
there = torch.ones(2**28, device="cuda")
torch.ones(2**26).pin_memory().to("cuda", non_blocking=True)
torch.cuda.synchronize()
print("VmData", status_bytes("VmData") - (limit - 6 * 2**30), "sum", float(there.sum()))
"""


def test_cuda_works_where_private_memory_is_limited() -> None:
    """Evidence for worker/host.py, which sets no such limit for a GPU's jobs as long as this has not been seen."""
    done = subprocess.run([sys.executable, "-P", "-c", UNDER_A_LIMIT], capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
