"""Variables: the environment variables of the user that reach into a trial. Set by us, recorded, or refused.

Libraries read dozens of variables, most of them undocumented. So they are recorded by the library that reads them, not
one by one. Those that would make what is measured untrue are refused; the caches are replaced by the config's own.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from autotune.errors import UserError

# Read by torch, Inductor and Triton, by the drivers' runtimes and libraries, and by what runs loops on the processor's
# cores or gives out its memory. The names of folders, of logs and of versions change nothing that is measured.
READ_BY_LIBRARIES = re.compile(
    r"(PY)?TORCH|TRITON_|CUDA_|CU(BLAS|DNN|SPARSE)|NVIDIA_TF32|HIP_|HSA_|ROCM?_|MIOPEN_|(HIP|ROC)BLAS|ATEN_"
    r"|OMP_|GOMP_|KMP_|MKL_|OPENBLAS_|(ONE)?DNN[L_]|MALLOC_|LD_PRELOAD$|DIFFUSERS_|TOKENIZERS_"
)
MEANS_NOTHING = re.compile(r"(_|^)(DIR|HOME|PATH|ROOT|VERSION|LOGS?|LOG_\w+|VISIBLE_DEVICES|DEVICE_ORDER)$|_LOGS?_")

# Variable -> the value that switches it off, and why a measurement with it is not true.
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "CUDA_LAUNCH_BLOCKING": (("", "0"), "the host waits for each kernel, so that every config looks launch-bound"),
    "AMD_SERIALIZE_KERNEL": (("", "0"), "the host waits for each kernel, so that every config looks launch-bound"),
    "PYTORCH_NO_CUDA_MEMORY_CACHING": (("",), "torch's allocator keeps no figures, so that memory can't be measured"),
    "TORCH_COMPILE_DISABLE": (("", "0"), "torch.compile does nothing, so that no compiled config can be measured"),
    "TORCHDYNAMO_DISABLE": (("", "0"), "torch.compile does nothing, so that no compiled config can be measured"),
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": (("", "0"), "compiled code is never found again, so that none is reused"),
}
OFFLINE = {"HF_HUB_OFFLINE": "1"}  # the probe has downloaded everything that a job loads
OWN_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def check_variables(environ: Mapping[str, str]) -> None:
    """Raises UserError for a variable with which nothing can be measured."""
    for name, (harmless, why) in REFUSED.items():
        if environ.get(name, "") not in harmless:
            raise UserError(f"{name}={environ[name]} is set: {why}. Unset it (`unset {name}`) and run this again.")


def recorded_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that libraries read and that may change what is measured, sorted by name."""
    found = {name for name in environ if READ_BY_LIBRARIES.match(name) and not MEANS_NOTHING.search(name)}
    return {name: environ[name] for name in sorted(found)}


def trial_environment(cache: Path) -> dict[str, str]:
    """What every trial is given: its own cache of compiled code, and no network."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(cache), **OFFLINE}


def inherited(environ: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The user's variables for a child that is given these: without their caches of compiled code where it has its own.

    Triton's cache lies in Inductor's then, as torch has it. In the user's, a config would find what it is to compile.
    """
    has_own = any(name in given for name in OWN_CACHES)
    return {name: value for name, value in environ.items() if not (has_own and name in OWN_CACHES)}
