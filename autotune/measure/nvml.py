"""NVML card: queries about one GPU, found by its UUID, with None for whatever the card does not tell."""

from typing import Any


class Card:
    """One GPU. A query that NVML declines returns None, and its name is added to `not_told`."""

    def __init__(self, device: str) -> None:
        """`device` is torch's name of a GPU. Raises pynvml.NVMLError where NVML doesn't know it.

        Makes no CUDA context: torch only reads the card's properties.
        """
        import pynvml
        import torch

        self.nvml: Any = pynvml
        self.not_told: set[str] = set()
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        try:
            self.handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except pynvml.NVMLError:
            self.handle = pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")  # a part of a divided card

    def query(self, name: str, *arguments: Any) -> Any:
        """The result of the function `nvmlDeviceGet` + name for this card, or None."""
        try:
            return getattr(self.nvml, f"nvmlDeviceGet{name}")(self.handle, *arguments)
        except self.nvml.NVMLError:
            self.not_told.add(name)
            return None

    def processes(self) -> dict[int, int]:
        """Process id -> bytes that the process holds on the card (0: NVML does not know how many).

        In a container the ids may be the host's, or missing.
        """
        held: dict[int, int] = {}
        for kind in ("Compute", "Graphics", "MPSCompute"):
            for process in self.query(f"{kind}RunningProcesses") or ():
                held[process.pid] = max(held.get(process.pid, 0), int(process.usedGpuMemory or 0))
        return held

    def used_bytes(self) -> int | None:
        """Bytes that all processes together hold on the card."""
        memory = self.query("MemoryInfo")
        return None if memory is None else int(memory.used)

    def total_bytes(self) -> int | None:
        """Bytes of the card, those included that the driver keeps to itself."""
        memory = self.query("MemoryInfo")
        return None if memory is None else int(memory.total)
