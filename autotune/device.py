"""Device: which accelerator is tuned for, what it can do, and the reasons we believe so.

Found without torch: through NVML where there is an NVIDIA driver, through /proc for the processor. What only torch can
tell (its build's kernels, whether it can use the card at all) the probe adds in a child process.
"""

import os
import platform
import re
from pathlib import Path
from typing import Any

from autotune.errors import UserError
from autotune.noun import Noun


class Device(Noun):
    """One place where a pipeline can run. Studies of different devices are never mixed."""

    kind: str  # "cuda" or "cpu"
    index: int = 0
    name: str
    memory_bytes: int
    compute_capability: tuple[int, int] | None = None
    multiprocessors: int | None = None
    driver: str | None = None
    cores: int | None = None
    sdpa_kernels: tuple[str, ...] = ()  # of torch's scaled_dot_product_attention: flash, efficient, cudnn, math
    compile_fault: str | None = None  # why torch.compile can't work here
    evidence: tuple[str, ...] = ()

    @property
    def torch_name(self) -> str:
        return f"cuda:{self.index}" if self.kind == "cuda" else self.kind

    @property
    def slug(self) -> str:
        """The device's name as a part of a folder's name."""
        if self.kind == "cpu":
            return "cpu"
        return "-".join(word for word in self.name.lower().split() if word not in ("nvidia", "geforce"))

    def at_least(self, major: int, minor: int = 0) -> bool:
        return self.compute_capability is not None and self.compute_capability >= (major, minor)


def find_devices() -> list[Device]:
    """Every NVIDIA GPU that NVML lists, then the processor."""
    return [*_nvidia_gpus(), _processor()]


def find_device(word: str | None) -> Device:
    """The device that `--device` names (`cuda`, `cuda:1`, `cpu`), or the best one here.

    Raises UserError where there is no such device.
    """
    devices = find_devices()
    if word is None:
        return devices[0]
    kind, _, index = word.partition(":")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", word):
        raise UserError(f"--device takes cuda, cuda:N or cpu, not {word!r}.")
    for device in devices:
        if device.kind == kind and device.index == int(index or 0):
            return device
    cards = [f"cuda:{d.index} ({d.name})" for d in devices if d.kind == "cuda"]
    raise UserError(
        f"--device {word}: there is no such device; found {', '.join(cards)} and cpu."
        if cards
        else f"--device {word}: no NVIDIA GPU was found here ({_nvml_says()}); use --device cpu."
    )


def _nvidia_gpus() -> list[Device]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [_nvidia_gpu(pynvml, handle, index) for index, handle in enumerate(_visible(pynvml, handles))]
    finally:
        pynvml.nvmlShutdown()


def _visible(nvml: Any, handles: list[Any]) -> list[Any]:
    """The GPUs that CUDA_VISIBLE_DEVICES lets through, in its order: torch counts these, NVML counts all.

    CUDA ignores whatever follows the first entry that it can't find, and so do we.
    """
    words = os.environ.get("CUDA_VISIBLE_DEVICES")
    if words is None:
        return handles
    visible = []
    for word in words.split(","):
        found = [
            handle
            for index, handle in enumerate(handles)
            if word.strip() == str(index)
            or (word.startswith("GPU-") and str(nvml.nvmlDeviceGetUUID(handle)).startswith(word.strip()))
        ]
        if len(found) != 1:
            break
        visible += found
    return visible


def _nvidia_gpu(nvml: Any, handle: Any, index: int) -> Device:
    driver = str(nvml.nvmlSystemGetDriverVersion())
    capability = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Device(
        kind="cuda",
        index=index,
        name=str(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        compute_capability=(int(capability[0]), int(capability[1])),
        driver=driver,
        evidence=(f"NVML lists it, driver {driver}",),
    )


def _nvml_says() -> str:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVML: {error}"
    pynvml.nvmlShutdown()
    return "NVML lists none"


def _processor() -> Device:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in info.splitlines())}
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
    flags = [flag for flag in known if flag in fields.get("flags", "").split()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Device(
        kind="cpu",
        name=fields.get("model name") or platform.processor() or platform.machine(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cores=cores,
        evidence=(f"/proc/cpuinfo: {' '.join(flags) or 'no vector flags that we know'}", f"{cores} usable cores"),
    )
