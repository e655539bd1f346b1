"""Device: the accelerator or processor that a pipeline is tuned for, and what it supports."""

from autotune.frozen_model import FrozenModel


class Device(FrozenModel):
    """One place where a pipeline can run. Studies of different devices are never mixed.

    kind                "cuda" or "cpu"
    index               of the GPU, as torch counts them
    memory_bytes        of the GPU; of a CPU, the machine's memory
    compute_capability  (major, minor); None: no NVIDIA GPU
    multiprocessors     of the GPU
    driver              its version
    cores               that this process may use; None: a GPU
    sdpa_kernels        the kernels of torch's scaled_dot_product_attention: flash, efficient, cudnn, math
    compile_fault       why torch.compile does not work on this device, as a clause
    evidence            sentences that say how these fields were found
    """

    kind: str
    index: int = 0
    name: str
    memory_bytes: int
    compute_capability: tuple[int, int] | None = None
    multiprocessors: int | None = None
    driver: str | None = None
    cores: int | None = None
    sdpa_kernels: tuple[str, ...] = ()
    compile_fault: str | None = None
    evidence: tuple[str, ...] = ()

    @property
    def torch_name(self) -> str:
        """The device's name in torch: "cuda:0", "cpu"."""
        return f"cuda:{self.index}" if self.kind == "cuda" else self.kind

    @property
    def slug(self) -> str:
        """The device's name as a part of a folder's name."""
        if self.kind == "cpu":
            return "cpu"
        return "-".join(word for word in self.name.lower().split() if word not in ("nvidia", "geforce"))

    def at_least(self, major: int, minor: int = 0) -> bool:
        """Is this an NVIDIA GPU of this compute capability or a newer one?"""
        return self.compute_capability is not None and self.compute_capability >= (major, minor)

    def capability_fault(self, major: int, minor: int = 0) -> str | None:
        """Why what needs an NVIDIA GPU of this compute capability is not available, as a clause; None: it is.

        "needs compute capability 8.9; this GPU has 8.0"
        """
        if self.compute_capability is None:
            return f"needs an NVIDIA GPU of compute capability {major}.{minor}"
        if self.at_least(major, minor):
            return None
        return f"needs compute capability {major}.{minor}; this GPU has {'.'.join(map(str, self.compute_capability))}"
