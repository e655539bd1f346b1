"""Device: which accelerator is tuned for, what it can do, and the evidence for it."""

from autotune.frozen_model import FrozenModel


class Device(FrozenModel):
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
