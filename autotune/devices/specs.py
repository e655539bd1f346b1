"""Device specs: what NVML and torch would say of common GPUs, to plan a search before renting one.

The figures come from the makers' data sheets and from the compute capabilities that the libraries' sources require.
They were not measured. The table does not know whether the installed torch has kernels for a GPU (its wheels leave out
old ones).
"""

from autotune.device import Device
from autotune.errors import UserError, nearest

EVIDENCE = "from the capability table, not from a real GPU"

# word: name as NVML gives it, memory in MiB, compute capability, multiprocessors
_TABLE: dict[str, tuple[str, int, tuple[int, int], int]] = {
    "v100": ("Tesla V100-SXM2-16GB", 16384, (7, 0), 80),
    "t4": ("Tesla T4", 15360, (7, 5), 40),
    "a10g": ("NVIDIA A10G", 23028, (8, 6), 80),
    "a100": ("NVIDIA A100-SXM4-80GB", 81920, (8, 0), 108),
    "l4": ("NVIDIA L4", 23034, (8, 9), 58),
    "3090": ("NVIDIA GeForce RTX 3090", 24576, (8, 6), 82),
    "4090": ("NVIDIA GeForce RTX 4090", 24564, (8, 9), 128),
    "5090": ("NVIDIA GeForce RTX 5090", 32607, (12, 0), 170),
    "h100": ("NVIDIA H100 80GB HBM3", 81559, (9, 0), 132),
    "h200": ("NVIDIA H200", 143771, (9, 0), 132),
    "b200": ("NVIDIA B200", 183359, (10, 0), 148),
}
SPECS = tuple(_TABLE)


def find_spec(word: str) -> Device:
    """The GPU that `--device-spec` names. Raises UserError that suggests the nearest name."""
    if word.lower() not in _TABLE:
        raise UserError(f"--device-spec {word}: there is no such GPU in the table: {nearest(word.lower(), SPECS)}")
    name, mebibytes, capability, multiprocessors = _TABLE[word.lower()]
    return Device(
        kind="cuda",
        name=name,
        memory_bytes=mebibytes * 2**20,
        compute_capability=capability,
        multiprocessors=multiprocessors,
        sdpa_kernels=_sdpa_kernels(capability),
        evidence=(EVIDENCE,),
    )


def card_of(memory_bytes: int) -> Device:
    """A GPU of this memory that does not exist: it supports everything that the GPUs of the table do."""
    capability = max(row[2] for row in _TABLE.values())
    return Device(
        kind="cuda",
        name=f"a GPU of {memory_bytes / 1e9:.1f} GB",
        memory_bytes=memory_bytes,
        compute_capability=capability,
        multiprocessors=max(row[3] for row in _TABLE.values()),
        sdpa_kernels=_sdpa_kernels(capability),
        evidence=("made up from its memory alone, able to do what any GPU can",),
    )


def _sdpa_kernels(capability: tuple[int, int]) -> tuple[str, ...]:
    return ("flash", "efficient", "cudnn", "math") if capability >= (8, 0) else ("efficient", "math")
