"""CPU: the processor of this machine, as /proc/cpuinfo describes it."""

import os
import platform
from pathlib import Path

from autotune.device import Device


def find_processor() -> Device:
    """The processor, with its memory, usable cores and vector instructions."""
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
