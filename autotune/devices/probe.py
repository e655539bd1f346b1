"""Device probe: what torch says of a device. Can torch use it, which attention kernels run, which versions?"""

import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from autotune.device import Device
from autotune.devices import kind_of
from autotune.job import DeviceJob
from autotune.target import CANT_BE_IMPORTED

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate")
# Production may lack these: what needs them falls back.
OF_SETTINGS = ("torchao", "tomesd", "peft", "DeepCache", "cache-dit", "bitsandbytes", "optimum-quanto")
# Where the settings' functions are, if not in the package itself.
MODULES = {"torchao": "torchao.quantization", "optimum-quanto": "optimum.quanto", "cache-dit": "cache_dit"}
OPTIONAL = ("xformers", "flash-attn", "flash-attn-3", "sageattention", "kernels")  # attention kernels of other packages


def run_device_job(job: DeviceJob, folder: Path) -> dict[str, Any]:
    """The job's device with torch's answers, as JSON. Raises UserError where torch can't use it."""
    return probe_device(job.device, by_trial=True).to_json()


def versions() -> dict[str, str]:
    """Package -> version: Python, the libraries that draw the pictures, and the installed optional packages."""
    found = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    for name in (*OF_SETTINGS, *OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def broken(package: str) -> str | None:
    """Why an installed package of a setting can't be imported, as words that take its version's place; None: it can.

    A package that was built for another torch raises any kind of error, not ImportError alone.
    """
    try:
        import_module(MODULES.get(package, package))
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")
        return f"{CANT_BE_IMPORTED} ({type(error).__name__}: {said})".replace(": )", ")")
    return None


def probe_device(device: Device, *, by_trial: bool = False) -> Device:
    """The device with what only torch knows. Raises UserError where this torch can't use the device.

    by_trial  find out by compiling a kernel whether torch.compile works; for a process of its own
    """
    return kind_of(device).probe(device, by_trial)
