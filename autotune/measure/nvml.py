"""One GPU as NVML sees it: found by the UUID that torch knows, asked in a way that lets it decline."""

from typing import Any


class Card:
    """What it declines to tell is None, and `not_told` keeps the question."""

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
            self.handle = pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")  # one part of a card that was divided

    def ask(self, question: str, *arguments: Any) -> Any:
        """What `nvmlDeviceGet` + `question` answers, or None."""
        try:
            return getattr(self.nvml, f"nvmlDeviceGet{question}")(self.handle, *arguments)
        except self.nvml.NVMLError:
            self.not_told.add(question)
            return None

    def processes(self) -> dict[int, int]:
        """Process id -> bytes that it holds on the card (0 where NVML knows the process, but not its memory).

        In a container the numbers may be the host's, or none at all.
        """
        found: dict[int, int] = {}
        for kind in ("Compute", "Graphics", "MPSCompute"):
            for process in self.ask(f"{kind}RunningProcesses") or ():
                found[process.pid] = max(found.get(process.pid, 0), int(process.usedGpuMemory or 0))
        return found

    def used_bytes(self) -> int | None:
        """What everybody together holds on the card."""
        memory = self.ask("MemoryInfo")
        return None if memory is None else int(memory.used)
