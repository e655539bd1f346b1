"""A knob of another package that fails in every possible way; install() makes a module's knob an entry point."""

import os
import signal
from pathlib import Path
from typing import Any

from autotune.config import Config
from autotune.knob import Effect, Knob, Stage


def apply(pipe: Any, config: Config, device: str) -> Effect:
    import torch

    value = config["trouble"]
    if value == "exception":
        raise ValueError("the plugin's own exception")
    if value == "out_of_memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    if value == "exit":
        os._exit(7)
    if value == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if value == "hang":
        while True:
            signal.pause()
    if value == "unsupported":
        raise NotImplementedError("no kernel for this device")
    if value == "nan":
        pipe.vae.decoder.conv_out.weight.data.fill_(float("nan"))
    if value == "black":
        pipe.vae.decoder.conv_out.weight.data.zero_()
        pipe.vae.decoder.conv_out.bias.data.fill_(-1.0)
    return Effect(count=0 if value == "nothing" else 1, what="things broken")


KNOB = Knob(
    name="trouble",
    stage=Stage.PATCH,
    values=("none", "exception", "out_of_memory", "exit", "segfault", "hang", "unsupported", "nan", "black", "nothing"),
    changes_output=True,
    summary="fails in the given way",
    apply=apply,
)


def install(folder: Path, module: str = "plugin", name: str = "trouble") -> dict[str, str]:
    """Install the knob KNOB of this module as an entry point in `folder`, for parents and children.

    Returns the environment of a process that finds it.
    """
    package = folder / f"{name}-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[autotune.knobs]\n{name} = {module}:KNOB\n")
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parent}"}
