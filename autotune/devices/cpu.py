"""CPU: the processor of this machine, as /proc/cpuinfo describes it, and how it fares with bfloat16.

Without AVX-512, AMX or the like, torch 2.13 has no fast code for it: on an AMD EPYC with AVX2 a convolution takes 25 to
80 times as long as in float32, and a linear layer 7 to 12 times. No list of instructions is asked: both are timed.
"""

import os
import platform
import time
from pathlib import Path
from typing import Any

from autotune.device import Device
from autotune.devices.compiler import fault_on_processor
from autotune.devices.kind import Found, Kind

TIMES = 4.0  # as long as in float32: half the bytes are not worth that
TRIES = 3


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


def bfloat16_fault() -> str | None:
    """Why bfloat16 is not worth trying on this processor, as a clause; None: it may be."""
    import torch
    from torch.nn import Conv2d, Linear

    layers = {
        "convolution": (Conv2d(64, 64, 3, padding=1), torch.zeros(1, 64, 24, 24)),
        "linear layer": (Linear(256, 256), torch.zeros(512, 256)),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other where other work runs
    try:
        for what, (layer, given) in layers.items():
            usual_s = _seconds(layer, given)
            if _seconds(layer.to(torch.bfloat16), given.to(torch.bfloat16)) > TIMES * usual_s:
                return f"a small {what} in bfloat16 takes more than {TIMES:.0f} times as long as in float32 here"
    finally:
        torch.set_num_threads(threads)
    return None


def _seconds(layer: Any, given: Any) -> float:
    """The shortest of TRIES calls, after one that is not timed."""
    import torch

    taken = []
    for _ in range(1 + TRIES):
        started = time.perf_counter()
        with torch.no_grad():
            layer(given)
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def _probe(device: Device, by_trial: bool) -> Device:
    import torch

    return device.model_copy(
        update={
            "sdpa_kernels": ("flash", "math"),
            "bfloat16_fault": bfloat16_fault() if by_trial else None,
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
