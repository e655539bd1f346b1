"""Device: the accelerator or processor that a pipeline is tuned for, and what it supports."""

from pydantic import Field

from autotune.frozen_model import FrozenModel


class UsedCard(FrozenModel):
    """The card that has made a run, of a search on several.

    name  as the search calls it: HOST/gpu-N. Of a GPU, the next command may give the name to another card of its host
    uuid  see Device
    """

    name: str
    uuid: str | None = None


class Device(FrozenModel):
    """One place where a pipeline can run. Studies of different devices are never mixed.

    kind                "cuda" (NVIDIA), "rocm" (AMD), "xpu" (Intel), "mps" (Apple) or "cpu"
    index               of the GPU, as `--device` counts them: in the order of the PCI bus, the visible ones only
    uuid                of the GPU or MIG slice, as CUDA_VISIBLE_DEVICES takes it: what tells two cards apart. None: not
                        known, or a processor
    memory_bytes        of the GPU; of a CPU, the machine's memory; 0: only torch can tell
    shares_memory       the GPU has no memory of its own and uses the machine's
    compute_capability  (major, minor); None: no NVIDIA GPU
    multiprocessors     of the GPU
    driver              its version
    cores               that this process may use; None: a GPU
    sdpa_kernels        the kernels of torch's scaled_dot_product_attention: flash, efficient, cudnn, math
    sdpa_heads          kernel -> the largest head that torch says it takes here; without those that it was not asked of
    attention           what a tiny call of each backend of diffusers' attention dispatcher showed, for the heads of one
                        pipeline: backend -> number format, or "graph" -> why it fails, as a clause. What works is left
                        out, and so are backends that were not asked (see devices/attention_calls.py)
    compile_fault       why torch.compile does not work on this device, as a clause
    bfloat16_fault      why bfloat16, though it works, is not worth trying on this processor, as a clause
    shared_int8_fault   why the blocks of a UNet with int8 layers can't be compiled one by one in bfloat16, as a clause.
                    None: they can, or it was not asked: another device, or one where bfloat16 is not worth trying
    evidence            sentences that say how these fields were found
    """

    kind: str
    index: int = 0
    uuid: str | None = None
    name: str
    memory_bytes: int
    shares_memory: bool = False
    compute_capability: tuple[int, int] | None = None
    multiprocessors: int | None = None
    driver: str | None = None
    cores: int | None = None
    sdpa_kernels: tuple[str, ...] = ()
    sdpa_heads: dict[str, int] = Field(default_factory=dict)
    attention: dict[str, dict[str, str]] = Field(default_factory=dict)
    compile_fault: str | None = None
    bfloat16_fault: str | None = None
    shared_int8_fault: str | None = None
    evidence: tuple[str, ...] = ()

    @property
    def is_gpu(self) -> bool:
        return self.kind != "cpu"

    @property
    def is_nvidia(self) -> bool:
        return self.compute_capability is not None

    @property
    def is_amd(self) -> bool:
        return self.kind == "rocm"

    @property
    def torch_type(self) -> str:
        """The type of its tensors' device in torch, which calls AMD's GPUs "cuda", too."""
        return "cuda" if self.kind == "rocm" else self.kind

    @property
    def torch_name(self) -> str:
        """Its name in torch in a child process, which sees this GPU alone: "cuda:0", "cpu". See devices.torch_name."""
        return f"{self.torch_type}:0" if self.kind in ("cuda", "rocm", "xpu") else self.torch_type

    @property
    def word(self) -> str:
        """The word that `--device` takes: "cuda:1", "cpu"."""
        return f"{self.torch_type}:{self.index}" if self.kind in ("cuda", "rocm", "xpu") else self.torch_type

    @property
    def slug(self) -> str:
        """The device's name as a part of a folder's name."""
        if not self.is_gpu:
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
