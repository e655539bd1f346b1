"""CPU: the processor of this machine, as /proc/cpuinfo describes it."""

import os
import platform
from pathlib import Path

from autotune.device import Device
from autotune.devices.compiler import fault_on_processor
from autotune.devices.kind import Found, Kind


def find_processor() -> Device:
    """The processor, with its memory, usable cores and vector instructions."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in info.splitlines())}
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
    flags = [flag for flag in known if flag in fields.get("flags", "").split()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    vectors = f"/proc/cpuinfo: {' '.join(flags) or 'no vector flags that we know'}"
    return Device(
        kind="cpu",
        name=fields.get("model name") or platform.processor() or platform.machine(),
        memory_bytes=machine_bytes(),
        cores=cores,
        evidence=(vectors if info else "there is no /proc/cpuinfo", f"{cores} usable cores"),
    )


def machine_bytes() -> int:
    """The machine's memory; 0: the system does not tell."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def _probe(device: Device, by_trial: bool) -> Device:
    import torch

    return device.model_copy(
        update={
            "sdpa_kernels": ("flash", "math"),
            "compile_fault": fault_on_processor(),
            "evidence": (*device.evidence, f"torch {torch.__version__} with {torch.get_num_threads()} threads"),
        }
    )


CPU = Kind(
    name="cpu",
    what="processor",
    find=lambda: Found((find_processor(),)),
    probe=_probe,
    torch_name=lambda device: "cpu",
    at=lambda index: find_processor(),
)
