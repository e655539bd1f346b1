"""Work: the worker's side: one order is run by the code of a local trial, in a scratch folder.

The function runs in a process of Ray's that ends with it, or before where the cluster is out of reach (cut_off.py). The
trial itself is a child of that process, in a process group of its own, and is killed with it (execution/isolate.py).
"""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import autotune
from autotune.cluster.cut_off import ended_where_cut_off, head_address
from autotune.cluster.gate import Gate, GatedRunner
from autotune.cluster.order import Order, Result
from autotune.cluster.parcel import Parcel, pack, unpack
from autotune.device import Device
from autotune.devices import find_device, hub_kernels
from autotune.devices.probe import versions
from autotune.errors import UserError
from autotune.execution import isolate
from autotune.execution.probe import PROBE_TIMEOUT_S
from autotune.execution.variables import recorded_variables
from autotune.isolation import BUSY
from autotune.job import ProbeJob
from autotune.measurement import Measurement, Quality
from autotune.pipeline import Pipeline
from autotune.pipelines import factory
from autotune.study_folder import StudyFolder, caches
from autotune.trial import Failure

ALIKE = ("kind", "name", "memory_bytes", "driver", "compute_capability", "multiprocessors", "cores")
SCRATCH = "autotune-worker-"  # and the process id


def perform(order_json: str, *parcels: Parcel) -> tuple[str, Parcel]:
    """Run an order. Returns its Result as JSON, and the files of the run.

    parcels  the files of each folder that the order wants
    """
    with ended_where_cut_off(*head_address()):
        return _perform(Order.model_validate_json(order_json), parcels)


def _perform(order: Order, parcels: Sequence[Parcel]) -> tuple[str, Parcel]:
    _sweep()
    scratch = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-"))
    try:
        for name, files in zip(order.wants, parcels, strict=True):
            unpack(files, scratch / name)
        result = _run(order, scratch)
        return result.model_dump_json().replace(f"{scratch}/", ""), pack(scratch / order.place)
    except OSError as error:  # such as a full disk
        return Result(trouble=f"its scratch folder can't be written: {error.strerror or error}.").model_dump_json(), {}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(order: Order, scratch: Path) -> Result:
    _take_variables(order.target.environment or {}, busy=order.busy, kernels=order.hub_kernels)
    began, gate = time.monotonic(), Gate(order.host_bytes)
    try:
        device = find_device(None if order.target.device.is_gpu else "cpu")
        refused = unlike(order, device, versions()) or _take_priority(order.niceness)
        if refused is not None:
            return Result(device=device, refused=refused)
        if order.run_code:
            _allow_code(order.target.pipeline)
        runner = _runner(order, device, scratch)
        runner.gate = gate
        if order.fetch:
            _fetch(order, device, scratch / "probe")
            began = time.monotonic()
        place = scratch / order.place
        outcome: Measurement | Failure | Quality
        if order.draw is not None:
            outcome = runner.draw(place, order.config, order.draw, scratch / order.reference, earlier=order.earlier)
        else:
            outcome = runner.run(place, order.config, pictures=order.pictures, earlier=order.earlier, reuse=order.reuse)
    except UserError as error:
        return Result(trouble=str(error))
    if isinstance(outcome, Failure) and (gone := _is_gone(device)) is not None:
        return Result(trouble=f"its card is gone: {gone}")
    return Result(device=device, seconds=time.monotonic() - began - gate.waited_s, outcome=outcome)


def _is_gone(device: Device) -> str | None:
    """Why the card can't be asked any more after a trial that has failed, as a sentence: it was not the config's fault.

    None: it is still there.
    """
    if not device.is_gpu:
        return None
    try:
        again = find_device(device.uuid or device.word)
    except UserError as error:
        return str(error)
    return None if again.uuid == device.uuid else f"in its place is {again.name} ({again.uuid})."


def _allow_code(pipeline: Pipeline) -> None:
    """Let this process's children run the function that builds the pipe, which the searching user allows.

    Raises UserError where its file is another one than the search's.
    """
    described = factory.described(factory.word_of(pipeline), run_code=True)
    digest = factory.digest_of(Path(described.source))
    if digest != pipeline.revision:
        raise UserError(f"{pipeline.source!r} is another file here than where the search runs.")


def unlike(order: Order, device: Device, installed: Mapping[str, str]) -> str | None:
    """Why figures from here can't stand beside the study's, as a clause; None: the card and the libraries are alike."""
    if order.version != autotune.__version__:
        return f"it has autotune {autotune.__version__}, the search {order.version}"
    for name in ALIKE:
        own, studied = getattr(device, name), getattr(order.target.device, name)
        if own != studied:
            return f"its {name.replace('_', ' ')} is {own}, the study's {studied}"
    for name in sorted(installed.keys() | order.target.versions.keys()):
        own, studied = installed.get(name), order.target.versions.get(name)
        if own != studied:
            return f"it has {name} {own or 'not installed'}, the study {studied or 'not installed'}"
    return None


def _take_variables(environment: Mapping[str, str], *, busy: bool = False, kernels: bool = False) -> None:
    """Set what the libraries read as it is in the study, and what the searching user allows.

    Ray sets OMP_NUM_THREADS, and a host has variables of its own.
    """
    for name in (*recorded_variables(os.environ), BUSY, hub_kernels.VARIABLE):
        os.environ.pop(name, None)
    allowed = {BUSY: "accept"} if busy else {}
    allowed |= {hub_kernels.VARIABLE: hub_kernels.ACCEPT} if kernels else {}
    os.environ.update({**environment, **allowed})


def _take_priority(niceness: int) -> str | None:
    """Run as the searching process does: Ray gives its workers a niceness of 15. Why that can't be, as a clause."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    except PermissionError:
        return (
            f"its workers have a niceness of {os.nice(0)}, the search of {niceness}: start Ray there with "
            "RAY_worker_niceness=0 in the environment"
        )
    return None


def _runner(order: Order, device: Device, scratch: Path) -> GatedRunner:
    folder = StudyFolder(scratch)
    folder.cache = caches() / order.study  # compiled code stays on this host, for relatives of this config
    return GatedRunner(
        folder,
        order.target.on_card(device),
        order.timeout_s,
        max_memory_bytes=order.max_memory_bytes,
        baseline=None if order.baseline is None else type(order.config)(order.baseline),
        isolation=order.isolation,
        timing_s=order.timing_s,
        breakdown=order.breakdown,
    )


def _fetch(order: Order, device: Device, place: Path) -> None:
    """Download what the pipeline and its kernels lack on this host. Raises UserError."""
    prompts = order.target.workload.prompts
    job = ProbeJob(pipeline=order.target.pipeline, device=device, prompts=prompts, quick=True)
    answer = isolate.run(place, job, timeout_s=PROBE_TIMEOUT_S, isolation="spawn")
    if isinstance(answer, Failure):
        raise UserError(answer.reason)


def _sweep() -> None:
    """Remove the scratch folders of workers that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        process = left.name.removeprefix(SCRATCH).partition("-")[0]
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(left, ignore_errors=True)
